"""`lm_eval` and `cppo-lab eval` as commands, each in its own environment, on the same model folder and files."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tiny_runs import ROOT, clean_environment, lab

LM_EVAL = Path(os.environ.get("LM_EVAL", ROOT / ".venv-lmeval" / "bin" / "lm_eval"))
FILES = {
    "gsm8k": "gsm8k.yaml",
    "gsm8k_cot": "gsm8k-cot.yaml",
    "gsm8k_cot_zeroshot": "gsm8k-cot-zeroshot.yaml",
}

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Found:
    """What one side wrote: its results and its samples by task, in the harness's shape; `own` are the lab's results."""

    results: dict[str, dict[str, Any]]
    samples: dict[str, Rows]
    own: dict[str, dict[str, Any]]

    def of(self, key: str, task: str) -> Any:
        """What the results say of a task under `key`."""
        return self.results[task][key][task]


def _environment(scratch: Path) -> dict[str, str]:
    # The harness's packages must not be shadowed by the lab's, and nothing may be asked of the hub.
    ours = clean_environment(HF_HUB_OFFLINE="1", HF_HOME=str(scratch / "hub"))
    return {key: value for key, value in ours.items() if key != "PYTHONPATH"}


def in_the_harness(scratch: Path, *arguments: str, stdin: str | None = None) -> str:
    """The output of a Python process in the harness's environment."""
    done = subprocess.run(
        [str(LM_EVAL.with_name("python")), *arguments],
        cwd=scratch,
        env=_environment(scratch),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def local_tasks(scratch: Path, data: Path) -> Path:
    """A folder of the harness's own three tasks in which nothing but the place of the data is another."""
    folder = scratch / "tasks"
    folder.mkdir()
    where = "import lm_eval.tasks.gsm8k as tasks; print(list(tasks.__path__)[0])"
    originals = Path(in_the_harness(scratch, "-c", where).strip())
    for task, file in FILES.items():
        content = {
            "include": str(originals / file),
            "task": task,
            "dataset_path": "json",
            "dataset_kwargs": {
                "data_files": {split: str(data / f"{split}.jsonl") for split in ("train", "test")}
            },
        }
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(content))
    return folder


def by_the_harness(scratch: Path, model: Path, tasks: Path, names: Sequence[str], limit: int) -> Found:
    """`lm_eval run --model hf` at batch size 1."""
    output = scratch / f"harness-{model.name}"
    in_the_harness(
        scratch,
        *("-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"),
        *("--batch_size", "1", "--device", "cpu", "--log_samples", "--limit", str(limit)),
        *("--tasks", ",".join(names), "--include_path", str(tasks), "--output_path", str(output)),
    )
    (file,) = output.glob("*/results_*.json")
    results = json.loads(file.read_text())
    samples = {}
    for name in names:
        (file,) = output.glob(f"*/samples_{name}_2*.jsonl")
        samples[name] = [json.loads(line) for line in file.read_text().splitlines()]
    return Found(dict.fromkeys(names, results), samples, {})


def by_the_lab(
    scratch: Path, model: Path, data: Path, names: Sequence[str], limit: int, batch_size: int
) -> Found:
    """`cppo-lab eval gsm8k --protocol lm-eval:…`, once per task."""
    output = scratch / f"lab-{model.name}-{batch_size}"
    results, samples, own = {}, {}, {}
    for name in names:
        shots = ["--fewshot-data", str(data / "train.jsonl")] if name == "gsm8k" else []
        done = lab(
            *("eval", "gsm8k", "--model", str(model), "--protocol", f"lm-eval:{name}@3.0", "--device", "cpu"),
            *("--data", str(data / "test.jsonl"), *shots, "--limit", str(limit)),
            *("--batch-size", str(batch_size), "--output", str(output), "--no-track", "--json"),
            cwd=scratch,
            timeout=3000,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        own[name] = json.loads(done.stdout)
        files = Path(own[name]["folder"]) / "lm-eval"
        results[name] = json.loads((files / "results.json").read_text())
        lines = (files / f"samples_{name}.jsonl").read_text().splitlines()
        samples[name] = [json.loads(line) for line in lines]
    return Found(results, samples, own)
