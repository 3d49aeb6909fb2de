"""`eval`: a model's accuracy on a benchmark, and two models' difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cppo_lab.cli.console import console, print_json, table
from cppo_lab.errors import UserError
from cppo_lab.eval.folder import TIMINGS
from cppo_lab.eval.request import EvaluationRequest
from cppo_lab.eval.run import Finished, evaluate_request
from cppo_lab.models.device import check_device
from cppo_lab.paths import output_root
from cppo_lab.training.preflight import writable


def evaluate_model(
    request: EvaluationRequest, output: Path | None, as_json: bool, tracking_uri: str | None, track: bool
) -> None:
    """Evaluate or go on with it, print the results, and send them to MLflow."""
    request.check()
    check_device("--device", request.device)
    root = output or output_root()
    writable(root)
    if request.engine != "openai":
        from cppo_lab.quiet import quiet_libraries

        quiet_libraries()
    finished = _with_progress(request, root, quiet=as_json or not console().is_terminal)
    if as_json:
        print_json(finished.results | {"folder": str(finished.folder.path)})
    else:
        _show(request, finished)
    if track:
        _track(request, finished, root, tracking_uri)


def _with_progress(request: EvaluationRequest, root: Path, quiet: bool) -> Finished:
    if quiet:
        return evaluate_request(request, root)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(), transient=True) as progress:
        bar = progress.add_task(f"{request.task} responses", total=None)

        def show(done: int, wanted: int) -> None:
            progress.update(bar, completed=done, total=wanted)

        return evaluate_request(request, root, show)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(value: list[float]) -> str:
    return f"{_percent(value[0])} to {_percent(value[1])}"


def _show(request: EvaluationRequest, finished: Finished) -> None:
    results = finished.results
    samples = results["samples_per_problem"]
    shown = table(
        f"{request.task}, {results['protocol']}: {results['n']} problems"
        + (f", {samples} samples of each" if samples > 1 else ""),
        *("metric", "accuracy %", "95% Wilson", "95% bootstrap", "stderr %"),
        *([f"pass@{samples} %", f"maj@{samples} %"] if samples > 1 else []),
    )
    for metric, found in results["metrics"].items():
        several = [found["pass_at"][str(samples)], found[f"maj_at_{samples}"]] if samples > 1 else []
        shown.add_row(
            f"avg@{samples}" if samples > 1 and len(results["metrics"]) == 1 else metric,
            _percent(found["accuracy"]),
            _interval(found["wilson_95"]),
            _interval(found["bootstrap_95"]),
            "–" if found["stderr"] is None else f"{100 * found['stderr']:.2f}",
            *map(_percent, several),
        )
    console().print(shown)
    for metric, found in results["metrics"].items():
        counts = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in found["verdicts"].items())
        console().print(f"{metric}: {counts}.")
    decoding = results["decoding"]
    how = (
        "greedy"
        if decoding["greedy"]
        else f"temperature {decoding['temperature']:g}, top-p {decoding['top_p']:g}, seed {decoding['seed']}"
    )
    penalty = decoding.get("repetition_penalty")
    if penalty not in (None, 1.0):
        how += f", repetition penalty {penalty:g}"
    speed = finished.folder.read(TIMINGS).get("tokens_per_s", 0.0)
    console().print(
        f"{how}, at most {decoding['max_new_tokens']} tokens; no answer found in "
        f"{_percent(results['unparsed_share'])}%, cut at the limit {_percent(results['truncated_share'])}%; "
        f"mean length {results['length_mean']:.0f} tokens, {speed:.0f} tokens per second."
    )
    if samples > 1:
        console().print("Intervals and standard errors are clustered by problem.")
    for warning in results["warnings"]:
        console().print(f"[yellow]Warning:[/yellow] {warning}")
    done = "It had been done before: nothing was sampled. " if finished.was_done else ""
    console().print(f"{done}Results and graded responses: {finished.folder.path}")


def _track(request: EvaluationRequest, finished: Finished, root: Path, uri: str | None) -> None:
    """Send a finished evaluation to MLflow, once. A store that cannot be used costs no result."""
    from cppo_lab.eval.tracking import send

    try:
        send(request, finished, root, uri)
    except UserError as error:
        console().print(f"[yellow]Warning:[/yellow] {error} The results are in the folder all the same.")


def compare_models(names: tuple[str, str], output: Path | None, as_json: bool) -> None:
    """Print how two finished evaluations of the same problems differ."""
    from cppo_lab.eval.comparison import compare_evaluations, find_evaluation

    root = output or output_root()
    first, second = (find_evaluation(root, name) for name in names)
    found = compare_evaluations(first, second)
    if as_json:
        print_json(found)
        return
    console().print(f"A: {found['a']['folder']}\nB: {found['b']['folder']}")
    shown = table(
        f"B minus A on the same {found['n']} problems",
        *("metric", "difference %", "95% bootstrap", "p", "test", "B better", "A better", "same"),
    )
    for metric, difference in found["metrics"].items():
        shown.add_row(metric, *_difference_cells(difference))
    console().print(shown)
    if found["different_settings"]:
        console().print(
            "[yellow]Warning:[/yellow] they also differ in " + " and ".join(found["different_settings"]) + "."
        )


def _difference_cells(difference: dict[str, Any]) -> list[str]:
    low, high = difference["interval"]
    return [
        f"{100 * difference['difference']:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        f"{difference['p_value']:.3g}",
        difference["test"],
        *(str(difference[key]) for key in ("better", "worse", "same")),
    ]
