"""From Hydra overrides to a validated run configuration."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cppo_lab.config.default_choices import CONFIG_NAME
from cppo_lab.config.other_names import key_hint
from cppo_lab.config.overrides import how_to_quote, parse, plugins_named, quoted
from cppo_lab.config.plain_values import PlainTree, plain_tree
from cppo_lab.config.schema import RunConfig
from cppo_lab.config.schema_errors import schema_sentence
from cppo_lab.errors import UserError, one_of
from cppo_lab.objectives.named import BASE
from cppo_lab.objectives.spec import neutral_tree
from cppo_lab.paths import conf_dir
from cppo_lab.plugins import conf_dirs, load_plugins

if TYPE_CHECKING:
    from omegaconf import DictConfig

NOT_OF_A_RUN = "executor"
"""A folder of `conf` that says where runs are trained, and is no part of any."""


def group_options(group: str, config_dir: Path | None = None) -> list[str]:
    """The choices of a configuration group, those of loaded plug-ins among them.

    Files whose names start with an underscore are parts of others.
    """
    files = [path for folder in conf_dirs(config_dir) for path in (folder / group).glob("[!_]*.yaml")]
    return sorted({path.stem for path in files})


def groups(config_dir: Path | None = None) -> list[str]:
    """The configuration groups of a run, those of loaded plug-ins among them."""
    found = {path.parent.name for folder in conf_dirs(config_dir) for path in folder.glob("*/*.yaml")}
    return sorted(found - {NOT_OF_A_RUN})


def search_path(overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    """Hydra's override for folders of configuration groups besides the lab's; empty if there are none.

    Loads the plug-ins that overrides name. Raises UserError for a missing folder or plug-in.
    """
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir {config_dir}: no such folder.")
    folders = [config_dir.resolve()] if config_dir else []
    folders += [plugin.conf for plugin in load_plugins(plugins_named(overrides)) if plugin.conf]
    if not folders:
        return []
    return [f"hydra.searchpath=[{','.join(quoted(f'file://{folder}') for folder in folders)}]"]


def store_neutral_method() -> None:
    """Give Hydra every key of a method at its neutral value, as the choice of `algo` that all methods build on."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(group="algo", name=BASE, node=neutral_tree())


def compose_tree(overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """The resolved configuration tree of one run. Raises UserError for overrides that cannot be composed."""
    return compose_trees([overrides], config_dir)[0]


def compose_trees(
    combinations: Sequence[Sequence[str]], config_dir: Path | None = None
) -> list[dict[str, Any]]:
    """`compose_tree` of many runs.

    Composing takes tenths of a second: runs with the same choices from groups are composed once, and their values are
    set in copies.
    """
    composed: dict[tuple[str, ...], _Composed] = {}
    known: dict[tuple[Path, ...], _Choices] = {}
    trees = []
    with _hydra():
        for overrides in combinations:
            # Loads the plug-ins, whose groups and choices are known from here on.
            searched = search_path(overrides, config_dir)
            folders = tuple(conf_dirs(config_dir))
            if folders not in known:
                known[folders] = _Choices(config_dir)
            values, choices = _sorted_out(overrides, known[folders])
            key = (*searched, *choices)
            if key not in composed:
                config = _composed(key)
                composed[key] = _Composed(pickle.dumps(config), plain_tree(config))
            trees.append(composed[key].with_values(values, overrides))
    return trees


@dataclass(frozen=True)
class _Composed:
    """A composed configuration, in which values can be set: pickled, as a copy of it takes eight times as long."""

    pickled: bytes
    plain: PlainTree | None

    def with_values(self, values: Sequence[Any], overrides: Sequence[str]) -> dict[str, Any]:
        """The resolved tree with these of a run's `overrides`."""
        if self.plain is not None:
            tree = self.plain.with_values([(each.key_or_group, each.value()) for each in values])
            if tree is not None:
                return tree
        config = pickle.loads(self.pickled)
        for override in values:
            _set_value(config, override)
        return _resolved(config, overrides)


@contextmanager
def _hydra() -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


class _Choices:
    """The choices of every configuration group, read when they are asked for."""

    def __init__(self, config_dir: Path | None) -> None:
        self.groups = frozenset(groups(config_dir))
        self._config_dir = config_dir
        self._options: dict[str, list[str]] = {}

    def of(self, group: str) -> list[str]:
        """`group_options` of one of the groups."""
        if group not in self._options:
            self._options[group] = group_options(group, self._config_dir)
        return self._options[group]


def _sorted_out(overrides: Sequence[str], known: _Choices) -> tuple[list[Any], list[str]]:
    """The overrides that set values, parsed, and those left to Hydra: choices from groups, additions and deletions.

    Raises UserError for a choice that its group does not have, and for what is no override of a single run.
    """
    values, choices = [], []
    for text, override in zip(overrides, _parsed(overrides), strict=True):
        key = override.key_or_group
        if not key:
            raise UserError(f"{text}: not an override; give key=value or group=choice.")
        if override.is_sweep_override():
            value = text.partition("=")[2]
            hint = f" If this is one value, {how_to_quote(key, value)}" if "/" in value else ""
            raise UserError(f"{text}: several values make a sweep; use cppo-lab sweep {text}.{hint}")
        if key in known.groups and not override.is_delete() and override.value() not in known.of(key):
            raise _unknown_choice(key, text.partition("=")[2], known.of(key))
        is_change = override.is_add() or override.is_force_add() or override.is_delete()
        if is_change or key in known.groups or "/" in key or "@" in text or key.startswith("hydra."):
            choices.append(text)
        else:
            values.append(override)
    return values, choices


def _unknown_choice(group: str, value: str, options: Sequence[str]) -> UserError:
    refused = one_of(group, value, options)
    if group in ("model", "task") and ("/" in value or "." in value):
        choice = "pretrained" if group == "model" else "custom"
        return UserError(f"{refused} If it is yours, give {group}={choice} {group}.path={value}.")
    return refused


def _parsed(overrides: Sequence[str]) -> list[Any]:
    bare = next((each for each in overrides if "=" not in each and not each.startswith("~")), None)
    if bare is not None:
        raise UserError(f"{bare}: not an override; give key=value or group=choice.")
    return parse(overrides)


def _composed(choices: Sequence[str]) -> DictConfig:
    from hydra import compose

    store_neutral_method()
    with _in_one_sentence([choice for choice in choices if not choice.startswith("hydra.")]):
        return compose(CONFIG_NAME, overrides=list(choices))


def _set_value(config: DictConfig, override: Any) -> None:
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    key = override.key_or_group
    with _in_one_sentence([override.input_line]):
        try:
            OmegaConf.update(config, key, override.value(), merge=True)
        except (ConfigAttributeError, ConfigKeyError) as error:
            known = [*(known for known, _ in _entries(OmegaConf.to_container(config))), *groups()]
            raise UserError(f"{key}: unknown key.{key_hint(key, known)}") from error


def _resolved(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    with _in_one_sentence(overrides):
        try:
            tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            missing = next(
                (key for key, value in _entries(OmegaConf.to_container(config)) if value == "???"), None
            )
            if missing is None:
                raise
            raise UserError(f"{missing}: needs a value; give {missing}=…") from error
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _entries(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted keys of a configuration tree with their values, groups and leaves."""
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _entries(value, f"{prefix}{key}.")


@contextmanager
def _in_one_sentence(overrides: Sequence[str]) -> Iterator[None]:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except UserError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # Hydra raises a plain ValueError for an override that means nothing, with its own representation of it.
        reason = " ".join(str(error).split()).partition(" See https")[0].partition(" : Override(")[0]
        raise UserError(f"{' '.join(overrides)}: cannot be composed ({reason.rstrip('.')}).") from error


def compose_run(overrides: Sequence[str], config_dir: Path | None = None) -> RunConfig:
    """The validated configuration of one run. Raises UserError for anything wrong with it."""
    return validate(compose_tree(overrides, config_dir))


def compose_runs(combinations: Sequence[Sequence[str]], config_dir: Path | None = None) -> list[RunConfig]:
    """`compose_run` of many runs."""
    return [validate(tree) for tree in compose_trees(combinations, config_dir)]


def validate(tree: Mapping[str, Any]) -> RunConfig:
    """Check a resolved tree against the schema, after loading the plug-ins that it names."""
    plugins = tree.get("plugins")
    if isinstance(plugins, list | tuple) and all(isinstance(each, str) for each in plugins):
        tree = {**tree, "plugins": [plugin.reference for plugin in load_plugins(plugins)]}
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(schema_sentence(error, tree)) from error
