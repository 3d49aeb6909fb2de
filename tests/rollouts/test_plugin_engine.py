"""An engine of one's own: one Python file and one YAML, and no change to the lab."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_runs import starting, tiny_config

from cppo_lab import plugins
from cppo_lab.config.identity import run_id
from cppo_lab.errors import UserError
from cppo_lab.rollouts.engine_config import engines
from cppo_lab.training.checkpoint import save_checkpoint
from cppo_lab.training.run import run

Invoke = Callable[..., tuple[int, str, str]]
GRPO = ("engine=cool", "algo=grpo", "trainer.steps=1")
CODE = """
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cppo_lab.rollouts.engine_config import EngineConfig, engines
from cppo_lab.rollouts.native import NativeEngine


class CoolEngine(NativeEngine):
    cooling: float

    def sample(self, prompts, settings):
        return super().sample(prompts, replace(settings, temperature=settings.temperature * self.cooling))


@engines.register("cool", about="the native engine at a lower temperature")
class CoolConfig(EngineConfig):
    gives_topk: ClassVar[bool] = False

    kind: Literal["cool"] = "cool"
    cooling: Annotated[float, Field(gt=0, le=1)] = 1.0

    def build(self, policy, source):
        engine = CoolEngine(policy.network, pad_token=policy.pad_token, eos_token=policy.eos_token)
        engine.cooling = self.cooling
        return engine
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The plug-in, forgotten after the test."""
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.setattr(engines, "_entries", dict(engines._entries))
    modules = set(sys.modules)
    made = tmp_path / "my_engine"
    (made / "conf" / "engine").mkdir(parents=True)
    (made / "cool.py").write_text(CODE, encoding="utf-8")
    text = "kind: cool\nweights: same\nbatch_size: 512\ncooling: 0.5\n"
    (made / "conf" / "engine" / "cool.yaml").write_text(text, encoding="utf-8")
    yield str(made)
    for name in set(sys.modules) - modules:
        if name.startswith("cppo_lab_plugins."):
            del sys.modules[name]


def test_it_trains_and_its_rollouts_are_its_own(folder: str, output: Path) -> None:
    config = tiny_config(output, f"plugins=['{folder}']", *GRPO)
    mismatch = run(config).rows("metrics.jsonl")[-1]["mismatch/logp_absdiff_mean"]
    assert mismatch > 0.01
    warm = tiny_config(output, f"plugins=['{folder}']", *GRPO, "engine.cooling=1")
    assert run_id(warm) != run_id(config)
    assert run(warm).rows("metrics.jsonl")[-1]["mismatch/logp_absdiff_mean"] < 1e-4


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["algo=grpo", "engine.cooling=2"], "engine.cooling=2: must be less than or equal to 1"),
        (["engine.coling=1"], "engine.coling: unknown key"),
        (["engine.weights=int5"], "engine.weights=int5: must be 'same'"),
        (["algo=dppo_topk_tv"], "engine.kind=cool: does not record top-K log-probabilities, which algo.name"),
    ],
    ids=" ".join,
)
def test_its_settings_are_checked(overrides: list[str], sentence: str, folder: str, output: Path) -> None:
    with pytest.raises(UserError) as refusal:
        tiny_config(output, f"plugins=['{folder}']", "engine=cool", *overrides)
    assert sentence in str(refusal.value)


def test_it_is_listed(folder: str, invoke: Invoke) -> None:
    code, out, err = invoke("list", "engines", "--plugins", folder, "--json")
    assert code == 0, err
    assert [row["name"] for row in json.loads(out)] == ["cool", "native", "vllm"]


def test_it_evaluates(folder: str, output: Path, invoke: Invoke) -> None:
    save_checkpoint(output / "model", starting(tiny_config(output)))
    found = {}
    for engine in ("native", "cool"):
        code, out, err = invoke(
            *("eval", "chain", "--steps", "1", "--model", str(output / "model"), "--engine", engine),
            *("--limit", "16", "--no-track", "--json", "--plugins", folder, "-o", str(output)),
        )
        assert code == 0, err
        found[engine] = json.loads(out)
    assert found["cool"]["engine"]["engine"] == "cool"
    assert found["cool"]["metrics"] == found["native"]["metrics"], "greedy answers know no temperature"


def test_a_misspelt_engine_is_met_with_its_name(folder: str, output: Path, invoke: Invoke) -> None:
    with pytest.raises(UserError, match=r"engine\.kind=cold: allowed are 'native', 'vllm', 'cool'"):
        tiny_config(output, f"plugins=['{folder}']", "engine=cool", "engine.kind=cold")
    code, _, err = invoke(
        *("eval", "chain", "--model", "x", "--engine", "coool", "--plugins", folder, "-o", str(output))
    )
    assert (code, "Did you mean 'cool'?" in err) == (2, True), err
