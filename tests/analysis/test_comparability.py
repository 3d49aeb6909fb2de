"""Runs that answer different questions: refused in one sentence, or shown together with a mark on everything."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread
from run_folders import write_sweep

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.looks import CROSS, INK
from cppo_lab.analysis.figures.render import PNG_DPI, Rendered, render
from cppo_lab.analysis.load.axes import Source, study_axes
from cppo_lab.analysis.load.comparability import (
    TRAINER,
    Difference,
    NotComparable,
    check,
    find_differences,
    mark,
    subject,
)
from cppo_lab.analysis.load.run_record import RunRecord
from cppo_lab.analysis.load.sources import load_study
from cppo_lab.analysis.page.exhibits import exhibits
from cppo_lab.analysis.page.report import collect, write_report
from cppo_lab.analysis.summary import summarise
from cppo_lab.config.schema import RunConfig, Trainer

BOTH = ("pg", "grpo")

# One key of each kind, with another value than the runs of `write_sweep` have.
MUST_BE_ALIKE: dict[str, tuple[Any, Any, str]] = {
    "task.steps": (4, 6, "task"),
    "task.heldout": (1000, 200, "task"),
    "warmup.steps": (1300, 600, "starting policy"),
    "warmup.lr": (0.004, 0.001, "starting policy"),
    "trainer.steps": (12, 24, "budget"),
    "trainer.prompts_per_step": (32, 16, "budget"),
    "trainer.group_size": (8, 4, "budget"),
    "trainer.prompts_per_minibatch": (2, 4, "budget"),
    "trainer.epochs": (4, 1, "budget"),
    "trainer.temperature": (1, 0.7, "evaluation"),
    "trainer.evaluate_every": (2, 6, "evaluation"),
}
# Settings of the method or of the machine: a report shows them, and they need not be alike.
MAY_DIFFER = {
    "microbatch_sequences", "staleness", "lr", "lr_warmup_updates", "lr_schedule", "lr_floor", "lr_control",
    "lr_ess_base", "lr_ess_exponent", "lr_length_multiple", "lr_length_window", "lr_length_period_factor",
    "lr_length_floor", "betas", "weight_decay", "grad_clip",
    "checkpoint_every", "samples_per_step", "threads", "device",
    "lora_rank", "lora_alpha", "lora_targets", "evaluate_greedy", "microbatch_tokens",
}  # fmt: skip


def edit(folder: Path, name: str, **changes: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def refusal(output: Path, *names: str, runs: list[Path] | None = None) -> str:
    with pytest.raises(NotComparable) as caught:
        load_study(output, list(names), runs)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(": such runs are not comparable."), "not every command has --force"
    return sentence


def test_every_key_of_the_trainer_is_judged() -> None:
    guarded = {key.removeprefix("trainer.") for key in TRAINER}
    assert guarded | MAY_DIFFER == set(Trainer.model_fields)
    assert not guarded & MAY_DIFFER
    assert {subject(f"{group}.x") for group in RunConfig.model_fields} == {"", "task", "starting policy"}


@pytest.mark.parametrize("key", MUST_BE_ALIKE)
def test_two_sweeps_that_do_not_share_it_are_refused_by_key_values_and_sweeps(
    key: str, tmp_path: Path
) -> None:
    first, second, _ = MUST_BE_ALIKE[key]
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0, 1))
    write_sweep(tmp_path, name="two", algos=BOTH, seeds=(0, 1), settings={key: second})
    assert f"{key} is {first} in sweep one and {second} in sweep two" in refusal(tmp_path, "one", "two")


@pytest.mark.parametrize("key", [*MUST_BE_ALIKE, "model.name"])
def test_runs_picked_by_hand_are_refused_by_their_names(key: str, tmp_path: Path) -> None:
    second = MUST_BE_ALIKE.get(key, ("s", "m"))[1]
    (one,) = write_sweep(tmp_path, name="one", algos=("grpo",), seeds=(0,))
    (two,) = write_sweep(tmp_path, name="two", algos=("cppo",), seeds=(0,), settings={key: second})
    sentence = refusal(tmp_path, runs=[one, two])
    assert re.search(rf"^{re.escape(key)} is \S+ in {one.name} and {second} in {two.name}:", sentence)


@pytest.mark.parametrize("key", MUST_BE_ALIKE)
def test_what_an_axis_of_a_sweep_varies_was_chosen(key: str, tmp_path: Path) -> None:
    first, second, _ = MUST_BE_ALIKE[key]
    entries = []
    for value in (first, second):
        write_sweep(tmp_path, name="part", algos=BOTH, seeds=(0, 1), settings={key: value})
        manifest = json.loads((tmp_path / "sweeps" / "part" / "sweep.json").read_text(encoding="utf-8"))
        entries += [entry | {"axes": {key: str(value), **entry["axes"]}} for entry in manifest["runs"]]
    axes = {key: [first, second], "algo": list(BOTH), "seed": [0, 1]}
    edit(tmp_path / "sweeps" / "part", "sweep.json", runs=entries, axes=axes)
    alone = load_study(tmp_path, "part")
    assert len(alone.grouping.panels) == 2
    assert not alone.incomparable
    # A sweep beside it that has one of the values stands in that value's panel.
    write_sweep(tmp_path, name="other", algos=("cppo",), seeds=(0, 1), settings={key: second})
    joined = load_study(tmp_path, ["part", "other"])
    assert not joined.incomparable
    (panel,) = set(joined.runs.loc[joined.runs["method"] == "cppo", "panel"])
    assert panel == joined.grouping.panels[1]


def test_models_of_two_sweeps_are_refused_where_no_axis_tells_them(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0, 1))
    write_sweep(tmp_path, name="two", algos=("cppo",), seeds=(0, 1), settings={"model.name": "m"})
    assert "model.name is s in sweep one and m in sweep two" in refusal(tmp_path, "one", "two")


def test_what_a_task_brings_along_is_not_listed_beside_it(tmp_path: Path) -> None:
    write_sweep(tmp_path, name="one", algos=BOTH, seeds=(0,))
    other = {"task.kind": "gsm8k", "task.heldout": 128, "warmup.steps": 200, "warmup.lr": 0.002}
    write_sweep(tmp_path, name="two", algos=BOTH, seeds=(0,), settings=other)
    assert refusal(tmp_path, "one", "two").startswith(
        "task.kind is chain in sweep one and gsm8k in sweep two: such runs are not comparable."
    )


def test_many_differences_are_counted_and_many_runs_too(tmp_path: Path) -> None:
    settings = {key: values[1] for key, values in MUST_BE_ALIKE.items() if key.startswith("trainer.")}
    ones = write_sweep(tmp_path, name="one", algos=("grpo",), seeds=range(5))
    twos = write_sweep(tmp_path, name="two", algos=("grpo",), seeds=(0,), settings=settings)
    sentence = refusal(tmp_path, runs=[*ones, *twos])
    assert f"; {len(settings) - 3} more keys differ: such runs" in sentence
    assert "and 2 more runs and 1 in " in sentence
    assert len(sentence) < 600


def test_seeds_may_differ(tmp_path: Path) -> None:
    (one,) = write_sweep(tmp_path, name="one", algos=("grpo",), seeds=(0,), settings={"warmup.seed": 0})
    (two,) = write_sweep(tmp_path, name="two", algos=("cppo",), seeds=(1,), settings={"warmup.seed": 1})
    assert load_study(tmp_path, run_folders=[one, two]).incomparable == ()


def test_starting_policies_that_should_be_one_are_refused(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=BOTH, seeds=(0,))
    info = json.loads((folders[0] / "run.json").read_text(encoding="utf-8"))
    edit(folders[0], "run.json", starting_policy=info["starting_policy"] | {"recipe": "made-otherwise"})
    sentence = refusal(tmp_path, runs=folders)
    assert f"starting_policy.recipe is made-otherwise in {folders[0].name} and " in sentence


@pytest.mark.parametrize("same_bytes", [True, False])
def test_local_data_is_compared_by_its_bytes(same_bytes: bool, tmp_path: Path) -> None:
    folders = []
    for name in ("a.jsonl", "b.jsonl"):
        settings = {"task.path": name, "trainer.lr": 1e-4 if name == "a.jsonl" else 2e-4}
        folders += write_sweep(tmp_path, name=name, algos=("grpo",), seeds=(0,), settings=settings)
        content = "the same" if same_bytes else f"that of {name}"
        info = json.loads((folders[-1] / "run.json").read_text(encoding="utf-8"))
        # The recipe is made of bytes too.
        start = info["starting_policy"] | {"recipe": content}
        edit(folders[-1], "run.json", inputs={"task.path": content}, starting_policy=start)
    if same_bytes:
        assert load_study(tmp_path, run_folders=folders).grouping.methods == ("lr=1e-4", "lr=2e-4")
    else:
        assert "task.path is that of a.jsonl in" in refusal(tmp_path, runs=folders)


def test_task_that_only_run_json_tells_counts(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=BOTH, seeds=(0,))
    for folder in folders:
        (folder / "config.yaml").unlink()
    assert any(
        note.startswith("Some runs have no readable configuration (")
        for note in load_study(tmp_path, run_folders=folders).notes
    )
    edit(folders[0], "run.json", task="gsm8k")
    assert "task.kind is gsm8k in" in refusal(tmp_path, runs=folders)


def test_results_of_different_versions_of_the_lab_are_a_caveat(tmp_path: Path) -> None:
    folders = write_sweep(tmp_path, algos=BOTH, seeds=(0, 1))
    edit(folders[0], "run.json", result_version=2)
    assert load_study(tmp_path, "quickstart").notes == (
        "The runs were made by versions of the lab that give different results (version 2: 1 run; version 3: 3 runs).",
    )
    for folder in folders:
        edit(folder, "run.json", result_version=None)
    assert load_study(tmp_path, "quickstart").notes == ()
    edit(folders[0], "run.json", git={"commit": "0" * 40, "dirty": False})
    (note,) = load_study(tmp_path, "quickstart").notes
    assert note.startswith("The runs were made at 2 commits of the lab (000000000000, d146cf0a9e00)")


# Any mixture of runs: refused exactly when a key that must be alike is not.

KEYS = ("task.steps", "warmup.lr", "trainer.epochs", "trainer.lr", "algo.name", "engine.weights", "seed")


@given(
    st.lists(st.fixed_dictionaries({key: st.sampled_from((1, 2)) for key in KEYS}), min_size=1, max_size=6)
)
def test_picked_runs_are_refused_exactly_when_a_key_that_must_be_alike_is_not(
    configs: list[dict[str, Any]],
) -> None:
    found = differences_of(configs)
    differing = {key for key in KEYS if len({config[key] for config in configs}) > 1}
    assert {difference.key for difference in found} == {key for key in differing if subject(key)}
    if not found:
        check(found)
        return
    with pytest.raises(NotComparable) as caught:
        check(found)
    for difference in found:
        assert f"{difference.key} is " in str(caught.value)
        for value, runs in difference.values:
            number = int(re.findall(r"run(\d)", runs)[0])
            assert str(configs[number][difference.key]) == value


def differences_of(configs: list[Mapping[str, Any]]) -> tuple[Difference, ...]:
    records = [
        RunRecord(f"run{number}", Path(f"run{number}"), {}, dict(config), {}, [], [], [], ())
        for number, config in enumerate(configs)
    ]
    sources = [Source("runs", False, tuple(records))]
    return find_differences(sources, study_axes(sources))


# With --force.


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("mixed")
    write_sweep(output, name="one", algos=BOTH, seeds=(0, 1))
    settings = {"trainer.steps": 24, "task.steps": 6}
    write_sweep(output, name="two", algos=("cppo",), seeds=(0, 1), settings=settings)
    return output


MARK = "not comparable: task and budget differ"


def test_mark_names_each_subject_once() -> None:
    keys = ("task.steps", "task.heldout", "trainer.epochs")
    assert mark([Difference(key, subject(key), ()) for key in keys]) == MARK
    assert mark([Difference("task.steps", "task", ())]) == "not comparable: task differs"
    assert mark([]) == ""


def test_nothing_is_written_before_the_refusal(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(NotComparable):
        write_report(mixed, ["one", "two"], destination=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_forced_report_says_it_first_in_every_table_and_in_every_file_of_values(
    mixed: Path, tmp_path: Path
) -> None:
    files = write_report(
        mixed, ["one", "two"], destination=tmp_path, formats=("html", "md", "csv", "tex"), force=True
    )
    assert files.html is not None
    assert files.markdown is not None
    page, text = files.html.read_text(encoding="utf-8"), files.markdown.read_text(encoding="utf-8")
    first = f"{MARK[0].upper()}{MARK[1:]}. These runs answer different questions."
    assert text.index(first) < text.index("ended highest")
    assert page.index(first) < page.index("ended highest")
    assert "Not comparable: trainer.steps is 12 in sweep one and 24 in sweep two." in page
    assert "- Not comparable: task.steps is 4 in sweep one and 6 in sweep two." in text
    tables = collect(load_study(mixed, ["one", "two"], force=True), set()).tables
    assert page.count(f"<figcaption>N{MARK[1:]}. ") == len(tables)
    assert {path.stem for path in files.tables} == set(tables)
    for path in files.tables:
        content = path.read_text(encoding="utf-8")
        if path.suffix == ".tex":
            assert f"N{MARK[1:]}. " in " ".join(content.split())
        else:
            assert {row["mark"] for row in csv.DictReader(io.StringIO(content))} == {MARK}


def test_every_figure_is_marked_in_every_form(mixed: Path) -> None:
    study = load_study(mixed, ["one", "two"], force=True)
    marked = collect(study, {"png", "pdf", "html"}).rendered
    shown = exhibits(study, summarise(study), with_views=True)
    plain = {
        exhibit.name: render(exhibit.name, exhibit.figure, png=True, pdf=True, page=True)
        for exhibit in shown
        if exhibit.figure is not None
    }
    # The same figure over other axes, which only the page has.
    views = {
        view.name: render(view.name, view.figure, png=False, pdf=False, page=True)
        for exhibit in shown
        for view in exhibit.views
        if view.name not in plain
    }
    assert marked.keys() == plain.keys() | views.keys()
    assert len(plain) >= 5
    for name, figure in plain.items():
        assert_strip_below(marked[name], figure)
    for name, figure in views.items():
        assert heights(marked[name].markup) > heights(figure.markup)


def assert_strip_below(marked: Rendered, plain: Rendered) -> None:
    """The marked figure is the plain one with a strip below that holds text in the colour of a warning."""
    assert marked.png is not None
    assert plain.png is not None
    tall, short = (imread(io.BytesIO(png), format="png") for png in (marked.png, plain.png))
    height, width = short.shape[:2]
    assert tall.shape[1] == width
    assert tall.shape[0] > height
    # Legends move by a fraction of a pixel.
    assert (np.abs(tall[:height] - short).max(axis=-1) > 0.1).mean() < 0.01
    strip = tall[height:, :, :3]
    assert (strip[..., 0] >= strip[..., 1] - 0.01).all(), "nothing but paper and red: no legend slid into it"
    warning = np.array([int(CROSS[index : index + 2], 16) / 255 for index in (1, 3, 5)])
    rows, columns = np.nonzero(np.abs(strip - warning).max(axis=-1) < 0.02)
    assert len(rows) > 200
    # Nothing is cut off at an edge.
    assert 4 < rows.min() < rows.max() < len(strip) - 4
    assert 4 < columns.min() < columns.max() < width - 4
    for page, first in ((marked.pdf, plain.pdf), (marked.markup, plain.markup)):
        assert heights(page) == pytest.approx(heights(first) + 72 * len(strip) / PNG_DPI, abs=0.6)


def heights(form: bytes | str | None) -> float:
    """The height in points that a PDF or an inline SVG says it has."""
    text = form.decode("latin-1") if isinstance(form, bytes) else form or ""
    box = re.search(r"/MediaBox \[ ?0 0 [\d.]+ ([\d.]+) ?\]|viewBox=\"0 0 [\d.]+ ([\d.]+)\"", text)
    assert box is not None
    return float(box.group(1) or box.group(2))


def test_long_mark_takes_the_lines_it_needs_below_a_narrow_figure() -> None:
    def narrow() -> Figure:
        figure = style.sheet(2.4, 1.5)
        figure.subplots().plot([0, 1], [0, 1], color=INK)
        return figure

    text = "not comparable: task, starting policy, budget and evaluation differ"
    assert_strip_below(
        render("a", narrow(), png=True, pdf=True, page=True, mark=text),
        render("a", narrow(), png=True, pdf=True, page=True),
    )


def test_comparable_runs_bear_no_mark(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=BOTH, seeds=(0, 1))
    study = load_study(tmp_path, "quickstart", force=True)
    assert study.mark == ""
    content = collect(study, set())
    assert "mark" not in content.tables["results"].frame()
    assert "ot comparable" not in " ".join([*content.caveats, *content.verdicts[0][1]])
