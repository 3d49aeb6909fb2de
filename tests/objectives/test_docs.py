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
