"""The identity of a run: the hash of everything that determines its result.

It must survive growth: a key added later leaves every identity as it is while it has its neutral value (`acting_keys`).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel

from cppo_lab.config.backend import VerlBackend
from cppo_lab.files import file_sha256
from cppo_lab.models.device import resolved_device
from cppo_lab.models.fetch import packaged_at
from cppo_lab.plugins import loaded
from cppo_lab.tasks.asking import default_asking
from cppo_lab.tasks.question_set import QuestionSetConfig

if TYPE_CHECKING:
    # The report asks which keys determine a result, and needs no torch.
    from cppo_lab.config.schema import RunConfig

RESULT_VERSION = 3
"""Raised whenever the same configuration would no longer give the same bits."""

# Keys that say where and how often something is written, never what is computed.
_INERT = (
    "paths",
    "tracking",
    "trainer.checkpoint_every",
    "trainer.samples_per_step",
    *(f"backend.{name}" for name in VerlBackend.model_fields if name != "kind"),
)

# Groups whose class, and so whose keys, their `kind` chooses.
_CHOICES = ("model", "task", "engine")

_NEVER = object()
"""The neutral value of a key that has none: nothing equals it."""

# Weights, configuration and tokenizer of a model folder.
_MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model", ".jinja")


def digest(content: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def folder_hashes(folder: Path) -> list[str]:
    """SHA-256 of a model folder's weights, configuration and tokenizer, in the order of their names.

    A packaged model is its weights, whichever versions of the libraries wrote its files, and before it is fetched.
    """
    packaged = packaged_at(str(folder))
    if packaged is not None:
        return [packaged.tensors]
    return [file_sha256(path) for path in sorted(folder.iterdir()) if path.suffix in _MODEL_FILES]


def determines_result(key: str) -> bool:
    """Whether a dotted configuration key, such as `trainer.lr`, can change what a run computes."""
    return not any(key == inert or key.startswith(f"{inert}.") for inert in _INERT)


@functools.cache
def first_keys() -> frozenset[str]:
    """The dotted keys that count whatever their value: those that the schema had when identities were fixed.

    `task[chain].steps` is the key of one choice of a group. The file is never changed.
    """
    text = Path(__file__).with_name("first_keys.txt").read_text(encoding="utf-8")
    return frozenset(text.split())


@functools.cache
def _first_groups() -> frozenset[str]:
    parts = [key.split(".") for key in first_keys()]
    return frozenset(".".join(each[:depth]) for each in parts for depth in range(1, len(each)))


def acting_keys(node: Any, key: str = "", only: Collection[str] | None = None) -> dict[str, Any]:
    """The part of a configuration, or of its group at the dotted `key`, that counts for identities, as plain data.

    Of some of its keys alone with `only`.

    A key that is not among `first_keys` is left out while it has its neutral value: its default, unless the field
    declares another one as `neutral`, in its metadata or its `json_schema_extra`. A default that changes must
    declare the value that was neutral before.
    """
    found: dict[str, Any] = {}
    for name, value, neutral in fields_of(node):
        if only is not None and name not in only:
            continue
        path = f"{key}.{name}" if key else name
        if path in _CHOICES:
            found[name] = acting_keys(value, f"{path}[{value.kind}]") | {"kind": value.kind}
        elif is_group(value):
            inner = acting_keys(value, path)
            if inner or path in _first_groups():
                found[name] = inner
        elif path in first_keys() or value != neutral:
            found[name] = value
    return found


@runtime_checkable
class Neutral(Protocol):
    """A group of keys that says itself which value of each is neutral."""

    def neutral_fields(self) -> Iterator[tuple[str, Any, Any]]:
        """Name, value and neutral value of every key."""


def is_group(value: Any) -> bool:
    """Whether a value is a group of keys."""
    return _is_type_of_groups(value.__class__)


@functools.cache
def _is_type_of_groups(kind: Any) -> bool:
    return issubclass(kind, BaseModel | Neutral) or dataclasses.is_dataclass(kind)


def fields_of(node: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and neutral value of every field of a group."""
    if issubclass(type(node), Neutral):
        yield from node.neutral_fields()
        return
    if isinstance(node, BaseModel):
        for name, info in type(node).model_fields.items():
            default = _NEVER if info.is_required() else info.get_default(call_default_factory=True)
            declared = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
            yield name, getattr(node, name), declared.get("neutral", default)
        return
    for field in dataclasses.fields(node):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        neutral = _NEVER if default is dataclasses.MISSING else default
        yield field.name, getattr(node, field.name), field.metadata.get("neutral", neutral)


def _is_folder(path: str) -> bool:
    return packaged_at(path) is not None or Path(path).is_dir()


def _hashes_by_key(config: RunConfig) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, path in config.task.local_files().items():
        if Path(path).is_file():
            found[f"task.{key}"] = [file_sha256(Path(path))]
    if config.model.kind == "pretrained" and _is_folder(config.model.path):
        found["model.path"] = folder_hashes(Path(config.model.path))
    return found


def input_hashes(config: RunConfig) -> list[str]:
    """SHA-256 of every local file the run reads, by role: training data, held-out data, a local model's files."""
    return [each for hashes in _hashes_by_key(config).values() for each in hashes]


def named_inputs(config: RunConfig) -> dict[str, str]:
    """What the local files the run reads hold, by the key that names them: one digest each."""
    return {key: digest(hashes) for key, hashes in _hashes_by_key(config).items()}


def _without_local_paths(content: Mapping[str, Any], task_files: Iterable[str]) -> dict[str, Any]:
    """A configuration whose local inputs are named by their kind: their path does not matter, their bytes do.

    `task_files` are the keys of the task that hold paths of local files.
    """
    task, model = copy.deepcopy(content["task"]), dict(content["model"])
    for key in task_files:
        *groups, last = key.split(".")
        holder = task
        for group in groups:
            holder = holder[group]
        holder[last] = "file"
    path = model.get("path")
    if path and _is_folder(path):
        model |= {key: "folder" for key in ("path", "name") if model[key] == path}
    return {**content, "task": task, "model": model}


def run_id(config: RunConfig) -> str:
    """The identity of the run that `config` describes: 12 hexadecimal digits."""
    content = acting_keys(config)
    for path in _INERT:
        *groups, last = path.split(".")
        holder = content
        for key in groups:
            holder = holder.get(key, {})
        holder.pop(last, None)
    content["trainer"]["device"] = resolved_device(config.trainer.device)
    if "plugins" in content:
        # The bytes that are executed, wherever they are.
        content["plugins"] = [plugin.sha256 for plugin in loaded(config.plugins)]
    named = _without_local_paths(content, config.task.local_files())
    return digest(
        {"version": RESULT_VERSION, "config": named, "inputs": input_hashes(config), **_asked(config)}
    )


def _asked(config: RunConfig) -> dict[str, Any]:
    """How a pretrained model is asked where the configuration leaves that open, which once was another way."""
    if not config.model.is_pretrained or not isinstance(config.task, QuestionSetConfig):
        return {}
    return {"asked": dataclasses.asdict(default_asking(is_pretrained=True))}


def run_ids(config: RunConfig) -> set[str]:
    """The identities that the run has on machines of every kind: `auto` is another device on some."""
    device = config.trainer.device
    trainers = [
        config.trainer.model_copy(update={"device": each})
        for each in (("cpu", "cuda") if device == "auto" else (device,))
    ]
    return {run_id(config.model_copy(update={"trainer": trainer})) for trainer in trainers}


def starting_policy_id(config: RunConfig) -> str:
    """The identity of the starting policy: model, task and warm-up recipe, and the bytes they read.

    Plug-ins count where the task is one of theirs; a rule acts after the warm-up.
    """
    acting = acting_keys(config, only=("model", "task", "warmup"))
    content: dict[str, Any] = {
        "version": RESULT_VERSION,
        **_without_local_paths({key: acting[key] for key in ("model", "task")}, config.task.local_files()),
        "warmup": acting["warmup"],
        "device": resolved_device(config.trainer.device),
        "threads": config.trainer.threads,
        "inputs": input_hashes(config),
        **(_asked(config) if config.warmup.steps else {}),
    }
    if not type(config.task).__module__.startswith("cppo_lab."):
        content["plugins"] = [plugin.sha256 for plugin in loaded(config.plugins)]
    return digest(content)
