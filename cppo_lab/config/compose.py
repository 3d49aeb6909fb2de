"""From Hydra overrides to a validated run configuration, with refusals a person can act on."""

from __future__ import annotations

import copy
import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cppo_lab.config.overrides import plugins_named, quoted
from cppo_lab.config.schema import RunConfig
from cppo_lab.errors import UserError, near_miss, one_of
from cppo_lab.objectives.named import BASE
from cppo_lab.objectives.spec import neutral_tree
from cppo_lab.paths import conf_dir
from cppo_lab.plugins import conf_dirs, load_plugins

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONFIG_NAME = "config"


def group_options(group: str, config_dir: Path | None = None) -> list[str]:
    """The choices of a configuration group, those of loaded plug-ins among them.

    Files whose names start with an underscore are parts of others.
    """
    files = [path for folder in conf_dirs(config_dir) for path in (folder / group).glob("[!_]*.yaml")]
    return sorted({path.stem for path in files})


def groups(config_dir: Path | None = None) -> list[str]:
    """The configuration groups, those of loaded plug-ins among them."""
    return sorted(
        {path.name for folder in conf_dirs(config_dir) for path in folder.iterdir() if path.is_dir()}
    )


def search_path(overrides: Sequence[str], config_dir: Path | None) -> list[str]:
    """Hydra's override for the folders of configuration groups besides the lab's, if there are any."""
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


@contextmanager
def _hydra() -> Iterator[None]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def compose_tree(overrides: Sequence[str], config_dir: Path | None = None) -> dict[str, Any]:
    """The resolved configuration tree of one run. Raises UserError for what Hydra cannot compose."""
    return compose_trees([overrides], config_dir)[0]


def compose_trees(
    combinations: Sequence[Sequence[str]], config_dir: Path | None = None
) -> list[dict[str, Any]]:
    """`compose_tree` of many runs. What they choose from groups is composed once for all that choose alike, and their
    values are set in a copy of it, as Hydra does: composing takes tenths of a second, and a sweep has hundreds of runs.
    """
    from hydra import compose
    from omegaconf import OmegaConf

    composed: dict[tuple[str, ...], DictConfig] = {}
    trees = []
    with _hydra():
        for overrides in combinations:
            searched = search_path(overrides, config_dir)
            chosen_from = groups(config_dir)
            _refuse_parts(overrides)
            values = [override for override in overrides if _is_value(override, chosen_from)]
            choices = (*searched, *(override for override in overrides if override not in values))
            with _in_one_sentence(overrides):
                if choices not in composed:
                    store_neutral_method()
                    _refuse_nameless(choices)
                    composed[choices] = compose(CONFIG_NAME, overrides=list(choices))
                config = copy.deepcopy(composed[choices])
                _set_values(config, values)
                tree = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            assert isinstance(tree, dict)
            trees.append({str(key): value for key, value in tree.items()})
    return trees


def _is_value(override: str, chosen_from: Container[str]) -> bool:
    """Whether an override sets a value, and chooses nothing from a group; what adds or deletes is left to Hydra."""
    key, equals, _ = override.partition("=")
    is_plain = equals and re.fullmatch(r"[\w.]+", key) and not key.startswith("hydra.")
    return bool(is_plain) and key not in chosen_from


def _set_values(config: DictConfig, overrides: Sequence[str]) -> None:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import ConfigCompositionException

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigCompositionException(f"Ambiguous value for argument '{override.input_line}'")
    ConfigLoaderImpl._apply_overrides_to_config(parsed, config)


def _refuse_parts(overrides: Sequence[str]) -> None:
    for override in overrides:
        group, _, choice = override.partition("=")
        # A file that starts with an underscore is a part of others.
        if choice.startswith("_") and group in groups():
            raise one_of(group, choice, group_options(group))


def _refuse_nameless(choices: Sequence[str]) -> None:
    """Raise UserError for an override without a key, and for a choice that is no name: Hydra fails on them."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in OverridesParser.create().parse_overrides(list(choices)):
        group, line = override.key_or_group, str(override.input_line)
        if not group:
            raise UserError(f"{line}: not an override; give key=value or group=choice.")
        is_choice = group in groups() and not override.is_delete() and not override.is_sweep_override()
        if is_choice and not isinstance(override.value(), str):
            raise one_of(group, line.partition("=")[2], group_options(group))


@contextmanager
def _in_one_sentence(overrides: Sequence[str]) -> Iterator[None]:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_hydra_sentence(error, overrides)) from error


def compose_run(overrides: Sequence[str], config_dir: Path | None = None) -> RunConfig:
    """The validated configuration of one run. Raises UserError in one sentence for anything wrong with it."""
    return validate(compose_tree(overrides, config_dir))


def compose_runs(combinations: Sequence[Sequence[str]], config_dir: Path | None = None) -> list[RunConfig]:
    """`compose_run` of many runs."""
    return [validate(tree) for tree in compose_trees(combinations, config_dir)]


def validate(tree: Mapping[str, Any]) -> RunConfig:
    """Check a resolved tree against the schema, with the plug-ins that it names loaded."""
    plugins = tree.get("plugins")
    if isinstance(plugins, list | tuple) and all(isinstance(each, str) for each in plugins):
        tree = {**tree, "plugins": [plugin.reference for plugin in load_plugins(plugins)]}
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise UserError(_schema_sentence(error, tree)) from error


# Hydra's errors.


def _hydra_sentence(error: Exception, overrides: Sequence[str]) -> str:
    message = str(error)
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown:
        key = unknown.group(1)
        return f"{key}: unknown key.{near_miss(key, _known_keys())}"
    option = re.search(r"Could not find '([^']+)'", message) or re.search(
        r"In '[^']*': Could not load '([^']+)'", message
    )
    if option:
        group, _, name = option.group(1).rpartition("/")
        choices = group_options(group) if group in groups() else []
        allowed = f" allowed are {', '.join(choices)}." if choices else ""
        return f"{group or 'config'}={name}: unknown choice;{allowed}{near_miss(name, choices)}"
    group_key = re.search(r"Could not override '?([\w/@.]+)'?\.\s*No match in the defaults list", message)
    if group_key:
        return f"{group_key.group(1)}: unknown group.{near_miss(group_key.group(1), groups())}"
    if "Ambiguous value for argument" in message:
        several = next((o for o in overrides if "," in o), " ".join(overrides))
        return f"{several}: several values make a sweep; use cppo-lab sweep {several}."
    bare = next((o for o in overrides if "=" not in o and not o.startswith("~")), None)
    if "missing EQUAL" in message and bare:
        return f"{bare}: not an override; give key=value or group=choice."
    missing = re.search(r"Missing mandatory value: ([\w.]+)", message)
    if missing:
        return f"{missing.group(1)}: needs a value; give {missing.group(1)}=…"
    first = " ".join(message.split()).partition(" See https")[0]
    return f"{' '.join(overrides)}: cannot be composed ({first.rstrip('.')})."


def _known_keys() -> list[str]:
    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            yield f"{prefix}{key}"
            if isinstance(value, Mapping):
                yield from walk(value, f"{prefix}{key}.")

    return [*walk(compose_tree([]), ""), *groups()]


# The schema's errors.


def _schema_sentence(error: ValidationError, tree: Mapping[str, Any]) -> str:
    details = error.errors(include_url=False)
    # A key's own error says more than a rule about several keys; the first is nearest to what was typed, since
    # other keys may take their values from it.
    detail = next((d for d in details if d["type"] != "value_error"), details[0])
    path = _path(detail["loc"], tree)
    key = ".".join(path)
    kind, message, value = detail["type"], detail["msg"], detail["input"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        unknown = {tuple(_path(d["loc"], tree)) for d in details if d["type"] == kind}
        siblings = _known_fields_at(path[:-1], tree, unknown)
        return f"{key}={value}: unknown key; allowed here are {', '.join(siblings)}.{near_miss(path[-1], siblings)}"
    if kind == "value_error":
        sentence = message.removeprefix("Value error, ")
        inner = sentence.split(" = ")[0]
        # A rule inside a group names its key relative to the group.
        prefix = f"{key}." if key and not inner.startswith(tuple(f"{p}." for p in tree)) else ""
        if path[:1] == ["algo"]:
            prefix = "algo."
        return f"{prefix}{_tidy(sentence)}."
    if kind == "missing":
        return f"{key}: needs a value; give {key}=…"
    if kind == "union_tag_invalid":
        return f"{key}.kind={detail['ctx']['tag']}: allowed are {detail['ctx']['expected_tags']}."
    return f"{key}={_shown(value)}: {_requirement(message)}."


def _tidy(sentence: str) -> str:
    return re.sub(r"^(\S+) = ", r"\1=", sentence).replace("=None:", "=null:", 1).rstrip(".")


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def _requirement(message: str) -> str:
    message = re.sub(r"^Input should be ", "must be ", message)
    message = message.replace("a valid integer, unable to parse string as an integer", "a whole number")
    message = message.replace("a valid integer, got a number with a fractional part", "a whole number")
    message = message.replace("a valid integer", "a whole number").replace("a finite number", "finite")
    message = message.replace("a valid number, unable to parse string as a number", "a number")
    message = message.replace("a valid number", "a number").replace("a valid boolean", "true or false")
    message = message.replace("a valid string", "a text")
    return message[0].lower() + message[1:]


def _path(loc: Sequence[int | str], tree: Mapping[str, Any]) -> list[str]:
    """The error's location without the discriminator tags that pydantic puts between keys."""
    path: list[str] = []
    node: Any = tree
    for part in loc:
        if isinstance(node, Mapping) and part not in node and node.get("kind") == part:
            continue
        path.append(str(part))
        node = node.get(part) if isinstance(node, Mapping) else None
    return path


def _known_fields_at(
    path: Sequence[str], tree: Mapping[str, Any], unknown: Container[tuple[str, ...]]
) -> list[str]:
    """The keys at a place of the tree without the unknown ones: every choice file names all keys of its group."""
    node: Any = tree
    for part in path:
        node = node.get(part, {}) if isinstance(node, Mapping) else {}
    return sorted(key for key in node if (*path, key) not in unknown) if isinstance(node, Mapping) else []
