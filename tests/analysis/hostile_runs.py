"""Writes a sweep whose every text is one that could break a page, a document or a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from run_folders import write_sweep

TEXTS = {
    "script": "<script>alert(1)</script>",
    "image": "</script><img src=x onerror=alert(2)>",
    "attribute": '" onmouseover="alert(3)" x="',
    "comment": "<!--<script>",
    "long": "8 7 + " * 17_000,
    "one_word": "x" * 100_000,
    "lines": "\n" * 300 + "end",
    "right_to_left": "\u202egpj.exe\u202c \u2067סוף\u2069",
    "zero_width": "a\u200bb\ufeffc\u00add",
    "combining": "e" + "\u0301" * 60,
    "surrogate": "\ud800 \udfff",
    "control": "\x00\x07\x1b[31m\x9b2J\x7f",
    "separators": "a\u2028b\u2029c",
    "template": "{{7*7}} {% raw %} ${7*7}",
    "markdown": "| a | b |\n|---|---|\n# head\n```\n~~~\n[x](javascript:alert(4)) ![y](z) `c` **b** &lt; <b>",
    "latex": r"\input{x} 50% $a_1^2$ #1 & ~ {} \\ \end{tabular}",
    "bracket": "[2pt] * rich [red]markup[/blue] [/] \\",
    "address": "javascript:alert(5)//https://example.org",
}
METHODS = (r"<b>bold</b>&$\frac{x_1$", "x" * 5_000, "\u202e[/red]{{7*7}}|`")


def write_hostile_sweep(output: Path) -> list[Path]:
    """OUTPUT/sweeps/hostile and its runs, one of every method: texts in the title, the configurations, the reasons,
    the names, the prompts, the responses and their tokens.
    """
    folders = write_sweep(output, name="hostile", algos=("pg", "grpo", "cppo"), seeds=(0, 1), steps=4)
    every = " ".join(TEXTS.values())
    for place, folder in enumerate(folders):
        method = METHODS[place // 2]
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        info |= {"name": every, "method": method, "task": every, "device": TEXTS["image"], "theorem_1": every}
        info["model"]["name"] = TEXTS["script"]
        if place == 1:
            info |= {"status": "FAILED", "reason": f"loss is not finite: {every}", "diverged": True}
        _write_json(folder / "run.json", info)
        # YAML cannot hold half a character.
        writable = {key: text for key, text in TEXTS.items() if key != "surrogate"}
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        config["algo"]["name"] = method
        config["algo"] |= {f"note_{key}": f"{text}{place // 2}" for key, text in writable.items()}
        config["trainer"] |= {f"note_{key}": text for key, text in writable.items()} | {
            TEXTS["script"]: 1,
            "k" * 300: 1,
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        for turn, path in enumerate(sorted((folder / "samples").glob("*.jsonl"))):
            path.write_text("".join(json.dumps(row) + "\n" for row in _rows(turn)), encoding="utf-8")
    manifest = output / "sweeps" / "hostile" / "sweep.json"
    sweep = json.loads(manifest.read_text(encoding="utf-8"))
    sweep |= {"title": every, "question": every, "baseline": METHODS[0]}
    sweep["axes"]["algo"] = list(METHODS)
    for place, entry in enumerate(sweep["runs"]):
        entry["axes"]["algo"] = METHODS[place // 2]
    _write_json(manifest, sweep)
    return folders


def _rows(turn: int) -> list[dict[str, Any]]:
    """A response for each text, which is its answer, its own text and a token of it; six to a prompt, which is a text
    too, another one every `turn`.
    """
    texts = list(TEXTS.values())
    numbers = {
        name: [0.5] * len(texts) for name in ("divergence", "weight", "threshold", "ratio", "advantage")
    }
    tokens = {
        "text": texts,
        "anchor": "rollout",
        "delta": 0.15,
        "masked": ["threshold"] * len(texts),
        **numbers,
    }
    return [
        {
            "prompt": texts[(6 * (place // 6) + turn) % len(texts)],
            "completion": text,
            "answer": text,
            "parsed": text,
            "verdict": text,
            "reward": float(place % 2),
            "advantage": 0.5,
            "length": len(texts),
            "finish": text,
            "tokens": tokens if place % 3 else None,
        }
        for place, text in enumerate(texts)
    ]


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
