"""`inspect`: sampled responses of a run, each token coloured by what the method decided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from cppo_lab.cli.console import console, print_json
from cppo_lab.errors import UserError
from cppo_lab.files import json_lines
from cppo_lab.paths import output_root
from cppo_lab.tracking.find_run import find_run

# Colour and a sign of its own: what is printed to a file, or seen by a colour-blind reader, says the same.
_STYLES = {"threshold": "black on red", "budget": "black on yellow"}
_SIGNS = {"threshold": ("⟦", "⟧"), "budget": ("⟨", "⟩")}


@dataclass(frozen=True)
class Wish:
    """Which responses to show: of `step`, of problem number `problem` of that step, only wrong or masked ones."""

    step: int | None
    problem: int | None
    wrong: bool
    masked: bool
    most: int


def inspect_run(name: str, wish: Wish, output: Path | None, as_json: bool) -> None:
    """Print the responses of a run that are wished for. Raises UserError where there is none."""
    folder = find_run(output or output_root(), name, key="RUN")
    step, rows = _step_rows(folder.path, wish.step)
    prompts = list(dict.fromkeys(row["prompt"] for row in rows))
    if wish.problem is not None and wish.problem >= len(prompts):
        raise UserError(f"--problem {wish.problem}: step {step} keeps {len(prompts)} problems, from 0.")
    chosen = [row for row in rows if _is_wished(row, wish, prompts)]
    if not chosen:
        raise UserError(
            f"{folder.path.name}: none of the {len(rows)} responses kept of step {step} is like that."
        )
    shown = chosen[: wish.most]
    if as_json:
        print_json({"run": folder.path.name, "step": step, "responses": shown})
        return
    console().print(f"{folder.path.name}, step {step}: {len(shown)} of {len(chosen)} such responses\n")
    for row in shown:
        _show(row, prompts.index(row["prompt"]))
    console().print(_legend())


def _step_rows(folder: Path, step: int | None) -> tuple[int, list[dict[str, Any]]]:
    """The kept responses of `step`; without one, of the last step whose tokens were recorded."""
    files = {int(path.stem.removeprefix("step_")): path for path in (folder / "samples").glob("step_*.jsonl")}
    if not files:
        raise UserError(f"{folder.name}: has kept no responses yet (trainer.samples_per_step).")
    if step is not None:
        if step not in files:
            raise UserError(f"--step {step}: responses are kept of steps {min(files)} to {max(files)}.")
        return step, _rows(files[step])
    for number in sorted(files, reverse=True):
        rows = _rows(files[number])
        if any(row.get("tokens") for row in rows):
            return number, rows
    return max(files), _rows(files[max(files)])


def _rows(path: Path) -> list[dict[str, Any]]:
    return json_lines(path.read_text(encoding="utf-8"))


def _is_wished(row: dict[str, Any], wish: Wish, prompts: list[str]) -> bool:
    if wish.problem is not None and row["prompt"] != prompts[wish.problem]:
        return False
    if wish.wrong and row["reward"] > 0:
        return False
    return not wish.masked or any((row.get("tokens") or {}).get("masked", []))


def _show(row: dict[str, Any], problem: int) -> None:
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
            "[dim]Its tokens were not recorded: no update saw it, or the step was not evaluated.[/dim]\n"
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
    """Where the response drifted most, and what the method compared that with."""
    masked = [reason for reason in tokens["masked"] if reason]
    said = [f"{masked.count('threshold')} masked by threshold, {masked.count('budget')} by budget"]
    distances = tokens["divergence"]
    if distances:
        place = max(range(len(distances)), key=lambda i: distances[i] or 0.0)
        weight = tokens["weight"][place] if tokens["weight"] else 1.0
        said.append(
            f"largest D_t {distances[place]:g} at token {place + 1} {tokens['text'][place]!r} (w_t {weight:g})"
        )
        if tokens["threshold"]:
            said.append(f"threshold there {tokens['threshold'][place]:g}")
    return "; ".join(said) + "."


def _legend() -> Text:
    legend = Text("Masked: ")
    for reason, words in (("threshold", "by the threshold"), ("budget", "by the prefix budget alone")):
        before, after = _SIGNS[reason]
        legend.append(f"{before}{words}{after}", style=_STYLES[reason]).append("  ")
    return legend
