"""The command `eval` and its options."""

from __future__ import annotations

from typing import Annotated

import typer

from cppo_lab.cli.options import AsJson, Output, Plugins
from cppo_lab.errors import UserError
from cppo_lab.plugins import load_plugins


def evaluate(
    task: Annotated[
        str | None,
        typer.Argument(
            help="`gsm8k`, `math500`, `aime24`, `aime25`, `aime26`, `svamp`, `chain` (the embedded task), or `custom` "
            "with `--data`.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A model folder in Hugging Face format, a hub id, or a server's model name.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="A run of the lab, by name or ID.", show_default=False)
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="Which checkpoint of the run: `last` or `best`.")] = "last",
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
        typer.Option("--data", help="A local JSONL or Parquet file instead of the hub.", show_default=False),
    ] = None,
    fewshot_data: Annotated[
        str | None,
        typer.Option(
            help="lm-eval:gsm8k: a local file of the training split, from which examples are drawn.",
            show_default=False,
        ),
    ] = None,
    question_column: Annotated[
        str | None, typer.Option(help="The column of questions (several: `a,b`).", show_default=False)
    ] = None,
    answer_column: Annotated[
        str | None, typer.Option(help="The column of reference answers.", show_default=False)
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="The revision of a hub model.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first problems.", show_default=False)
    ] = None,
    samples: Annotated[
        int, typer.Option("--samples", "-k", min=1, help="Responses to each problem: avg@k, pass@k, maj@k.")
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 is greedy (default: 0 for one sample, 0.7 for several).", show_default=False),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            help="Nucleus sampling (default: 0.95 where responses are sampled).", show_default=False
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Length limit of a response in tokens (default: 256; 2048 for chat models and mathematics).",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Responses sampled at a time.")] = 64,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Difficulty of the `chain` task (default: the run's, or 4).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes every draw.")] = 0,
    engine: Annotated[str, typer.Option(help="`native`, `vllm`, or `openai` for a server.")] = "native",
    base_url: Annotated[
        str | None,
        typer.Option(
            help="The server's address, such as `http://localhost:8000/v1` (key: `$OPENAI_API_KEY`).",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="The served model's tokenizer, for its chat template.", show_default=False),
    ] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Ask by the chat template (default: where the model has one).",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="`float32` or `bfloat16`.")] = "float32",
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--compare",
            metavar="A B",
            help="Compare two finished evaluations, problem by problem.",
            show_default=False,
        ),
    ] = None,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Send the results to MLflow.")] = True,
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="The MLflow store (default: `$MLFLOW_TRACKING_URI`, else a file in the output folder).",
            show_default=False,
        ),
    ] = None,
    plugins: Plugins = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Sample and grade a benchmark's problems with a model. The same command again goes on where it stopped.

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
            raise UserError("--compare: takes two finished evaluations, and neither a task nor a model.")
        from cppo_lab.cli.evaluate import compare_models

        compare_models(compare, output, as_json)
        return
    if task is None:
        raise UserError("eval: needs a task, such as gsm8k; cppo-lab eval --help lists them.")
    if tracking_uri is not None and not track:
        raise UserError(f"--tracking-uri {tracking_uri}: nothing is sent with --no-track.")
    from cppo_lab.cli.evaluate import evaluate_model
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
        seed=seed,
        engine=engine,
        base_url=base_url,
        tokenizer=tokenizer,
        chat=chat,
        dtype=dtype,
        device=device,
    )
    evaluate_model(request, output, as_json, tracking_uri, track)
