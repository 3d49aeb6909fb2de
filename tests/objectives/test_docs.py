"""The code in the documentation is the code in the repository, and it runs."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("yaml")

from cppo_lab.objectives import surrogates
from cppo_lab.objectives.tables import with_tables
from cppo_lab.paths import conf_dir

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_worked_example_is_the_shipped_method() -> None:
    assert blocks("adding-a-method.md", "python")[0] == inspect.getsource(surrogates.quadratic_loss)
    assert blocks("adding-a-method.md", "yaml") == [
        (conf_dir() / "algo" / "drpo.yaml").read_text(encoding="utf-8")
    ]


def test_the_tables_of_the_page_of_methods_are_those_of_the_registries() -> None:
    page = (DOCS / "methods.md").read_text(encoding="utf-8")
    assert with_tables(page) == page, "run: python -m cppo_lab.objectives.tables docs/methods.md"


def test_the_example_for_other_trainers_takes_a_step() -> None:
    (example,) = blocks("methods.md", "python")
    weights = torch.zeros(4, 3, requires_grad=True)
    names: dict[str, Any] = {
        "response_mask": torch.ones(4, 3, dtype=torch.bool),
        "rollout_logp": torch.full((4, 3), -0.7),
        "advantages": torch.tensor([1.0, -1.0, 0.5, -0.5]),
        "micro_batches": [torch.tensor([0, 2]), torch.tensor([1, 3])],
        "policy_logp": lambda rows: weights[rows] - 0.7,
        "optimizer": torch.optim.SGD([weights], lr=1.0),
    }
    exec(example, names)
    # On-policy, so the update is A / (number of response tokens) at every token.
    want = names["advantages"].unsqueeze(-1).expand(4, 3) / 12
    torch.testing.assert_close(weights.detach(), want)


def test_the_example_with_the_likeliest_tokens_takes_a_step() -> None:
    example = next(block for block in blocks("objectives.md", "python") if "TopK.of" in block)
    generator = torch.Generator().manual_seed(0)
    rollout = torch.randn(3, 5, 40, generator=generator).log_softmax(-1)
    tokens = torch.randint(40, (3, 5), generator=generator)
    listed = rollout.topk(20, dim=-1)
    names: dict[str, Any] = {
        "logits": (rollout + 0.1 * torch.randn(rollout.shape, generator=generator)).requires_grad_(),
        "rollout_ids": listed.indices,
        "rollout_topk_logp": listed.values,
        "tokens": tokens,
        "rollout_logp": rollout.gather(-1, tokens.unsqueeze(-1)).squeeze(-1),
        "advantages": torch.tensor([1.0, -1.0, 0.5]),
        # As TRL has it: integers.
        "completion_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]),
    }
    exec(example, names)
    assert names["algo"].trust_region.delta == 0.1
    assert names["algo"].trust_region.budget.size == 0.05
    names["loss"].backward()
    gradient = names["logits"].grad
    assert gradient.isfinite().all()
    assert (gradient[names["completion_mask"] == 0] == 0).all()
    assert (gradient[names["completion_mask"] == 1] != 0).any()
