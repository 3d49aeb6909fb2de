"""Write the result files of an evaluation, once all responses are scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cppo_lab.eval.folder import PROBLEMS, RESULTS, EvaluationFolder
from cppo_lab.eval.lm_eval_files import results_file, sample_rows, sha256
from cppo_lab.eval.protocols import EvaluationProtocol, Prompt
from cppo_lab.eval.request import EvaluationRequest, questions_hash
from cppo_lab.eval.results import TRUNCATED_WARNING, Scored, problem_rows, summary
from cppo_lab.eval.text_engine import Decoding, TextEngine
from cppo_lab.tasks.benchmarks import duplicates
from cppo_lab.tracking.provenance import git_state, versions

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def about_evaluation(
    request: EvaluationRequest,
    engine: TextEngine,
    tokenizer: PreTrainedTokenizerBase | None,
    decoding: Decoding,
    protocol: EvaluationProtocol,
    prompts: Sequence[Prompt],
) -> dict[str, Any]:
    """Model, engine, decoding and warnings, as the results record them."""
    template = getattr(tokenizer, "chat_template", None)
    warnings = []
    if template and request.lm_eval is not None:
        warnings.append(
            f"{protocol.name} prompts in plain text although this model has a chat template: compare with lm_eval "
            "without --apply_chat_template, and expect fewer answers in the strict format."
        )
    cut = engine.cut_prompts(prompts, decoding)
    if cut:
        warnings.append(
            f"{cut} of {len(prompts)} prompts lost their beginning: prompt and response exceed the model's context."
        )
    if engine.settings.not_applied:
        warnings.append(
            "The model's generation_config.json has settings that transformers' generate (and so lm_eval --model hf) "
            f"applies and this engine does not: {', '.join(engine.settings.not_applied)}. The results can differ."
        )
    return {
        "model": {"name": request.run or request.model, "path": request.model, "revision": request.revision},
        "engine": engine.describe(),
        "decoding": asdict(decoding) | {"greedy": decoding.temperature == 0},
        "chat_template": template if request.lm_eval is None else None,
        "warnings": warnings,
    }


def _generation(
    request: EvaluationRequest, scored: Scored, protocol: EvaluationProtocol, decoding: Mapping[str, Any]
) -> dict[str, Any]:
    """How responses were sampled, as the `generation_kwargs` of lm-evaluation-harness."""
    harness = request.lm_eval
    found = (
        harness.generation
        if harness is not None
        else {
            "until": list(protocol.stops(scored.prompts[0])),
            "do_sample": not decoding["greedy"],
            "temperature": decoding["temperature"],
        }
    )
    return found if request.max_new_tokens is None else found | {"max_gen_toks": request.max_new_tokens}


def write_results(
    request: EvaluationRequest,
    folder: EvaluationFolder,
    scored: Scored,
    available: int,
    protocol: EvaluationProtocol,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Write all files of a finished evaluation and return its results; the data has `available` problems."""
    figures = summary(scored)
    harness = request.lm_eval
    name = harness.task if harness else request.task
    rows = sample_rows(scored, harness, _generation(request, scored, protocol, about["decoding"]))
    shape = results_file(name, scored, harness, rows, _harness_keys(request, rows, available, about))
    leading = figures["metrics"][scored.metrics[0]]
    results = {
        "task": request.task,
        "protocol": protocol.name,
        **{key: value for key, value in about.items() if key != "chat_template"},
        "data": request.data_source(),
        **{key: leading[key] for key in ("accuracy", "correct", "stderr", "wilson_95", "bootstrap_95")},
        **figures,
        "problems": questions_hash(scored.questions),
        "task_hash": shape["task_hashes"][name],
        "warnings": [*about["warnings"], *_result_warnings(scored, figures, about["decoding"])],
        "versions": versions(),
        "git": git_state(),
    }
    folder.write_rows(PROBLEMS, problem_rows(scored))
    folder.write_rows(f"lm-eval/samples_{name}.jsonl", rows)
    folder.write("lm-eval/results.json", shape)
    # Written last: it marks the evaluation as finished.
    folder.write(RESULTS, results)
    return folder.read(RESULTS)


def _result_warnings(scored: Scored, figures: Mapping[str, Any], decoding: Mapping[str, Any]) -> list[str]:
    """Warnings that follow from the results."""
    warnings = []
    if figures["truncated_share"] > TRUNCATED_WARNING:
        warnings.append(
            f"{100 * figures['truncated_share']:.1f}% of the responses hit the limit of "
            f"{decoding['max_new_tokens']} tokens: raise --max-new-tokens."
        )
    repeated = duplicates(scored.questions)
    if repeated:
        warnings.append(f"{repeated} of the problems are duplicates; each is counted.")
    return warnings


def _harness_keys(
    request: EvaluationRequest, rows: Sequence[Mapping[str, Any]], available: int, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Model, decoding and environment under the names of lm-evaluation-harness."""
    template = about["chat_template"]
    generation = rows[0]["arguments"]["gen_args_0"]["arg_1"]
    return {
        "problems_in_file": available,
        "config": {
            "model": "cppo-lab",
            "model_args": request.model,
            "model_dtype": request.dtype,
            "model_num_parameters": about["engine"].get("parameters"),
            "limit": request.limit,
            "gen_kwargs": generation | {"max_gen_toks": about["decoding"]["max_new_tokens"]},
        },
        "git_hash": git_state()["commit"],
        "transformers_version": versions().get("transformers"),
        "model_name": request.run or request.model,
        "chat_template_sha": sha256(template) if template else None,
    }
