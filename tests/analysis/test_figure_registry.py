"""Figures register by name: those of the lab and those of a plug-in alike, without anything heavy imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from run_folders import write_sweep

from cppo_lab.analysis.figures import figure
from cppo_lab.analysis.figures.data import FigureData
from cppo_lab.analysis.figures.registry import FIGURES, check_figure, figure_names, load_figures
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.provenance import provenance
from cppo_lab.analysis.page.report import write_report
from cppo_lab.analysis.reproductions.figure import SERIES
from cppo_lab.errors import UserError
from cppo_lab.plugins import load_plugins
from cppo_lab.sweeps.sweep_file import read_sweep, sweep_names

ROOT = Path(__file__).parents[2]
Invoke = Callable[..., tuple[int, str, str]]
MINE = """
from cppo_lab.analysis.figures import CannotDraw, figure

@figure(
    "rollout_reward",
    title="Reward of <rollouts>",
    section="stability",
    caption="Mean reward of each seed ({seeds}); {this} stays.",
    about="mean reward of the rollouts over training",
    needs=("train/reward_mean",),
    per_panel=True,
)
def draw(data):
    from matplotlib.figure import Figure

    sheet = Figure()
    axes = sheet.subplots()
    for group in data.groups:
        curves = data.curves(group, "train/reward_mean")
        axes.plot(curves.steps, curves.mean(), **data.looks[group.method].line())
    return sheet

@figure("never", title="Never", section="accuracy", caption="Nothing.", about="nothing")
def never(data):
    raise CannotDraw("nobody records this")
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plug-in with figures, which no other test sees."""
    load_figures()
    monkeypatch.setattr(FIGURES, "_entries", dict(FIGURES._entries))
    path = tmp_path / "my_figures.py"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_every_file_of_the_gallery_registers_the_figure_that_it_is_named_after() -> None:
    names = {path.stem for path in (ROOT / "analysis" / "figures" / "gallery").glob("[!_]*.py")}
    built_in = {entry.name: entry.origin for entry in load_figures().entries() if entry.name in names}
    assert set(built_in) == names
    assert all(origin.endswith(f".gallery.{name}") for name, origin in built_in.items())


def test_names_are_known_without_matplotlib_pandas_or_torch() -> None:
    code = (
        "import sys; from cppo_lab.analysis.figures.registry import check_figure; check_figure('a', 'ablations'); "
        "sys.exit(str({'matplotlib', 'pandas', 'numpy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_an_unknown_figure_is_refused_with_the_names_there_are() -> None:
    check_figure("sweep mine", None)
    with pytest.raises(
        UserError, match=r"sweep mine: figure=budget: unknown; allowed are ablations, .*'budgets'"
    ):
        check_figure("sweep mine", "budget")


def test_every_sweep_names_a_figure_that_there_is() -> None:
    named = {figure for name in sweep_names() if (figure := read_sweep(name).figure)}
    assert named <= set(figure_names())
    assert set(SERIES) <= set(figure_names())


def test_docs_list_every_figure_of_the_lab_as_it_is_registered() -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    wanted = [
        (entry.name, entry.part.section, entry.about, (entry.paper or "").removesuffix(" of the CPPO paper"))
        for entry in load_figures().entries()
        if ".gallery." in entry.origin
    ]
    assert sorted(rows) == sorted(wanted)


def test_a_plugin_s_figure_is_in_the_report_with_its_files_and_can_be_named(
    tmp_path: Path, plugin: Path
) -> None:
    load_plugins([plugin])
    check_figure("sweep mine", "rollout_reward")
    write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1))
    files = write_report(tmp_path, "quickstart", formats=("html", "md", "png"))
    assert {"rollout-reward", "accuracy"} <= {path.stem for path in files.figures}
    assert files.html is not None
    html = files.html.read_text(encoding="utf-8")
    assert "<h3>Reward of &lt;rollouts&gt;</h3>" in html
    assert "Mean reward of each seed (n = 2 seeds per method); {this} stays." in html
    assert "Cannot be drawn: nobody records this." in html
    assert html.index('id="figure-mismatch"') < html.index('id="figure-rollout-reward"')
    assert files.markdown is not None
    assert "(figures/rollout-reward.png)" in files.markdown.read_text(encoding="utf-8")


def test_a_plugin_s_figure_says_what_the_runs_lack(tmp_path: Path, plugin: Path) -> None:
    load_plugins([plugin])
    lacking = {"grpo": ("train/reward_mean",)}
    write_sweep(tmp_path, algos=("grpo",), seeds=(0, 1), missing_metrics=lacking)
    page = write_report(tmp_path, "quickstart", formats=("html",)).html
    assert page is not None
    assert "Cannot be drawn: no run recorded train/reward_mean." in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("rollout_reward", "accuracy"), "figure 'accuracy' is already registered"),
        (("rollout_reward", "../x"), "must be letters, digits and underscores"),
        (
            ('section="stability"', 'section="end"'),
            "section 'end': allowed are accuracy, step_size, stability, mechanisms",
        ),
    ],
)
def test_a_figure_that_cannot_be_registered_is_refused(
    plugin: Path, change: tuple[str, str], said: str
) -> None:
    plugin.write_text(MINE.replace(*change), encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_plugins([plugin])


def draw_nothing(data: FigureData) -> Figure:
    return Figure()


def test_figures_register_where_they_are_defined() -> None:
    load_figures()
    register = figure("accuracy", title="", section="accuracy", caption="", about="")
    with pytest.raises(
        ValueError, match=r"already registered by cppo_lab\.analysis\.figures\.gallery\.accuracy"
    ):
        register(draw_nothing)


def test_the_page_names_the_plug_ins_of_its_runs_and_those_that_are_not_loaded(
    tmp_path: Path, plugin: Path
) -> None:
    (loaded,) = load_plugins([plugin])
    absent = {"name": "gone", "path": "/nowhere", "sha256": "f" * 64}
    for folder in write_sweep(tmp_path, algos=("grpo",), seeds=(0, 1)):
        info = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        info["plugins"] = [loaded.described(), absent]
        (folder / "run.json").write_text(json.dumps(info), encoding="utf-8")
    known = dict(provenance(load_study(tmp_path, "quickstart")))
    said = f"my_figures ({loaded.sha256[:12]}), gone (ffffffffffff; not loaded for this report)"
    assert known["plug-ins"] == said


def test_a_sweep_file_can_name_the_figure_of_its_plug_in(
    tmp_path: Path, plugin: Path, invoke: Invoke
) -> None:
    sweep = tmp_path / "mine.yaml"
    text = "axes: {algo: [cppo, grpo], seed: 0}\nfigure: rollout_reward\n"
    sweep.write_text(text, encoding="utf-8")
    code, _, err = invoke("plan", str(sweep), "-o", str(tmp_path))
    assert code == 2
    assert "figure=rollout_reward: unknown; allowed are ablations, accuracy," in err
    sweep.write_text(f"{text}plugins: [{plugin.name}]\n", encoding="utf-8")
    code, out, err = invoke("plan", str(sweep), "-o", str(tmp_path))
    assert code == 0, err
    assert "2 runs" in out


def test_the_example_of_the_documentation_works(tmp_path: Path, plugin: Path) -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(# my_figures\.py\n.*?)```", text, re.DOTALL)
    plugin.write_text(example, encoding="utf-8")
    load_plugins([plugin])
    write_sweep(tmp_path, algos=("grpo", "cppo"), seeds=(0, 1))
    files = write_report(tmp_path, "quickstart", formats=("png",))
    assert "rollout-reward" in {path.stem for path in files.figures}
