"""`eval`: a model's accuracy on a benchmark, and the difference between two models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cppo_lab.addresses import without_credentials
from cppo_lab.cli.console import console, error_console, print_json, table
from cppo_lab.cli.mirrors import note_unsent
from cppo_lab.cli.options import AsJson, Output, Plugins
from cppo_lab.errors import UserError
from cppo_lab.paths import output_root
from cppo_lab.plugins import load_plugins

if TYPE_CHECKING:
    from cppo_lab.eval.request import EvaluationRequest
    from cppo_lab.eval.run import Finished


def eval_(
    task: Annotated[
        str | None,
        typer.Argument(
            help="`gsm8k`, `math500`, `aime24`, `aime25`, `aime26`, `svamp`, `chain` or `reasoning_gym` "
            "(generated problems), or `custom` with `--data`.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model folder in Hugging Face format, a hub ID, or a server's model name.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="A trained run, by name or ID.", show_default=False)
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Checkpoint of the run: `last` or `best`.")] = "last",
    protocol: Annotated[
        str,
        typer.Option(
            "--protocol",
            "-p",
            help="`native`, `lm-eval:gsm8k@3.0`, `lm-eval:gsm8k_cot@3.0` or `lm-eval:gsm8k_cot_zeroshot@3.0`.",
        ),
    ] = "native",
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="A local JSONL, JSON, CSV, TSV or Parquet file to use instead of the hub.",
            show_default=False,
        ),
    ] = None,
    fewshot_data: Annotated[
        str | None,
        typer.Option(
            help="lm-eval:gsm8k: a local file of the training split to draw few-shot examples from.",
            show_default=False,
        ),
    ] = None,
    question_column: Annotated[
        str | None, typer.Option(help="The question column (several: `a,b`).", show_default=False)
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="The reference answer column.", show_default=False)
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="The revision of a hub model.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate only the first so many problems.", show_default=False)
    ] = None,
    samples: Annotated[
        int,
        typer.Option("--samples", "-k", min=1, help="Responses per problem, for avg@k, pass@k and maj@k."),
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Sampling temperature; 0 is greedy (default: 0 for one sample, 0.7 for several).",
            show_default=False,
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(help="Nucleus sampling (default: 0.95 when sampling).", show_default=False),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Response length limit in tokens (default: a run's own, else 256, or 2048 for chat models and "
            "mathematics).",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Responses sampled in parallel.")] = 64,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Difficulty of the `chain` task (default: the run's, else 4).",
            show_default=False,
        ),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option(
            help="The family of the `reasoning_gym` task (default: the run's problems).", show_default=False
        ),
    ] = None,
    difficulty: Annotated[
        str | None,
        typer.Option(
            help="The family's own parameters, such as '{max_terms: 3}' (default: its own).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    engine: Annotated[
        str, typer.Option(help="`native`, `vllm`, an engine of a plug-in, or `openai` for a server.")
    ] = "native",
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Server address, such as `http://localhost:8000/v1` (key: `$OPENAI_API_KEY`).",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="The served model's tokenizer, used for its chat template.", show_default=False),
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Use the chat template (default: if the model has one).",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="A template with `{question}`, and `{instruction}` where the answer format is asked for "
            "(default: a run's own, else as in training).",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(help="A system message before chat prompts.", show_default=False)
    ] = None,
    answer_format: Annotated[
        str | None,
        typer.Option(
            help="The form that the answer is asked for in: `boxed`, `hashes`, `tag`, `line` or `none`.",
            show_default=False,
        ),
    ] = None,
    grader: Annotated[
        str | None,
        typer.Option(
            help="How answers are compared: `number`, `symbolic` or `text` (default: the task's).",
            show_default=False,
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="A Python file with a reward function, in the grader's place (default: the run's own).",
            show_default=False,
        ),
    ] = None,
    reward_function: Annotated[str, typer.Option(help="The function's name in that file.")] = "reward",
    dtype: Annotated[str, typer.Option(help="`float32` or `bfloat16`.")] = "float32",
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Compare two finished evaluations problem by problem.",
            show_default=False,
        ),
    ] = None,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Send the results to MLflow.")] = True,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="MLflow store (default: `$MLFLOW_TRACKING_URI`, else a file in the output folder).",
            show_default=False,
        ),
    ] = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on a benchmark; resumes if interrupted.

    Examples:

    * `cppo-lab eval gsm8k --model Qwen/Qwen3-0.6B --limit 100`
    * `cppo-lab eval gsm8k --protocol lm-eval:gsm8k@3.0 --model my-model`
    * `cppo-lab eval aime24 --model my-model --samples 16`
    * `cppo-lab eval chain --run cppo-0123456789ab --checkpoint best`
    * `cppo-lab eval custom --data mine.jsonl --question-column problem --answer-column answer --model my-model`
    * `cppo-lab eval --compare gsm8k-a-0123456789ab gsm8k-b-ba9876543210`
    """
    load_plugins(plugins or [])
    if compare is not None:
        if task is not None or model is not None or run is not None:
            raise UserError(
                "--compare: takes two finished evaluations; leave out the task, --model and --run."
            )
        compare_models(compare, output, as_json)
        return
    if task is None:
        raise UserError("eval: needs a task such as gsm8k; cppo-lab eval --help lists them.")
    if tracking_uri is not None and not track:
        raise UserError(f"--tracking-uri {tracking_uri}: has no effect with --no-track.")
    from cppo_lab.eval.request import EvaluationRequest

    request = EvaluationRequest(
        task=task,
        model=model,
        run=run,
        checkpoint=checkpoint,
        protocol=protocol,
        data=data,
        fewshot_data=fewshot_data,
        question_column=question_column,
        answer_column=answer_column,
        revision=revision,
        limit=limit,
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        steps=steps,
        family=family,
        difficulty=difficulty,
        seed=seed,
        engine=engine,
        base_url=base_url,
        tokenizer=tokenizer,
        chat=chat,
        prompt=prompt,
        system=system,
        answer_format=answer_format,
        grader=grader,
        reward=reward,
        reward_function=reward_function,
        dtype=dtype,
        device=device,
    )
    evaluate_model(request, output, as_json, tracking_uri, track)


def evaluate_model(
    request: EvaluationRequest, output: Path | None, as_json: bool, tracking_uri: str | None, track: bool
) -> None:
    """Evaluate, or resume an evaluation; print the results and send them to MLflow."""
    from cppo_lab.models.device import check_device
    from cppo_lab.training.preflight import writable

    request.check()
    check_device("--device", request.device)
    root = output or output_root()
    writable(root)
    if request.engine != "openai":
        from cppo_lab.quiet import quiet_libraries

        quiet_libraries()
    finished = _with_progress(request, root, as_json)
    if as_json:
        print_json(finished.results | {"folder": str(finished.folder.path)})
    else:
        _show(request, finished)
    if track:
        _track(finished, root, tracking_uri)


def _with_progress(request: EvaluationRequest, root: Path, as_json: bool) -> Finished:
    from cppo_lab.cli.eval_progress import EvaluationProgress
    from cppo_lab.eval.run import evaluate_request

    # Results alone go to standard output as JSON.
    with EvaluationProgress(request.task, error_console() if as_json else console()) as progress:
        return evaluate_request(request, root, progress.show)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _interval(value: list[float]) -> str:
    return f"{_percent(value[0])} to {_percent(value[1])}"


def _show(request: EvaluationRequest, finished: Finished) -> None:
    from cppo_lab.eval.folder import TIMINGS

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
    settings = (
        "greedy"
        if decoding["greedy"]
        else f"temperature {decoding['temperature']:g}, top-p {decoding['top_p']:g}, seed {decoding['seed']}"
    )
    penalty = decoding.get("repetition_penalty")
    if penalty not in (None, 1.0):
        settings += f", repetition penalty {penalty:g}"
    speed = finished.folder.read(TIMINGS).get("tokens_per_s", 0.0)
    console().print(
        f"{settings}, at most {decoding['max_new_tokens']} tokens; no answer found in "
        f"{_percent(results['unparsed_share'])}%, truncated {_percent(results['truncated_share'])}%; "
        f"mean length {results['length_mean']:.0f} tokens, {speed:.0f} tokens per second."
    )
    if samples > 1:
        console().print("Intervals and standard errors are clustered by problem.")
    for warning in results["warnings"]:
        console().print(f"[yellow]Warning:[/yellow] {warning}")
    done = "Already finished: nothing was sampled. " if finished.was_done else ""
    console().print(f"{done}Results and graded responses: {finished.folder.path}")


def _track(finished: Finished, root: Path, uri: str | None) -> None:
    """Bring MLflow's record of a finished evaluation up to date, for which a store that cannot be used is no error."""
    from cppo_lab.eval.tracking import send
    from cppo_lab.tracking.store_address import tracking_uri

    try:
        send(finished.folder, root, uri)
    except UserError as error:
        error_console().print(f"Warning: {error}", style="yellow", markup=False, soft_wrap=True)
        note_unsent(finished.folder.path.name, without_credentials(tracking_uri(uri, root)))


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
