"""`examples/minimal_loop.py`: it takes a step with every method it can, and it learns."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cppo_lab.objectives import method, method_names

FILE = Path(__file__).parents[2] / "examples" / "minimal_loop.py"


@pytest.fixture(scope="module")
def loop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimal_loop", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["minimal_loop"] = module
    spec.loader.exec_module(module)
    return module


def test_it_is_one_readable_file() -> None:
    assert len(FILE.read_text(encoding="utf-8").splitlines()) < 250


def test_only_the_objectives_of_the_lab_are_imported() -> None:
    imported = set(re.findall(r"^(?:from|import) (\S+)", FILE.read_text(encoding="utf-8"), re.MULTILINE))
    assert {name for name in imported if name.startswith("cppo_lab")} == {"cppo_lab.objectives"}


def test_solutions_are_graded_as_right_and_everything_else_as_wrong(loop: ModuleType) -> None:
    prompts = torch.tensor([[7, 3, 9, 1, 1, 0, loop.ARROW]])
    right = torch.tensor([[0, 1, 1, 3, 7, 9, loop.END]])
    assert loop.grade(prompts, right).tolist() == [1.0]
    for column in range(loop.RESPONSE_LENGTH):
        wrong = right.clone()
        wrong[0, column] = 5
        assert loop.grade(prompts, wrong).tolist() == [0.0]


def test_sampled_log_probabilities_are_those_of_the_trainer(loop: ModuleType) -> None:
    torch.manual_seed(0)
    policy = loop.Policy()
    rollout = loop.roll_out(policy, method("cppo"), 4, 4, torch.Generator().manual_seed(0))
    batch = loop.token_batch(policy, rollout, torch.arange(16))
    torch.testing.assert_close(batch.logp.detach(), rollout.logp)
    torch.testing.assert_close(batch.topk.policy_logp, rollout.top_logp)
    ends = (rollout.responses == loop.END) & rollout.response_mask
    assert bool((ends.sum(1) <= 1).all())


def _fits(name: str) -> bool:
    needs = method(name).requirements
    left_out = (
        needs.needs_values,
        needs.needs_reference,
        needs.needs_weight_order,
        needs.needs_threshold_controller,
        needs.needs_rollout_entropy,
        needs.needs_version_lag,
        needs.needs_prompt,
        needs.needs_statistics,
    )
    return not any(left_out)


@pytest.mark.parametrize("name", [name for name in method_names() if _fits(name)])
def test_every_method_that_fits_takes_a_step(loop: ModuleType, name: str) -> None:
    torch.manual_seed(0)
    algo = method(name, max_response_length=loop.RESPONSE_LENGTH)
    policy = loop.Policy(width=16, layers=1, heads=2)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    rollout = loop.roll_out(policy, algo, 4, 4, torch.Generator().manual_seed(0))
    before = [parameter.detach().clone() for parameter in policy.parameters()]
    rollout.advantages.copy_(torch.linspace(-1.0, 1.0, 16))
    loop.update(policy, optimizer, rollout, algo, 2, 0.5)
    assert any(not torch.equal(old, new) for old, new in zip(before, policy.parameters(), strict=True))
    assert all(bool(parameter.isfinite().all()) for parameter in policy.parameters())


@pytest.mark.parametrize("name", [name for name in method_names() if method(name).requirements.needs_values])
def test_methods_with_a_critic_are_refused_in_one_sentence(loop: ModuleType, name: str) -> None:
    with pytest.raises(SystemExit, match=f"--method {name}: needs a critic"):
        loop.train(name, steps=1, updates=1, seed=0)


@pytest.mark.slow
def test_the_command_of_the_readme_learns() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FILE)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=500, cwd=FILE.parents[1]
    )
    solved = [float(found) for found in re.findall(r"([\d.]+)% solved", done.stdout)]
    assert solved[0] < 50
    assert solved[-1] > solved[0] + 20
