"""Methods' files as trees: what the analysis asks of a method without PyTorch."""

from __future__ import annotations

import subprocess
import sys

from cppo_lab.method_files import leaves, method_files, method_tree, method_values
from cppo_lab.objectives.describe import flatten
from cppo_lab.objectives.named import method


def test_a_file_has_the_values_of_those_it_builds_on() -> None:
    values = method_values("dppo_topk_tv")
    assert values["divergence.kind"] == "topk_tv"
    assert values["trust_region.kind"] == "divergence_threshold"  # set by dppo_tv, on which it builds


def test_a_name_without_a_file_has_no_values() -> None:
    assert method_values("nobody") == {}


def test_every_value_of_a_file_is_that_of_the_method() -> None:
    coordinates = flatten(method("cppo"))
    tree = method_tree("cppo", method_files())
    told = {key: value for key, value in leaves(tree) if key in coordinates}
    assert told == {key: coordinates[key] for key in told}
    assert told["trust_region.delta"] == 0.15


def test_asking_what_a_method_is_loads_no_torch() -> None:
    code = (
        "import sys; from cppo_lab.analysis.coordinates import named_without_rule;"
        "assert named_without_rule(['pg', 'cppo']) == {'pg'}; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
