"""Sample the missing responses of an evaluation, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from cppo_lab.eval.folder import TIMINGS, EvaluationFolder
from cppo_lab.eval.protocols import EvaluationProtocol, Prompt
from cppo_lab.eval.request import EvaluationRequest
from cppo_lab.eval.text_engine import Decoding, Request, Response, TextEngine


@dataclass(frozen=True)
class Sampled:
    """How far an evaluation is: responses, and tokens sampled since it was started or resumed.

    `most_tokens` is the most that there can be in the end.
    """

    responses: int
    wanted: int
    tokens: int
    most_tokens: int


OnSampled = Callable[[Sampled], None]


def sample_missing(
    request: EvaluationRequest,
    folder: EvaluationFolder,
    engine: TextEngine,
    protocol: EvaluationProtocol,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    on_sampled: OnSampled,
) -> dict[tuple[int, int], Response]:
    """All responses; only those that the folder lacks are sampled."""
    there = folder.responses()
    # Similar lengths together need less padding. A resumed evaluation has the same batches, so that sums round alike.
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i].text), i))
    wanted = [
        Request(i, sample, prompts[i], protocol.stops(prompts[i]))
        for i in order
        for sample in range(request.samples)
    ]
    batches = [wanted[i : i + request.batch_size] for i in range(0, len(wanted), request.batch_size)]
    tokens = 0

    def report(sampled: int, most: int, later: int) -> None:
        total = tokens + most + later * decoding.max_new_tokens
        on_sampled(Sampled(len(there), len(wanted), tokens + sampled, total))

    report(0, 0, len(wanted) - len(there))
    for batch in batches:
        missing = [request_ for request_ in batch if (request_.problem, request_.sample) not in there]
        if not missing:
            continue
        started, later = time.monotonic(), len(wanted) - len(there) - len(missing)
        found = engine.generate(missing, decoding, partial(report, later=later))
        folder.append(missing, found)
        sampled = sum(response.tokens for response in found)
        _add_time(folder, time.monotonic() - started, sampled)
        there |= {(r.problem, r.sample): response for r, response in zip(missing, found, strict=True)}
        report(sampled, sampled, later)
        tokens += sampled
    return there


def _add_time(folder: EvaluationFolder, seconds: float, tokens: int) -> None:
    """Add to the recorded sampling time; an interruption loses that of one batch."""
    spent = folder.read(TIMINGS)
    total_s = spent.get("sampling_s", 0.0) + seconds
    total = spent.get("tokens", 0) + tokens
    rate = total / total_s if total_s > 0 else 0.0
    folder.write(TIMINGS, {"sampling_s": total_s, "tokens": total, "tokens_per_s": rate})
