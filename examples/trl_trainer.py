"""Train a model by TRL's GRPOTrainer under one of the lab's trust regions.

The data are rows of `question` and `answer`; a response is right if its last number is the answer:

    python examples/trl_trainer.py --model Qwen/Qwen3-0.6B --data train.jsonl --algo cppo
    torchrun --nproc_per_node 8 examples/trl_trainer.py --model Qwen/Qwen3-0.6B --data train.jsonl --algo cppo

Needs TRL: pip install 'cppo-lab[trl]'.
"""

from __future__ import annotations

import argparse
import re
from typing import Any

from datasets import Dataset, load_dataset
from trl import GRPOConfig

from cppo_lab.integrations.trl import TrustRegionGRPOTrainer


def last_number_is_right(completions: list[Any], answer: list[Any], **columns: Any) -> list[float]:
    """1.0 where the last number of a completion is the answer, else 0.0."""
    found = [re.findall(r"-?\d+", _text(completion)) for completion in completions]
    return [
        float(bool(numbers) and numbers[-1] == str(its)) for numbers, its in zip(found, answer, strict=True)
    ]


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def read(path: str, chat: bool) -> Dataset:
    """The rows of a JSON Lines file as prompts, for a chat model as messages."""
    rows = load_dataset("json", data_files=path, split="train")

    def prompt(row: dict[str, Any]) -> dict[str, Any]:
        asked = row["question"]
        return {"prompt": [{"role": "user", "content": asked}] if chat else asked}

    return rows.map(prompt)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="name on the hub, or a folder")
    parser.add_argument("--data", required=True, help="JSON Lines with the columns question and answer")
    parser.add_argument("--algo", default="cppo", help="a method of the lab, or the path of a method file")
    parser.add_argument("--output", default="outputs/trl")
    parser.add_argument("--steps", type=int, default=200, help="updates")
    parser.add_argument("--batch", type=int, default=8, help="responses per update and process")
    parser.add_argument("--updates", type=int, default=4, help="updates per rollout")
    parser.add_argument("--lr", type=float, default=1e-6)
    parser.add_argument("--length", type=int, default=512, help="longest response in tokens")
    parser.add_argument("--plain", action="store_true", help="no chat template")
    parser.add_argument("--cpu", action="store_true")
    given = parser.parse_args()

    args = GRPOConfig(
        output_dir=given.output,
        per_device_train_batch_size=given.batch,
        # With one update per rollout the policy is the rollout policy, and no trust region acts.
        steps_per_generation=given.updates,
        num_generations=8,
        max_completion_length=given.length,
        learning_rate=given.lr,
        max_steps=given.steps,
        # A run resumes where a rollout ends.
        save_steps=10 * given.updates,
        logging_steps=1,
        use_cpu=given.cpu,
        bf16=not given.cpu,
        gradient_checkpointing=not given.cpu,
        report_to=[],
    )
    trainer = TrustRegionGRPOTrainer(
        given.model,
        last_number_is_right,
        args,
        read(given.data, chat=not given.plain),
        algo=given.algo,
    )
    trainer.train()
    trainer.save_model()
    # Else a process of several may abort at its exit.
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main()
