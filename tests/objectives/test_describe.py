"""Listings say what differs, and the documentation lists every method as it is."""

from pathlib import Path

import pytest

pytest.importorskip("yaml")

from cppo_lab.objectives import method, method_names
from cppo_lab.objectives.describe import difference, summary

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_dppo_and_cppo_differ_in_their_trust_region_alone() -> None:
    assert difference(method("dppo_topk_tv"), method("cppo")) == {
        "trust_region.kind": ("divergence_threshold", "prefix_budget"),
        "trust_region.weights.kind": ("uniform", "linear"),
        "trust_region.budget.kind": ("none", "adaptive"),
    }


@pytest.mark.parametrize(
    ("ablation", "key"),
    [
        ("cppo_soft", "trust_region.gate"),
        ("cppo_no_weights", "trust_region.weights.kind"),
        ("cppo_no_budget", "trust_region.budget.kind"),
        ("cppo_binary", "divergence.kind"),
    ],
)
def test_an_ablation_of_cppo_changes_one_coordinate(ablation: str, key: str) -> None:
    assert list(difference(method("cppo"), method(ablation))) == [key]


@pytest.mark.parametrize("name", method_names())
def test_the_page_of_methods_shows_the_coordinates_of_every_file(name: str) -> None:
    row = " | ".join(summary(method(name)).values())
    assert f"| `{name}` | {row} |" in PAGE.read_text(encoding="utf-8")
