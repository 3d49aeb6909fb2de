"""`inspect`: sampled responses of a run, masked tokens highlighted by reason; or what the mask hit, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from cppo_lab.cli.console import console, print_json
from cppo_lab.cli.mask_table import DEFAULT_TOP, show_masked_tokens
from cppo_lab.cli.options import AsJson, Output
from cppo_lab.errors import UserError
from cppo_lab.files import json_lines
from cppo_lab.paths import output_root

# Signs besides colours, for files and colour-blind readers.
_STYLES = {"threshold": "black on red", "budget": "black on yellow"}
_SIGNS = {"threshold": ("⟦", "⟧"), "budget": ("⟨", "⟩")}


def inspect(
    run: Annotated[
        str, typer.Argument(help="A run, by name or ID (`cppo-lab list runs`).", show_default=False)
    ],
    step: Annotated[
        int | None,
        typer.Option(
            min=1, help="Training step (default: the last one with recorded tokens).", show_default=False
        ),
    ] = None,
    problem: Annotated[
        int | None,
        typer.Option(min=0, help="Only this problem of the step, counted from 0.", show_default=False),
    ] = None,
    wrong: Annotated[bool, typer.Option("--wrong", help="Only wrong responses.")] = False,
    masked: Annotated[bool, typer.Option("--masked", help="Only responses with masked tokens.")] = False,
    most: Annotated[int, typer.Option("--most", "-n", min=1, help="Show at most so many responses.")] = 4,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="Instead of responses, what the mask hit in the whole run, by token, class, position, entropy, "
            "probability or sign (of the advantage).",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="With --by: show so many rows (default: 20).", show_default=False),
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Show sampled responses of a run, masked tokens highlighted by reason.

    Examples:

    * `cppo-lab inspect cppo-0123456789ab --masked`
    * `cppo-lab inspect 0123456789ab --step 8 --problem 0 --wrong`
    * `cppo-lab inspect cppo-0123456789ab --by token --top 10`
    """
    from cppo_lab.tracking.find_run import find_run

    selection = Selection(problem, wrong, masked)
    _check_options(by, top, step, selection)
    folder = find_run(output or output_root(), run, key="RUN")
    if by is not None:
        show_masked_tokens(folder.path, by, top or DEFAULT_TOP, as_json)
        return
    step, rows = _step_rows(folder.path, step)
    selected = selection.of(step, rows)
    if not selected:
        raise UserError(
            f"{folder.path.name}: none of the {len(rows)} responses of step {step} matches {selection}."
        )
    shown = selected[:most]
    if as_json:
        print_json({"run": folder.path.name, "step": step, "responses": shown})
        return
    console().print(f"{folder.path.name}, step {step}: {len(shown)} of {len(selected)} matching responses\n")
    prompts = _prompts(rows)
    for row in shown:
        _show(row, prompts.index(row["prompt"]))
    console().print(_legend())


def _check_options(by: str | None, top: int | None, step: int | None, selection: Selection) -> None:
    """Raise UserError for an option that would be ignored."""
    chosen = " ".join(filter(None, [f"--step {step}" if step is not None else "", str(selection)]))
    if by is not None and chosen:
        raise UserError(f"{chosen}: has no effect with --by {by}, which counts the tokens of the whole run.")
    if by is None and top is not None:
        raise UserError(f"--top {top}: needs --by; --most sets the number of responses.")


@dataclass(frozen=True)
class Selection:
    """Which responses of a step to show: of one problem, only wrong ones, only ones with masked tokens."""

    problem: int | None
    wrong: bool
    masked: bool

    def of(self, step: int, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Those of `rows` that match. Raises UserError for a problem that the step does not have."""
        prompts = _prompts(rows)
        if self.problem is not None and self.problem >= len(prompts):
            raise UserError(
                f"--problem {self.problem}: step {step} has {len(prompts)} problems, counted from 0."
            )
        return [
            row
            for row in rows
            if (self.problem is None or row["prompt"] == prompts[self.problem])
            and not (self.wrong and row["reward"] > 0)
            and (not self.masked or any((row.get("tokens") or {}).get("masked", [])))
        ]

    def __str__(self) -> str:
        options = {
            "--wrong": self.wrong,
            "--masked": self.masked,
            f"--problem {self.problem}": self.problem is not None,
        }
        return " ".join(option for option, given in options.items() if given)


def _prompts(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["prompt"] for row in rows))


def _step_rows(folder: Path, step: int | None) -> tuple[int, list[dict[str, Any]]]:
    """The stored responses of `step`; by default, of the last step with recorded tokens."""
    files = {int(path.stem.removeprefix("step_")): path for path in (folder / "samples").glob("step_*.jsonl")}
    if not files:
        raise UserError(f"{folder.name}: has no stored responses yet (trainer.samples_per_step).")
    if step is not None:
        if step not in files:
            raise UserError(f"--step {step}: responses are stored for steps {min(files)} to {max(files)}.")
        return step, _rows(files[step])
    for number in sorted(files, reverse=True):
        rows = _rows(files[number])
        if any(row.get("tokens") for row in rows):
            return number, rows
    return max(files), _rows(files[max(files)])


def _rows(path: Path) -> list[dict[str, Any]]:
    return json_lines(path.read_text(encoding="utf-8"))


def _show(row: Mapping[str, Any], problem: int) -> None:
    from cppo_lab.analysis.safe_text import visible

    graded = (
        f" ({row.get('verdict', '?')}: {row['parsed']}, reference {row['answer']}; reward {row['reward']:g}, advantage "
        f"{row['advantage']:+.3f}, {row['length']} tokens, ended by {row['finish']})"
    )
    console().print(Text(f"Problem {problem}", style="bold").append(visible(graded), style="not bold"))
    console().print(Text(visible(row["prompt"]).rstrip("\n"), style="dim"))
    tokens = row.get("tokens")
    if not tokens:
        console().print(Text(visible(row["completion"])))
        console().print(
            "[dim]Its tokens were not recorded: it was in no update, or the step was not evaluated.[/dim]\n"
        )
        return
    console().print(_coloured(tokens))
    console().print(Text(_summary(tokens), style="dim"))
    console().print()


def _coloured(tokens: dict[str, Any]) -> Text:
    from cppo_lab.analysis.safe_text import visible

    text = Text()
    for piece, reason in zip(tokens["text"], tokens["masked"], strict=True):
        before, after = _SIGNS.get(reason, ("", ""))
        text.append(before + visible(piece) + after, style=_STYLES.get(reason, ""))
    return text


def _summary(tokens: dict[str, Any]) -> str:
    """Counts of masked tokens, and the token of the largest divergence with its weight and threshold."""
    masked = [reason for reason in tokens["masked"] if reason]
    parts = [f"{masked.count('threshold')} masked by threshold, {masked.count('budget')} by budget"]
    divergences = tokens["divergence"]
    if divergences:
        place = max(range(len(divergences)), key=lambda i: divergences[i] or 0.0)
        weight = tokens["weight"][place] if tokens["weight"] else 1.0
        parts.append(
            f"largest D_t {divergences[place]:g} at token {place + 1} {tokens['text'][place]!r} (w_t {weight:g})"
        )
        if tokens["threshold"]:
            parts.append(f"threshold there {tokens['threshold'][place]:g}")
    return "; ".join(parts) + "."


def _legend() -> Text:
    legend = Text("Masked: ")
    for reason, words in (("threshold", "by the threshold"), ("budget", "by the prefix budget only")):
        before, after = _SIGNS[reason]
        legend.append(f"{before}{words}{after}", style=_STYLES[reason]).append("  ")
    return legend
