"""From a request to a finished evaluation folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cppo_lab.errors import UserError
from cppo_lab.evaluation.engines import Decoding, Request, Response, TextEngine
from cppo_lab.evaluation.folder import PROBLEMS, RESULTS, TIMINGS, EvaluationFolder
from cppo_lab.evaluation.generation_config import ModelSettings
from cppo_lab.evaluation.lm_eval_files import results_file, sample_rows
from cppo_lab.evaluation.native import ChatTemplate, NativeProtocol
from cppo_lab.evaluation.protocols import EvaluationProtocol, Prompt
from cppo_lab.evaluation.request import CHAIN, EvaluationRequest, model_identity, resolved, shown_questions
from cppo_lab.evaluation.results import TRUNCATED_WARNING, Scored, problem_rows, summary
from cppo_lab.runs.identity import digest, resolved_device
from cppo_lab.runs.provenance import git_state, versions
from cppo_lab.tasks.benchmarks import Question, duplicates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 2
"""Raised whenever the same request would no longer give the same figures."""
_SHORT_ANSWER, _LONG_ANSWER = 256, 2048

OnBatch = Callable[[int, int], None]
"""Called with (responses there, responses wanted)."""


@dataclass(frozen=True)
class Finished:
    """A finished evaluation: its folder, its figures, and whether it had been done before."""

    folder: EvaluationFolder
    results: dict[str, Any]
    was_done: bool


def evaluate_request(
    request: EvaluationRequest, root: Path, on_batch: OnBatch = lambda _done, _wanted: None
) -> Finished:
    """Do the evaluation, or what is left of it, and write its results. Raises UserError for what cannot be done."""
    request.check()
    request = resolved(request, root)
    problems, pool = request.questions(), request.pool()
    identity = _identity(request, problems[: request.limit])
    name = f"{request.task}-{_slug(request)}-{digest(identity)}"
    folder = EvaluationFolder(root / "evals" / name)
    lock = folder.lock()
    try:
        results = folder.read(RESULTS)
        if results:
            return Finished(folder, results, was_done=True)
        folder.write("request.json", identity | {"asked": asdict(request)})
        return Finished(folder, _work(request, folder, problems, pool, on_batch), was_done=False)
    finally:
        lock.release()


def _identity(request: EvaluationRequest, questions: Sequence[Question]) -> dict[str, Any]:
    """Everything that determines the figures; the size of batches does not."""
    protocol = request.lm_eval
    source = {key: value for key, value in request.data_source().items() if key != "path"}
    if "fewshot" in source:
        source["fewshot"] = source["fewshot"]["sha256"]
    return {
        "version": VERSION,
        "task": request.task,
        "protocol": "native" if protocol is None else protocol.name,
        "problems": shown_questions(questions),
        "data": source,
        "model": model_identity(request),
        "engine": request.engine,
        "dtype": request.dtype,
        "device": resolved_device(request.device),
        "chat": request.chat,
        "samples": request.samples,
        "temperature": request.used_temperature,
        "top_p": request.used_top_p,
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
    }


def _slug(request: EvaluationRequest) -> str:
    import re

    assert request.model is not None
    name = request.run or request.model.rstrip("/")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:].lstrip("-.")


def _work(
    request: EvaluationRequest,
    folder: EvaluationFolder,
    problems: Sequence[Question],
    pool: Sequence[Question],
    on_batch: OnBatch,
) -> dict[str, Any]:
    questions = problems[: request.limit]
    engine, tokenizer = _engine(request)
    try:
        protocol = _protocol(request, tokenizer)
        prompts = protocol.prompts(questions, pool)
        decoding = _decoding(request, protocol, engine.settings)
        responses = _sample(request, folder, engine, protocol, prompts, decoding, on_batch)
        about = _about(request, engine, tokenizer, decoding, protocol)
    finally:
        engine.close()
    scored = _scored(questions, prompts, responses, protocol, request.samples)
    return _write(request, folder, scored, len(problems), protocol, about)


def _decoding(request: EvaluationRequest, protocol: EvaluationProtocol, own: ModelSettings) -> Decoding:
    room = request.max_new_tokens or protocol.max_new_tokens
    # The harness passes its limit as a total length, over which `generate` prefers the model's own max_new_tokens.
    own_limit = own.max_new_tokens if request.lm_eval and request.max_new_tokens is None else None
    return Decoding(
        max_new_tokens=own_limit or room,
        temperature=request.used_temperature,
        top_p=request.used_top_p,
        seed=request.seed,
        repetition_penalty=own.repetition_penalty,
        room=room,
    )


def _engine(request: EvaluationRequest) -> tuple[TextEngine, PreTrainedTokenizerBase | None]:
    assert request.model is not None
    if request.engine == "openai":
        from cppo_lab.evaluation.openai_engine import OpenAITextEngine

        assert request.base_url is not None
        return OpenAITextEngine(request.base_url, request.model, request.batch_size), _tokenizer(
            request.tokenizer
        )
    from dataclasses import replace

    from cppo_lab.evaluation.native_engine import NativeTextEngine
    from cppo_lab.policies.loading import load_policy

    policy = load_policy(request.model, revision=request.revision, device=resolved_device(request.device))
    policy = replace(policy, dtype=request.dtype)  # type: ignore[arg-type]
    return NativeTextEngine(policy, request.batch_size), policy.tokenizer


def _tokenizer(path: str | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer whose chat template a served model has; without it, prompts are plain."""
    if path is None:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as error:
        # transformers and the hub client raise many kinds: offline, no such id, broken files.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"--tokenizer {path}: cannot be loaded: {first}") from error


def _protocol(request: EvaluationRequest, tokenizer: PreTrainedTokenizerBase | None) -> EvaluationProtocol:
    harness = request.lm_eval
    if harness is not None:
        return harness
    template = getattr(tokenizer, "chat_template", None)
    if request.chat and not template:
        raise UserError("--chat: this model's tokenizer has no chat template; leave the option out.")
    is_chain = request.task == CHAIN
    symbolic = not is_chain and request.benchmark.symbolic
    has_chat = bool(template) and request.chat is not False and not is_chain
    return NativeProtocol(
        symbolic=symbolic,
        chat=_chat(tokenizer) if has_chat else None,
        plain=is_chain,
        max_new_tokens=_LONG_ANSWER if symbolic or has_chat else _SHORT_ANSWER,
    )


def _chat(tokenizer: Any) -> ChatTemplate:
    """The tokenizer's chat template around one message of a user."""

    def chat(message: str) -> str:
        conversation = [{"role": "user", "content": message}]
        text: str = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        return text

    return chat


def _sample(
    request: EvaluationRequest,
    folder: EvaluationFolder,
    engine: TextEngine,
    protocol: EvaluationProtocol,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    on_batch: OnBatch,
) -> dict[tuple[int, int], Response]:
    """All responses; those that are there already are not sampled again."""
    there = folder.responses()
    # Like lengths together: less padding. Batches are the same after an interruption, so that sums round alike.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i].text), i))
    wanted = [
        Request(i, sample, prompts[i], protocol.stops(prompts[i]))
        for i in order
        for sample in range(request.samples)
    ]
    batches = [wanted[i : i + request.batch_size] for i in range(0, len(wanted), request.batch_size)]
    on_batch(len(there), len(wanted))
    for batch in batches:
        missing = [request_ for request_ in batch if (request_.problem, request_.sample) not in there]
        if not missing:
            continue
        started = time.monotonic()
        found = engine.generate(missing, decoding)
        folder.append(missing, found)
        _add_time(folder, time.monotonic() - started, sum(response.tokens for response in found))
        there |= {(r.problem, r.sample): response for r, response in zip(missing, found, strict=True)}
        on_batch(len(there), len(wanted))
    return there


def _add_time(folder: EvaluationFolder, seconds: float, tokens: int) -> None:
    """Add to the time spent on sampling; an interruption loses that of one batch."""
    spent = folder.read(TIMINGS)
    total_s = spent.get("sampling_s", 0.0) + seconds
    total = spent.get("tokens", 0) + tokens
    rate = total / total_s if total_s > 0 else 0.0
    folder.write(TIMINGS, {"sampling_s": total_s, "tokens": total, "tokens_per_s": rate})


def _scored(
    questions: Sequence[Question],
    prompts: Sequence[Prompt],
    responses: Mapping[tuple[int, int], Response],
    protocol: EvaluationProtocol,
    samples: int,
) -> Scored:
    by_problem = [[responses[i, j] for j in range(samples)] for i in range(len(questions))]
    flat = protocol.score(
        [response.text for row in by_problem for response in row],
        [question for question in questions for _ in range(samples)],
    )
    scores = [flat[i * samples : (i + 1) * samples] for i in range(len(questions))]
    return Scored(questions, prompts, by_problem, scores)


def _about(
    request: EvaluationRequest,
    engine: TextEngine,
    tokenizer: PreTrainedTokenizerBase | None,
    decoding: Decoding,
    protocol: EvaluationProtocol,
) -> dict[str, Any]:
    """What the results say besides figures: model, decoding, and what a reader has to be warned of."""
    template = getattr(tokenizer, "chat_template", None)
    warnings = []
    if template and request.lm_eval is not None:
        warnings.append(
            f"{protocol.name} asks in plain text, though this model has a chat template: compare with lm_eval "
            "without --apply_chat_template, and expect fewer answers in the strict format."
        )
    if engine.settings.not_applied:
        warnings.append(
            "The model's generation_config.json sets what transformers' generate (and so lm_eval --model hf) applies "
            f"and this engine does not: {', '.join(engine.settings.not_applied)}. The figures can differ."
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
    """How the responses were sampled, as the harness's `generation_kwargs`."""
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


def _write(
    request: EvaluationRequest,
    folder: EvaluationFolder,
    scored: Scored,
    available: int,
    protocol: EvaluationProtocol,
    about: dict[str, Any],
) -> dict[str, Any]:
    from cppo_lab.evaluation.lm_eval_files import sha256

    figures = summary(scored)
    warnings = list(about["warnings"])
    if figures["truncated_share"] > TRUNCATED_WARNING:
        warnings.append(
            f"{100 * figures['truncated_share']:.1f}% of the responses hit the limit of "
            f"{about['decoding']['max_new_tokens']} tokens: raise --max-new-tokens."
        )
    repeated = duplicates(scored.questions)
    if repeated:
        warnings.append(f"{repeated} of the problems repeat another one: each counts once more.")
    leading = figures["metrics"][scored.metrics[0]]
    harness = request.lm_eval
    generation = _generation(request, scored, protocol, about["decoding"])
    rows = sample_rows(scored, harness, generation)
    template = about.pop("chat_template")
    shape = results_file(
        request.task if harness is None else harness.task,
        scored,
        harness,
        rows,
        {
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
        },
    )
    results = {
        "task": request.task,
        "protocol": protocol.name,
        **about,
        "data": request.data_source(),
        **{key: leading[key] for key in ("accuracy", "correct", "stderr", "wilson_95", "bootstrap_95")},
        **figures,
        "problems": shown_questions(scored.questions),
        "task_hash": shape["task_hashes"][harness.task if harness else request.task],
        "warnings": warnings,
        "versions": versions(),
        "git": git_state(),
    }
    name = harness.task if harness else request.task
    folder.write_rows(PROBLEMS, problem_rows(scored))
    folder.write_rows(f"lm-eval/samples_{name}.jsonl", rows)
    folder.write("lm-eval/results.json", shape)
    # Last: an evaluation counts as finished with it.
    folder.write(RESULTS, results)
    return folder.read(RESULTS)
