"""Run an evaluation: from its options to a finished folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cppo_lab.config.identity import digest
from cppo_lab.errors import UserError, first_line
from cppo_lab.eval.folder import RESULTS, EvaluationFolder
from cppo_lab.eval.generation_config import ModelSettings
from cppo_lab.eval.native_protocol import NativeProtocol
from cppo_lab.eval.protocols import EvaluationProtocol, Prompt
from cppo_lab.eval.request import SERVER, EvaluationRequest, model_identity, questions_hash, resolved
from cppo_lab.eval.results import Scored
from cppo_lab.eval.sampling import OnSampled, sample_missing
from cppo_lab.eval.text_engine import Decoding, Response, TextEngine
from cppo_lab.eval.writing import about_evaluation, write_results
from cppo_lab.files import file_sha256
from cppo_lab.models.config import Dtype
from cppo_lab.models.device import resolved_device
from cppo_lab.models.loading import chat_text
from cppo_lab.plugins import loaded_plugins
from cppo_lab.rollouts.engine_config import engines
from cppo_lab.tasks.benchmarks import Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERSION = 3
"""Increased whenever the same request would no longer give the same results."""
_SHORT_ANSWER, _LONG_ANSWER = 256, 2048


@dataclass(frozen=True)
class Finished:
    """A finished evaluation: its folder, its results, and whether it was finished before."""

    folder: EvaluationFolder
    results: dict[str, Any]
    was_done: bool


def evaluate_request(
    request: EvaluationRequest, root: Path, on_sampled: OnSampled = lambda _: None
) -> Finished:
    """Run an evaluation and write its results; resumes if interrupted. Raises UserError if it is invalid."""
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
        return Finished(folder, _work(request, folder, problems, pool, on_sampled), was_done=False)
    finally:
        lock.release()


def _identity(request: EvaluationRequest, questions: Sequence[Question]) -> dict[str, Any]:
    """All that determines the results, the bytes of loaded plug-ins included; the batch size does not."""
    protocol = request.lm_eval
    source = {key: value for key, value in request.data_source().items() if key != "path"}
    if "fewshot" in source:
        source["fewshot"] = source["fewshot"]["sha256"]
    plugins = sorted(plugin.sha256 for plugin in loaded_plugins())
    return {
        "version": VERSION,
        **({"plugins": plugins} if plugins else {}),
        "task": request.task,
        "protocol": "native" if protocol is None else protocol.name,
        "problems": questions_hash(questions),
        "data": source,
        "model": model_identity(request),
        "engine": request.engine,
        "dtype": request.dtype,
        "device": resolved_device(request.device),
        "chat": request.chat,
        "prompt": request.prompt,
        "system": request.system,
        "answer_format": request.answer_format,
        "grader": request.grader,
        "reward": _reward_identity(request),
        "trained": None if request.trained is None else asdict(request.trained),
        "samples": request.samples,
        "temperature": request.used_temperature,
        "top_p": request.used_top_p,
        "max_new_tokens": request.max_new_tokens,
        "seed": request.seed,
    }


def _reward_identity(request: EvaluationRequest) -> dict[str, Any] | None:
    own = request.own_reward
    if own is None:
        return None
    own.check()
    return {"sha256": file_sha256(Path(own.path)), "name": own.name, "correct_from": own.correct_from}


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
    on_sampled: OnSampled,
) -> dict[str, Any]:
    questions = problems[: request.limit]
    engine, tokenizer = _engine(request)
    try:
        protocol = _protocol(request, tokenizer)
        prompts = protocol.prompts(questions, pool)
        decoding = _decoding(request, protocol, engine.settings)
        responses = sample_missing(request, folder, engine, protocol, prompts, decoding, on_sampled)
        about = about_evaluation(request, engine, tokenizer, decoding, protocol, prompts)
    finally:
        engine.close()
    scored = _scored(questions, prompts, responses, protocol, request.samples)
    return write_results(request, folder, scored, len(problems), protocol, about)


def _decoding(request: EvaluationRequest, protocol: EvaluationProtocol, own: ModelSettings) -> Decoding:
    room = request.max_new_tokens or protocol.max_new_tokens
    # The harness passes its limit as a total length, and `generate` prefers the model's own max_new_tokens to that.
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
    if request.engine == SERVER:
        from cppo_lab.eval.openai_client import OpenAIClient

        assert request.base_url is not None
        client = OpenAIClient(request.base_url, request.model, request.batch_size)
        return client, _tokenizer(request.tokenizer)
    from cppo_lab.eval.local_engine import LocalTextEngine
    from cppo_lab.models.loading import ModelSource

    config = engines[request.engine].for_evaluation(request.batch_size)
    is_float32 = request.dtype == "float32"
    implementation = request.trained.implementation if request.trained and is_float32 else "transformers"
    source = ModelSource(request.model, request.revision, resolved_device(request.device), implementation)
    served = config.serve(source, cast(Dtype, request.dtype))
    return LocalTextEngine(request.engine, request.dtype, served), served.tokenizer


def _tokenizer(path: str | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer with the chat template of a model on a server; None means plain prompts."""
    if path is None:
        return None
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path)
    except Exception as error:
        # transformers and the hub client raise many types: offline, no such id, broken files.
        raise UserError(f"--tokenizer {path}: cannot be loaded: {first_line(error)}") from error


def _protocol(request: EvaluationRequest, tokenizer: PreTrainedTokenizerBase | None) -> EvaluationProtocol:
    harness = request.lm_eval
    if harness is not None:
        return harness
    asking = request.asking(bool(getattr(tokenizer, "chat_template", None)))
    trained, is_chat = request.trained, asking is not None and asking.is_chat
    is_long = request.comparison == "symbolic" or is_chat
    return NativeProtocol(
        comparison=request.comparison,
        asking=asking,
        chat=partial(chat_text, tokenizer) if is_chat else None,
        own_reward=request.own_reward,
        is_trained=trained is not None and trained.asking == asking,
        max_new_tokens=(trained and trained.response_limit) or (_LONG_ANSWER if is_long else _SHORT_ANSWER),
    )


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
