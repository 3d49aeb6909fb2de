"""Model folders in Hugging Face format: whether a path means one, and whether it is complete."""

from __future__ import annotations

from pathlib import Path

from cppo_lab.errors import UserError


def is_local(path: str) -> bool:
    """Whether `path` means a folder rather than a hub id, which never starts like a path."""
    return Path(path).exists() or path.startswith((".", "/", "~"))


def check_model_folder(path: str) -> None:
    """Raise UserError unless `path` is a folder with a configuration and weights."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"model {path}: no such model folder.")
    inside = sorted(folder.glob("checkpoints/*/config.json")) or sorted(folder.glob("*step_*/config.json"))
    if inside and not (folder / "config.json").is_file():
        raise UserError(f"model {path}: holds checkpoints; name one of them, such as {inside[-1].parent}.")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"model {path}: no config.json there; a model folder in Hugging Face format is needed."
        )
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise UserError(f"model {path}: the model folder has no weights (*.safetensors).")
