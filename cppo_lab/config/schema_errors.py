"""The schema's errors as one sentence that names key, value and what is allowed."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from cppo_lab.errors import near_miss

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

# By pydantic's type of error, where its message speaks to programmers.
_REQUIREMENTS = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "finite_number": "must be finite",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
}


def schema_sentence(error: ValidationError, tree: Mapping[str, Any]) -> str:
    """What is wrong with the configuration `tree`.

    The error of one key comes before a rule about several keys, and the first error before others: keys take their
    values from earlier ones.
    """
    details = error.errors(include_url=False)
    detail = next((each for each in details if each["type"] != "value_error"), details[0])
    path = _path(detail["loc"], tree)
    key, kind, value = ".".join(path), detail["type"], detail["input"]
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        unknown = {tuple(_path(each["loc"], tree)) for each in details if each["type"] == kind}
        known = _known_keys(path[:-1], tree, unknown)
        return f"{key}={value}: unknown key; allowed here are {', '.join(known)}.{near_miss(path[-1], known)}"
    if kind == "value_error":
        return _rule_sentence(path, str(detail["ctx"]["error"]), tree)
    if kind == "missing":
        return f"{key}: needs a value; give {key}=…"
    if kind == "union_tag_invalid":
        return f"{key}.kind={detail['ctx']['tag']}: allowed are {detail['ctx']['expected_tags']}."
    if kind in ("model_type", "model_attributes_type", "dict_type") and isinstance(value, int | float | str):
        return _group_sentence(path, value, tree)
    return f"{key}={'null' if value is None else value}: {_requirement(detail)}."


def _group_sentence(path: Sequence[str], value: float | str, tree: Mapping[str, Any]) -> str:
    key = ".".join(path)
    if key == "seeds":
        streams = "is a group of keys, one per random stream"
        return f"seeds={value}: {streams}; for several runs, sweep seed=range(0,{value})."
    return f"{key}={value}: is a group of keys; set those within it, {key}.KEY=…"


def _rule_sentence(path: Sequence[str], sentence: str, tree: Mapping[str, Any]) -> str:
    """The sentence of a rule of the schema, `key = value: requirement`, with the key's full path."""
    inner = sentence.partition(" = ")[0]
    is_full = inner.partition(".")[0] in tree
    prefix = "algo." if path[:1] == ["algo"] else "" if is_full else "".join(f"{part}." for part in path)
    return f"{prefix}{sentence.replace(' = ', '=', 1).replace('=None:', '=null:', 1).rstrip('.')}."


def _requirement(detail: ErrorDetails) -> str:
    message = detail["msg"].replace("Input should be ", "must be ", 1)
    return _REQUIREMENTS.get(detail["type"], message[0].lower() + message[1:])


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


def _known_keys(
    path: Sequence[str], tree: Mapping[str, Any], unknown: Container[tuple[str, ...]]
) -> list[str]:
    """The keys at a place of the tree except the unknown ones; every choice file names all keys of its group."""
    node: Any = tree
    for part in path:
        node = node.get(part, {}) if isinstance(node, Mapping) else {}
    return sorted(key for key in node if (*path, key) not in unknown) if isinstance(node, Mapping) else []
