"""Sample the missing responses of an evaluation, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cppo_lab.eval.folder import TIMINGS, EvaluationFolder
from cppo_lab.eval.protocols import EvaluationProtocol, Prompt
from cppo_lab.eval.request import EvaluationRequest
from cppo_lab.eval.text_engine import Decoding, Request, Response, TextEngine

OnBatch = Callable[[int, int], None]
"""Called with (responses sampled, responses in total)."""


def sample_missing(
    request: EvaluationRequest,
    folder: EvaluationFolder,
    engine: TextEngine,
    protocol: EvaluationProtocol,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    on_batch: OnBatch,
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
    """Add to the recorded sampling time; an interruption loses that of one batch."""
    spent = folder.read(TIMINGS)
    total_s = spent.get("sampling_s", 0.0) + seconds
    total = spent.get("tokens", 0) + tokens
    rate = total / total_s if total_s > 0 else 0.0
    folder.write(TIMINGS, {"sampling_s": total_s, "tokens": total, "tokens_per_s": rate})
