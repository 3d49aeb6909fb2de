"""`executor=NAME executor.KEY=VALUE`: where a sweep's runs are trained, which has no part in their identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from cppo_lab.config.compose import NOT_OF_A_RUN
from cppo_lab.config.schema_errors import schema_sentence
from cppo_lab.errors import UserError, near_miss, one_of
from cppo_lab.plugins import conf_dirs

GROUP = NOT_OF_A_RUN


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Local(_Settings):
    """Worker processes of this machine, as many as `--jobs` says."""

    kind: Literal["local"] = "local"


class _Elsewhere(_Settings):
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a run whose worker was lost is started again; one that fails by itself is not."""
    poll_s: Annotated[float, Field(gt=0)] = 2.0
    """Seconds between looks at the workers and their run folders."""
    cpus: Annotated[int, Field(ge=1)] = 1
    memory_gb: Annotated[float, Field(gt=0)] | None = None


class Submitit(_Elsewhere):
    """A job of Slurm for each run, by submitit; `cluster: local` tries it without Slurm."""

    kind: Literal["submitit"] = "submitit"
    cluster: Literal["slurm", "local"] = "slurm"
    gpus: Annotated[int, Field(ge=0)] = 0
    parallel: Annotated[int, Field(ge=1)] = 64
    """Jobs that wait or run at a time."""
    timeout_min: Annotated[int, Field(ge=1)] = 1440
    """A run that is not finished by then is requeued, and resumes from its last checkpoint."""
    signal_delay_s: Annotated[int, Field(ge=1)] = 120
    requeues: Annotated[int, Field(ge=0)] = 100
    """How often a run may reach its time limit."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()
    """Commands of the job script before Python starts."""
    sbatch: dict[str, str | int | float | bool] = {}
    """Further options of sbatch, by their long names."""

    @model_validator(mode="after")
    def _nothing_that_is_ignored(self) -> Self:
        given = [name for name in _OF_SLURM if getattr(self, name) != type(self).model_fields[name].default]
        if self.cluster == "local" and given:
            raise ValueError(
                f"{given[0]} = {getattr(self, given[0])}: has no effect with executor.cluster=local, which starts "
                "plain processes; leave it out"
            )
        return self


_OF_SLURM = ("cpus", "memory_gb", "partition", "account", "qos", "constraint", "sbatch")


class Ray(_Elsewhere):
    """A task of Ray for each run."""

    kind: Literal["ray"] = "ray"
    gpus: Annotated[float, Field(ge=0)] = 0
    """A fraction lets runs share one."""
    address: str | None = None
    """Of a running cluster, or auto; null starts Ray on this machine."""
    parallel: Annotated[int, Field(ge=1)] | None = None
    """Runs at a time; null is as many as Ray has room for."""


_FIELDS = {"local": Local.model_fields, "submitit": Submitit.model_fields, "ray": Ray.model_fields}
Executor = Annotated[Local | Submitit | Ray, Field(discriminator="kind")]


def split_executor(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of the group `executor`, and the others."""
    own = [each for each in overrides if each.partition("=")[0] == GROUP or each.startswith(f"{GROUP}.")]
    return own, [each for each in overrides if each not in own]


def executor_settings(overrides: Sequence[str], config_dir: Path | None = None) -> Local | Submitit | Ray:
    """The executor that `executor=NAME` and `executor.KEY=VALUE` describe; the local one without any.

    NAME is a file `executor/NAME.yaml` of the lab, a plug-in or `config_dir`. Raises UserError for an unknown name or
    key, and for a value that is not allowed.
    """
    files = _files(config_dir)
    named = [each.partition("=")[2] for each in overrides if each.partition("=")[0] == GROUP]
    name = named[-1] if named else "local"
    if name not in files:
        raise one_of(GROUP, name, files)
    tree = dict(yaml.safe_load(files[name].read_text(encoding="utf-8")) or {})
    for each in overrides:
        key, equals, value = each.partition("=")
        if key == GROUP:
            continue
        if not equals:
            raise UserError(f"{each}: must be {key}=VALUE.")
        tree[key.removeprefix(f"{GROUP}.")] = _value(each, value)
    try:
        adapter: TypeAdapter[Local | Submitit | Ray] = TypeAdapter(Executor)
        return adapter.validate_python(tree)
    except ValidationError as error:
        raise UserError(_sentence(error, tree)) from error


def _files(config_dir: Path | None) -> dict[str, Path]:
    # As on Hydra's search path, the first of a name holds.
    return {
        path.stem: path
        for folder in reversed(conf_dirs(config_dir))
        for path in (folder / GROUP).glob("*.yaml")
    }


def _value(override: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{override}: is no value ({' '.join(str(error).split())[:80]}).") from error


def _sentence(error: ValidationError, tree: Mapping[str, Any]) -> str:
    """The schema's sentence; pydantic names the kind of executor first, which is no key."""
    detail = error.errors(include_url=False)[0]
    key = ".".join([GROUP, *(str(part) for part in detail["loc"][1:])])
    if detail["type"] == "value_error":
        return f"{GROUP}.{str(detail['ctx']['error']).replace(' = ', '=', 1)}."
    if detail["type"] == "extra_forbidden":
        known = sorted(_FIELDS[tree["kind"]].keys() - {"kind"})
        hint = near_miss(str(detail["loc"][-1]), known)
        return (
            f"{key}: unknown key of executor={tree['kind']}; allowed are {', '.join(known) or 'none'}.{hint}"
        )
    return schema_sentence(error, {GROUP: dict(tree)}).replace(f"{tree.get('kind')}.", f"{GROUP}.", 1)
