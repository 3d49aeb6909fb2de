"""A worker of `vs_trl.py`, in the environment that has TRL: its GRPOTrainer, an iteration at a time."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from turns import Turns

_NUMBER = re.compile(r"-?\d+")


def is_right(completions: list[str], answer: list[str], **_: Any) -> list[float]:
    """1 where the last number is the answer."""
    return [
        float((_NUMBER.findall(text) or [""])[-1] == right)
        for text, right in zip(completions, answer, strict=True)
    ]


class Iterations(TrainerCallback):
    """Waits before the first update of an iteration, which samples, and tells after the last."""

    def __init__(self, turns: Turns, updates: int) -> None:
        self._turns, self._updates = turns, updates
        self._tokens = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if state.global_step % self._updates == 0:
            self._turns.wait()

    def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
        if state.global_step % self._updates == 0:
            self._turns.tell(self.trainer.state.num_input_tokens_seen - self._tokens)
            self._tokens = self.trainer.state.num_input_tokens_seen

    trainer: GRPOTrainer


def config(job: dict[str, Any], folder: str) -> GRPOConfig:
    """The job in TRL's words."""
    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_steps=job["updates"],
        disable_tqdm=True,
        seed=job["seed"],
        shuffle_dataset=False,
        per_device_train_batch_size=job["minibatch"],
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        steps_per_generation=job["responses"] // job["minibatch"],
        num_iterations=job["epochs"],
        num_generations=job["group"],
        max_completion_length=job["limit"],
        max_steps=job["updates"] * job["iterations"],
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        adam_beta1=job["betas"][0],
        adam_beta2=job["betas"][1],
        max_grad_norm=job["grad_clip"],
        epsilon=0.2,
        epsilon_high=0.28,
        disable_dropout=True,
        model_init_kwargs={"dtype": "float32"},
    )


def main() -> None:
    """Train as the job says."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    turns = Turns()
    torch.set_num_threads(job["threads"])
    with tempfile.TemporaryDirectory() as folder:
        iterations = Iterations(turns, job["updates"])
        trainer = GRPOTrainer(
            job["policy"],
            reward_funcs=is_right,
            args=config(job, folder),
            train_dataset=Dataset.from_list(job["problems"]),
            processing_class=AutoTokenizer.from_pretrained(job["policy"]),
            callbacks=[iterations],
        )
        iterations.trainer = trainer
        trainer.train()


if __name__ == "__main__":
    main()
