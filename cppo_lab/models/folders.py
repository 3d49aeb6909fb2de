"""Model folders in Hugging Face format: telling them from hub ids, and checking that they are complete."""

from __future__ import annotations

import math
from pathlib import Path

from cppo_lab.errors import UserError
from cppo_lab.models.fetch import check_fetched, packaged_at

_LFS = b"version https://git-lfs"


def is_local(path: str) -> bool:
    """Whether `path` is a local folder and not a hub id, which never starts like a path and has one slash at most."""
    return Path(path).exists() or path.startswith((".", "/", "~")) or path.count("/") > 1


def check_model_folder(path: str) -> None:
    """Raise UserError unless `path` is a folder with a configuration and weights."""
    folder = Path(path)
    if not folder.is_dir():
        remedy = f" Run cppo-lab models fetch {folder.name}." if packaged_at(path) else ""
        raise UserError(f"model {path}: no such model folder.{remedy}")
    inside = sorted(folder.glob("checkpoints/*/config.json")) or sorted(folder.glob("*step_*/config.json"))
    if inside and not (folder / "config.json").is_file():
        raise UserError(f"model {path}: contains checkpoints; give one of them, such as {inside[-1].parent}.")
    if (folder / "adapter_config.json").is_file():
        beside = " beside a base model" if (folder / "config.json").is_file() else ""
        raise UserError(
            f"model {path}: holds a LoRA adapter{beside} (adapter_config.json), which is not applied; merge it into "
            "its base model with peft (merge_and_unload) and give the folder of the merged model."
        )
    if not (folder / "config.json").is_file():
        raise UserError(f"model {path}: has no config.json; must be a model folder in Hugging Face format.")
    weights = [*folder.glob("*.safetensors")]
    if not weights:
        is_pickled = any(folder.glob("*.bin"))
        pickled = " Its *.bin files are pickled, which can hold code, and are not read." if is_pickled else ""
        raise UserError(f"model {path}: has no weights (*.safetensors).{pickled}")
    pointer = next((each for each in sorted(weights) if _is_lfs_pointer(each)), None)
    if pointer is not None:
        raise UserError(
            f"model {path}: {pointer.name} is a Git LFS pointer and not the weights; fetch them with git lfs pull."
        )
    check_fetched(path)


def _is_lfs_pointer(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(len(_LFS)) == _LFS


def folder_parameters(path: Path) -> int | None:
    """The number of parameters in the files that transformers loads; None if there are none.

    Other files beside them may hold the same weights again. Raises UserError for a broken file.
    """
    whole = path / "model.safetensors"
    files = [whole] if whole.is_file() else sorted(path.glob("model-*.safetensors"))
    if not files:
        return None
    from safetensors import SafetensorError, safe_open

    total = 0
    for file in files:
        try:
            with safe_open(file, framework="numpy") as tensors:
                # The handle has keys(), but is no mapping.
                for name in tensors.keys():  # noqa: SIM118
                    total += math.prod(tensors.get_slice(name).get_shape())
        except SafetensorError as error:
            raise UserError(
                f"model.path={path}: {file.name}: not a readable weights file ({error})."
            ) from error
    return total
