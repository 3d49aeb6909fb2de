"""An evaluation that was killed goes on where it stopped, and ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import lab, start_lab, starting, tiny_config, wait_for

from cppo_lab.eval.folder import RESPONSES, EvaluationFolder
from cppo_lab.eval.protocols import Prompt
from cppo_lab.eval.text_engine import Request, Response
from cppo_lab.training.checkpoint import save_checkpoint

Invoke = Callable[..., tuple[int, str, str]]
PROBLEMS = 400


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def only_evaluation(output: Path) -> Path:
    (found,) = (output / "evals").iterdir()
    return found


@pytest.mark.slow
def test_a_killed_evaluation_samples_only_what_is_missing(output: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model", starting(tiny_config(output)))
    arguments = ["eval", "chain", "--steps", "2", "--model", str(tmp_path / "model"), "--no-track"]
    arguments += ["--limit", str(PROBLEMS), "--batch-size", "4", "--max-new-tokens", "24"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"

    process = start_lab(*arguments, "-o", str(killed), cwd=tmp_path)

    def sampled() -> int:
        return sum(len(lines(path)) for path in killed.glob(f"evals/*/{RESPONSES}"))

    wait_for(lambda: sampled() >= PROBLEMS // 4, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = only_evaluation(killed)
    before = lines(folder / RESPONSES)
    assert PROBLEMS // 4 <= len(before) < PROBLEMS
    assert not (folder / "results.json").exists()

    again = lab(*arguments, "-o", str(killed), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    after = lines(folder / RESPONSES)
    assert after[: len(before)] == before
    places = {(row["problem"], row["sample"]) for row in map(json.loads, after)}
    assert len(after) == len(places) == PROBLEMS

    assert lab(*arguments, "-o", str(whole), cwd=tmp_path).returncode == 0
    for name in ("results.json", "problems.jsonl", "lm-eval/samples_chain.jsonl", "lm-eval/results.json"):
        assert (folder / name).read_bytes() == (only_evaluation(whole) / name).read_bytes(), name


def test_a_line_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    folder = EvaluationFolder(tmp_path)
    request = [Request(0, 0, Prompt("?"), ())]
    folder.append(request, [Response("ünfinished \ud800", 3, True)])
    with (tmp_path / RESPONSES).open("ab") as file:
        file.write(b'{"problem": 1, "sam')
    assert list(folder.responses()) == [(0, 0)]
    folder.append([Request(1, 0, Prompt("?"), ())], [Response("b", 1, False)])
    found = folder.responses()
    assert found == {(0, 0): Response("ünfinished \ud800", 3, True), (1, 0): Response("b", 1, False)}


def test_two_processes_do_not_work_on_one_evaluation(tmp_path: Path) -> None:
    from cppo_lab.errors import UserError

    folder = EvaluationFolder(tmp_path)
    lock = folder.lock()
    with pytest.raises(UserError, match="another process"):
        EvaluationFolder(tmp_path).lock()
    lock.release()
    EvaluationFolder(tmp_path).lock().release()


def test_batches_of_another_size_are_the_same_evaluation(
    output: Path, tmp_path: Path, invoke: Invoke
) -> None:
    save_checkpoint(tmp_path / "model", starting(tiny_config(output)))
    arguments = ["eval", "chain", "--steps", "1", "--model", str(tmp_path / "model"), "--no-track", "--json"]
    arguments += ["--limit", "12", "--max-new-tokens", "16", "-k", "2", "-o", str(tmp_path / "o")]
    first = json.loads(invoke(*arguments, "--batch-size", "3")[1])
    code, out, _ = invoke(*arguments, "--batch-size", "64")
    assert code == 0
    assert json.loads(out) == first
    code, out, _ = invoke(*arguments, "--seed", "1")
    assert json.loads(out)["folder"] != first["folder"]
