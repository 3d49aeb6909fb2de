"""Every sweep of the paper at its own scale: composed, validated and planned in full, and rehearsed with tiny parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_recipes import SIZES, tiny_data, tiny_model

from cppo_lab.analysis.grouping import Grouping, group_runs
from cppo_lab.analysis.reproductions.planned import planned_runs
from cppo_lab.errors import UserError
from cppo_lab.sweeps.cost import cost
from cppo_lab.sweeps.sweep import Sweep, plan_sweep
from cppo_lab.sweeps.sweep_file import read_sweep, sweep_names

Invoke = Callable[..., tuple[int, str, str]]
SWEEPS = [name for name in sweep_names() if "paper" in read_sweep(name).scales]
SMALL = (
    *SIZES,
    *(
        "trainer.steps=1",
        "trainer.prompts_per_step=4",
        "trainer.prompts_per_minibatch=2",
        "trainer.group_size=4",
    ),
    *("trainer.microbatch_sequences=null", "task.samples=2"),
)


def grouping_of(sweep: Sweep) -> Grouping:
    """The planned runs, placed as their report will place them."""
    runs = {run.run_id: run for run in sweep.runs}
    methods = {run_id: run.config.algo.name for run_id, run in runs.items()}
    return group_runs(sweep.axes, {run_id: run.axes for run_id, run in runs.items()}, methods)


def test_all_sweeps_but_the_quick_ones_and_tuned_ones_have_the_papers_scale() -> None:
    # Nothing has been tuned at the paper's scale yet.
    assert {*SWEEPS} == {*sweep_names()} - {"quickstart", "real_quickstart", "tuned_table1", "tuned_controls"}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_planned_in_full(name: str, tmp_path: Path) -> None:
    file = read_sweep(name, "paper")
    sweep = plan_sweep(file, [f"paths.output='{tmp_path}'"])
    assert sweep.name == f"{name}-paper"
    assert {(run.panel, run.method, run.seeds) for run in planned_runs(file)} == {
        (member.panel, member.method, member.seeds) for member in grouping_of(sweep).membership.values()
    }
    for run in sweep.runs:
        assert run.config.task.kind == "dapo_math"
        assert run.config.model.kind == "pretrained"
        estimate = cost(run.config).gpu
        assert estimate is not None
        assert estimate.h100_hours > 1


@pytest.mark.parametrize("name", sweep_names())
def test_what_claims_are_held_against_is_what_is_planned(name: str, tmp_path: Path) -> None:
    """At the laptop's scale, with one seed: panels and methods are those of all."""
    file = read_sweep(name)
    grouping = grouping_of(plan_sweep(file, ["seed=0", f"paths.output='{tmp_path}'"]))
    assert {(run.panel, run.method) for run in planned_runs(file)} == {
        (group.panel, group.method) for group in grouping.groups
    }


def test_an_axis_that_a_grid_leaves_open_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "open.yaml"
    path.write_text("axes: [{trainer.epochs: [1, 2]}, {trainer.staleness: [1, 2]}]\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"sweep open: axes: trainer\.epochs: every grid must set it"):
        planned_runs(read_sweep(str(path)))


def test_plan_shows_what_table_1_would_cost(invoke: Invoke, tmp_path: Path) -> None:
    code, out, err = invoke("plan", "table1", "scale=paper", "-o", str(tmp_path))
    assert code == 0, err
    shown = " ".join(out.split())
    assert "32 runs, 0 finished; at most" in shown
    assert "Qwen/Qwen3-1.7B with ppo needs" in shown, "its critic is a second model"
    assert "Qwen/Qwen3-30B-A3B-Base needs" in shown
    code, out, _ = invoke("plan", "table1", "scale=paper", "--json", "-o", str(tmp_path))
    runs = json.loads(out)["runs"]
    assert len(runs) == 32
    assert all(run["gpu"]["h100_hours"] > 1 for run in runs)


@pytest.mark.slow
@pytest.mark.parametrize("name", SWEEPS)
def test_dress_rehearsal(name: str, invoke: Invoke, tmp_path: Path) -> None:
    """The same file with model and data replaced: every run ends, Table 1's report is written, the result file too."""
    model = tiny_model(tmp_path / "model", chat=True, experts=0)
    asked = ["scale=paper", *SMALL, f"model.path='{model}'", *tiny_data(tmp_path / "data")]
    # One setting of the model; the axes in question stay whole.
    asked += ["recipe=qwen3_1.7b_base", *(["seed=range(0,2)"] if name == "aa" else [])]
    if name == "horizon":
        asked.append("task.max_response_tokens=4,6")
    output = tmp_path / "out"
    report = "--report" if name == "table1" else "--no-report"
    code, out, err = invoke("sweep", name, *asked, "-o", str(output), "-j", "2", report)
    assert code == 0, out + err
    states = [
        json.loads(path.read_text(encoding="utf-8"))["status"] for path in output.glob("runs/*/run.json")
    ]
    assert states
    assert {*states} == {"FINISHED"}
    assert len(list(output.glob("reports/*/index.html"))) == (name == "table1")
    code, out, err = invoke("results", name, *asked, "-o", str(output), "--to", str(tmp_path / "results"))
    assert code == 0, err
    (path,) = (tmp_path / "results").glob(f"{name}-paper-*.csv")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(states)
