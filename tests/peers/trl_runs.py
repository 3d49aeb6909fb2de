"""Runs of TRL's trainer and of the lab's subclass on a model of the ladder's smallest size, in one process or two.

As a script it is one process of such a run: `python trl_runs.py SETTINGS.json`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM, TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer

ROOT = Path(__file__).resolve().parents[2]
DIGITS = "0123456789"
GROUP, LENGTH = 4, 12


@dataclass(frozen=True)
class Settings:
    """One run. algo: a method of the lab, with `values` for its keys; None trains by TRL's own loss. resume: from the
    last checkpoint. kept: how many updates leave their micro-batches and gradients in the output folder.
    """

    output: str
    algo: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    steps: int = 4
    processes: int = 1
    resume: bool = False
    kept: int = 0


def tokenizer() -> PreTrainedTokenizerFast:
    words = {token: place for place, token in enumerate(["<pad>", "<eos>", "=", *DIGITS])}
    made = Tokenizer(models.WordLevel(words, unk_token="="))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="=")


def model_folder(parent: Path) -> str:
    """A model of the ladder's smallest size at its random start, as a folder."""
    folder = parent / "model"
    if folder.exists():
        return str(folder)
    set_seed(0)
    made = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=13,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            eos_token_id=1,
            pad_token_id=0,
        )
    )
    # Sharper than at its random start, so that rules have something to divide tokens by.
    with torch.no_grad():
        made.model.embed_tokens.weight.mul_(4)
    made.save_pretrained(folder)
    return str(folder)


def prompts() -> Dataset:
    return Dataset.from_dict({"prompt": [f"{a}{b}=" for a in DIGITS for b in DIGITS][:32]})


def repeats_first(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """The share of digits that are the prompt's first one."""
    return [text.count(prompt[0]) / LENGTH for prompt, text in zip(prompts, completions, strict=True)]


def config(settings: Settings) -> GRPOConfig:
    """Four prompts a rollout, in two updates of two micro-batches each; over all processes."""
    given = {
        "output_dir": settings.output,
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "per_device_train_batch_size": 2 * GROUP // (2 * settings.processes),
        "gradient_accumulation_steps": 2,
        "steps_per_generation": 4,
        "num_generations": GROUP,
        "max_completion_length": LENGTH,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "max_steps": settings.steps,
        "save_steps": 2,
        "logging_steps": 1,
        "seed": 3,
        # Gradients are kept after they would be clipped.
        "max_grad_norm": 1e9 if settings.kept else 1.0,
        "disable_dropout": True,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "model_init_kwargs": {"dtype": "float32"},
    }
    return GRPOConfig(**(given | settings.config))


class Keeper(TrainerCallback):
    """Leaves the micro-batches and the gradients of the first updates in the output folder."""

    def __init__(self, kept: int) -> None:
        self.kept, self.trainer = kept, None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if state.global_step >= self.kept:
            return
        trainer = self.trainer
        assert trainer is not None, "set when the trainer is built"
        first = state.global_step * args.gradient_accumulation_steps % args.steps_per_generation
        network = trainer.accelerator.unwrap_model(trainer.model)
        torch.save(
            {
                "inputs": trainer._buffered_inputs[first : first + args.gradient_accumulation_steps],
                "weights": {name: each.detach().clone() for name, each in network.named_parameters()},
                "gradient": {name: each.grad.clone() for name, each in network.named_parameters()},
            },
            Path(args.output_dir, f"update{state.global_step}-{trainer.accelerator.process_index}.pt"),
        )


def build(settings: Settings, **further: Any) -> GRPOTrainer:
    keeper, start = Keeper(settings.kept), model_folder(Path(settings.output))
    options: dict[str, Any] = {
        "reward_funcs": repeats_first,
        "args": config(settings),
        "train_dataset": prompts(),
        "eval_dataset": prompts().select(range(8)),
        "processing_class": tokenizer(),
        "callbacks": [keeper],
        **further,
    }
    if settings.algo is None:
        trainer = GRPOTrainer(start, **options)
    else:
        from cppo_lab.integrations.trl import TrustRegionGRPOTrainer
        from cppo_lab.objectives import method

        algo = method(settings.algo, **settings.values) if settings.values else settings.algo
        trainer = TrustRegionGRPOTrainer(start, algo=algo, **options)
    keeper.trainer = trainer
    return trainer


@dataclass(frozen=True)
class Finished:
    """What a run left behind: TRL's log and the final weights."""

    folder: Path
    log: list[dict[str, float]]
    weights: dict[str, torch.Tensor]

    def series(self, name: str) -> list[float]:
        return [row[name] for row in self.log if name in row]

    def kept(self, update: int, process: int = 0) -> dict[str, Any]:
        return torch.load(self.folder / f"update{update}-{process}.pt")


def run(settings: Settings) -> Finished:
    """The run, in processes of its own."""
    folder = Path(settings.output)
    folder.mkdir(parents=True, exist_ok=True)
    model_folder(folder)
    file = folder / "settings.json"
    file.write_text(json.dumps(asdict(settings)), encoding="utf-8")
    command = [sys.executable]
    if settings.processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={settings.processes}"]
    surroundings = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "ACCELERATE_USE_CPU": "true",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    done = subprocess.run(
        [*command, __file__, str(file)], env=surroundings, capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    left = torch.load(folder / "final.pt")
    return Finished(folder, left["log"], left["weights"])


def main(path: str) -> None:
    settings = Settings(**json.loads(Path(path).read_text(encoding="utf-8")))
    trainer = build(settings)
    trainer.train(resume_from_checkpoint=settings.resume or None)
    if trainer.accelerator.is_main_process:
        network = trainer.accelerator.unwrap_model(trainer.model)
        weights = {name: each.detach().clone() for name, each in network.named_parameters()}
        torch.save({"log": trainer.state.log_history, "weights": weights}, Path(settings.output, "final.pt"))
    # Else a process may abort at its exit, while another one still is connected to it.
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1])
