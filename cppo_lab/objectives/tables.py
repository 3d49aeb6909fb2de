"""Tables of methods and rules, made from the registries: `python -m cppo_lab.objectives.tables docs/methods.md`.

A page marks the place of a table by `<!-- table: methods -->` (or a selecting key, such as `divergence.kind`) and
`<!-- end of table -->`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from cppo_lab.objectives.describe import COORDINATES, rules_of, summary, yaml_text
from cppo_lab.objectives.named import method, open_keys
from cppo_lab.objectives.parameters import Parameter
from cppo_lab.objectives.rules import Rules
from cppo_lab.paths import conf_dir

_PLACE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def methods_table() -> str:
    """Every method of the lab by its coordinates, in Markdown."""
    names = sorted(path.stem for path in (conf_dir() / "algo").glob("[!_]*.yaml"))
    rows = []
    for name in names:
        missing = open_keys(name)
        texts = {"trust_region": f"needs {', '.join(missing)}"} if missing else summary(method(name))
        rows.append([f"`{name}`", *(texts.get(key, "") for key in COORDINATES)])
    heads = ["method", "anchor", "advantage", "divergence", "trust region", "surrogate", "aggregation"]
    return _markdown(heads, rows)


def rules_table(rules: Rules) -> str:
    """Every built-in rule of one kind with its parameters, in Markdown."""
    rows = []
    for entry in (each for each in rules.entries() if each.is_built_in):
        parameters = ", ".join(_shown(each) for each in entry.part.parameters)
        rows.append([f"`{entry.name}`", entry.about, parameters, entry.paper or ""])
    return _markdown([f"`{rules.kind}`", "what it does", "parameters", "paper"], rows)


def with_tables(page: str) -> str:
    """The page with every table that it marks brought up to date. Raises ValueError for an unknown table."""
    known = {rules.kind: rules for _, rules in rules_of()}

    def table(found: re.Match[str]) -> str:
        name = found.group(2)
        if name != "methods" and name not in known:
            raise ValueError(f"table {name}: unknown; allowed are methods, {', '.join(known)}")
        made = methods_table() if name == "methods" else rules_table(known[name])
        return f"{found.group(1)}\n{made}\n{found.group(3)}"

    return _PLACE.sub(table, page)


def _shown(parameter: Parameter) -> str:
    default = "" if parameter.is_required else f" {yaml_text(parameter.default)}"
    return f"`{parameter.name}`{default}{' in ' if parameter.range else ''}{parameter.range}"


def _markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    escaped = ([cell.replace("|", r"\|") for cell in line] for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
