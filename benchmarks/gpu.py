"""What a GPU is asked at once, in under ten minutes: correctness, the output head, training steps, runs that share it.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json        on a CUDA device
    python benchmarks/gpu.py --small --json build/gpu.json             the same parts, tiny, on a CPU

Each part is a process of its own with a limit on its time, and is written down when it is done: whatever stops a later
one, what was measured before stays.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from head import WAYS, inputs, one_pass

from cppo_lab.models.logprobs import token_statistics
from cppo_lab.quiet import quiet_libraries
from cppo_lab.tracking.provenance import device_name, versions

HERE = Path(__file__).resolve().parent
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bfloat16 operations per second, by a part of the device's name."""


@dataclass(frozen=True)
class Scale:
    """The sizes of everything, and where it runs."""

    device: str
    positions: int
    width: int
    vocabulary: int
    models: dict[str, dict[str, int]]
    responses: int
    tokens: int
    jobs: tuple[int, ...]
    steps: int


def _qwen3(width: int, layers: int, heads: int, head_dim: int, feed_forward: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": head_dim,
        "intermediate_size": feed_forward,
    }


ON_GPU = Scale(
    device="cuda",
    positions=32_768,
    width=2048,
    vocabulary=151_936,
    models={"0.1B": _qwen3(768, 12, 12, 64, 2048), "1.7B": _qwen3(2048, 28, 16, 128, 6144)},
    responses=8,
    tokens=1024,
    jobs=(1, 4, 16),
    steps=2,
)
SMALL = Scale(
    device="cpu",
    positions=64,
    width=32,
    vocabulary=512,
    models={"tiny": _qwen3(32, 2, 2, 16, 64)},
    responses=2,
    tokens=16,
    jobs=(1, 2),
    steps=1,
)


def _seconds(device: str, take: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds, with the device done, after one turn that does not count."""
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        take()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return statistics.median(found[1:])


def _peak_gib(device: str, take: Callable[[], object]) -> float | None:
    """The most memory that a pass takes beyond what is held already; None on a CPU."""
    if device != "cuda":
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    take()
    return (torch.cuda.max_memory_allocated() - before) / (1 << 30)


def correctness(scale: Scale) -> dict[str, Any]:
    """The tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/test_gpu.py"]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    # 5: nothing was run, as where there is no GPU.
    is_fine = done.returncode == 0 or (scale.device == "cpu" and done.returncode == 5)
    return {"passed": is_fine, "said": done.stdout.strip().splitlines()[-1:]}


def head(scale: Scale) -> dict[str, Any]:
    """Seconds and memory of the output head forward and backward, in bfloat16."""
    hidden, linear, tokens, weights = inputs(scale.positions, scale.width, scale.vocabulary)
    batch = (
        hidden.detach().to(scale.device).requires_grad_(),
        linear.to(scale.device),
        tokens.to(scale.device),
        weights.to(scale.device),
    )
    found: dict[str, Any] = {}
    for name, way in WAYS.items():

        def take(way: Any = way) -> None:
            with torch.autocast(scale.device, torch.bfloat16):
                one_pass(way, batch)

        try:
            found[name] = {"seconds": _seconds(scale.device, take), "gib": _peak_gib(scale.device, take)}
        except torch.OutOfMemoryError:
            found[name] = {"seconds": None, "gib": "out of memory"}
    return found


def steps(scale: Scale) -> dict[str, Any]:
    """Forward and backward passes of randomly initialised Qwen3 models, against the operations that they need."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    found: dict[str, Any] = {}
    for name, sizes in scale.models.items():
        config = Qwen3Config(**sizes, vocab_size=scale.vocabulary, tie_word_embeddings=True)
        with torch.device(scale.device):
            network = Qwen3ForCausalLM(config).float()
        tokens = torch.randint(scale.vocabulary, (scale.responses, scale.tokens), device=scale.device)
        mask = torch.ones_like(tokens)

        def take(network: Any = network, tokens: Any = tokens, mask: Any = mask) -> None:
            network.zero_grad()
            with torch.autocast(scale.device, torch.bfloat16):
                logp = token_statistics(network, tokens, mask, scale.tokens // 4).logp
            logp.sum().backward()

        seconds = _seconds(scale.device, take)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        rate = 6 * parameters * tokens.numel() / seconds
        peak = next((peak for part, peak in PEAK_FLOPS.items() if part in device_name(scale.device)), None)
        found[name] = {
            "parameters": parameters,
            "seconds": seconds,
            "gib": _peak_gib(scale.device, take),
            "model_flops_per_s": rate,
            "share_of_peak": None if peak is None else rate / peak,
        }
        del network
    return found


def sharing(scale: Scale) -> dict[str, Any]:
    """Runs of the ladder's smallest model that share the device."""
    path = Path("build", "sharing.json")
    path.parent.mkdir(exist_ok=True)
    command = [sys.executable, str(HERE / "sharing.py"), "--jobs", *map(str, scale.jobs), "--repeats", "1"]
    command += ["--runs", str(max(4, *scale.jobs)), "--steps", str(scale.steps), "--json", str(path)]
    subprocess.run(command, capture_output=True, check=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {"results": found["results"]}


PARTS: dict[str, tuple[Callable[[Scale], dict[str, Any]], float]] = {
    "correctness": (correctness, 120.0),
    "head": (head, 90.0),
    "steps": (steps, 120.0),
    "sharing": (sharing, 270.0),
}
"""Every part with the seconds that it may take."""


def _of_a_process(part: str, limit_s: float, is_small: bool) -> dict[str, Any]:
    command = [sys.executable, __file__, "--part", part, *(["--small"] if is_small else [])]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done in {limit_s:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
    return {**json.loads(done.stdout.splitlines()[-1]), "took_s": time.perf_counter() - started}


def main() -> None:
    """Do every part, or print one."""
    parser = argparse.ArgumentParser(description="What a GPU is asked at once.")
    parser.add_argument("--small", action="store_true", help="tiny sizes, on a CPU")
    parser.add_argument(
        "--part", choices=list(PARTS), default=None, help="print what this part finds, and no more"
    )
    parser.add_argument("--json", type=Path, default=None, help="write the numbers here, part by part")
    options = parser.parse_args()
    scale = SMALL if options.small else ON_GPU
    quiet_libraries()
    if options.part is not None:
        print(json.dumps(PARTS[options.part][0](scale)))
        return
    if scale.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("This machine has no CUDA device; --small tries the script on a CPU.")
    content: dict[str, Any] = {
        "device": f"{scale.device} ({device_name(scale.device)})",
        "versions": versions(),
    }
    for part, (_, limit_s) in PARTS.items():
        content[part] = _of_a_process(part, limit_s, options.small)
        print(part, json.dumps(content[part]), flush=True)
        if options.json is not None:
            options.json.parent.mkdir(exist_ok=True)
            options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
