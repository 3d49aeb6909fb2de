"""The README's table of what was measured, from the files of `benchmarks/results`.

python benchmarks/speed_table.py              print it
python benchmarks/speed_table.py README.md    put it between the page's marks
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
BEGIN, END = "<!-- speed -->", "<!-- /speed -->"
Row = tuple[str, str, str, str]
"""What is measured, beside what, with what result, and by which benchmark."""


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def _iterations(found: dict[str, Any]) -> Iterator[Row]:
    for each in found["results"]:
        threads = "" if each["threads"] == 1 else f", {each['threads']} threads"
        memory = each["lab"]["peak_mib"] / each["trl"]["peak_mib"]
        yield (
            f"training iteration, model {each['model']}, {each['updates']} updates{threads}",
            "TRL's GRPOTrainer",
            f"{each['ratio']:.2f} times as fast, {memory:.2f} times the memory",
            "vs_trl",
        )


def _decoder(found: dict[str, Any]) -> Iterator[Row]:
    for each in found["results"]:
        if each["what"] == "update":
            what = f"forward and backward pass, model {each['model']}"
            yield what, "transformers' Qwen3", f"{each['ratio']:.2f} times as fast", "decoder"


def _head(found: dict[str, Any]) -> Iterator[Row]:
    seconds, memory = found["seconds"], found["peak_gib"]
    yield (
        f"output head, vocabulary of {found['vocabulary']:,}, {found['positions']:,} positions",
        "all logits at once",
        f"{seconds['plain'] / seconds['chunked']:.2f} times as fast, "
        f"{memory['chunked'] / memory['plain']:.2f} times the memory",
        "head",
    )


def _verdict(found: dict[str, Any]) -> Iterator[Row]:
    row = next(each for each in found["results"] if each["difference"] == found["margin"])
    yield (
        f"processor time until a difference of {100 * found['margin']:.0f} points is settled",
        f"{found['seeds']} seeds whatever comes",
        f"{row['core_s_growing'] / row['core_s_fixed']:.2f} times",
        "verdict",
    )


def _sharing(found: dict[str, Any]) -> Iterator[Row]:
    first, *others = found["results"]
    for each in others:
        yield (
            f"a sweep of {found['runs']} short runs, {each['jobs']} at once",
            f"{first['jobs']} at once",
            f"{each['ratio']:.2f} times as fast, "
            f"{each['processor_s_per_run'] / first['processor_s_per_run']:.2f} times the processor time",
            "sharing",
        )


SOURCES = {
    "vs_trl-cpu": _iterations,
    "decoder-cpu": _decoder,
    "head-cpu": _head,
    "sharing-cpu": _sharing,
    "verdict": _verdict,
}


def table() -> str:
    """The table in Markdown."""
    lines = ["| on a CPU | beside | | benchmark | processor |", "| --- | --- | --- | --- | --- |"]
    for name, rows in SOURCES.items():
        found = _read(name)
        for what, beside, result, by in rows(found):
            lines.append(f"| {what} | {beside} | {result} | `{by}.py` | {_processor(found)} |")
    return "\n".join(lines)


def _processor(found: dict[str, Any]) -> str:
    """Maker, family and model: `AMD 25/17` of `cpu (x86_64 AuthenticAMD 25/17 AVX512)`."""
    named = re.search(r"(Authentic|Genuine)(\w+) (\d+/\d+)", found.get("device", ""))
    return f"{named[2]} {named[3]}" if named else "any"


def with_table(page: str) -> str:
    """A page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise SystemExit(f"The page has no {BEGIN} … {END}.")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(description="The table of the benchmarks' results.")
    parser.add_argument("page", type=Path, nargs="?", help="a Markdown page with the marks")
    page: Path | None = parser.parse_args().page
    if page is None:
        print(table())
    else:
        page.write_text(with_table(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
