"""The report of generated run folders: files, page, Markdown, tables, figures."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from kept_responses import HOSTILE
from run_folders import Fault, write_sweep

from cppo_lab.analysis.figures import style
from cppo_lab.analysis.figures.looks import CROSS, DARK, LOOKS, SPARE, looks_of
from cppo_lab.analysis.figures.render import inline_svg
from cppo_lab.analysis.load.sources import NothingToReport, load_study, title_and_command
from cppo_lab.analysis.page.report import (
    FORMATS,
    ReportFiles,
    collect,
    html_page,
    markdown_page,
    write_report,
)


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> ReportFiles:
    output = tmp_path_factory.mktemp("outputs")
    write_sweep(
        output,
        faults={("pg", 2): Fault("FAILED", f"loss is not finite (nan) {HOSTILE}", 9, True)},
        only_seed={"grpo": 1},
        missing_metrics={"dppo_tv": ("policy/entropy", "train/grad_norm")},
    )
    return write_report(output, "quickstart")


@pytest.fixture(scope="module")
def html(written: ReportFiles) -> str:
    assert written.html is not None
    return written.html.read_text(encoding="utf-8")


def test_every_file_said_to_be_written_is_there_and_not_empty(written: ReportFiles) -> None:
    assert len(written.all) > 17
    assert all(path.stat().st_size > 100 for path in written.all)


def test_every_figure_is_a_png_at_twice_the_size_and_a_pdf(written: ReportFiles) -> None:
    names = {path.stem for path in written.figures}
    assert names == {
        "accuracy",
        "final-and-best",
        "differences",
        "stability",
        "accuracy-against-kl",
        "position-profiles",
        "threshold-along-a-response",
        "budgets",
        "divergence-map",
        "masking-map",
        "rule-agreement",
        "what-the-mask-removes",
        "mismatch",
    }
    for path in written.figures:
        data = path.read_bytes()
        if path.suffix == ".pdf":
            assert data.startswith(b"%PDF")
        else:
            width, height = struct.unpack(">II", data[16:24])
            assert width >= 1400
            assert height >= 500


def test_the_page_loads_nothing(html: str) -> None:
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "data", "poster", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), f"{tag} {name}={value}"
    assert not re.search(r"url\((?!['\"]?#)", html)
    assert "@import" not in html
    assert len(html.encode()) < 25 * 2**20


def test_the_page_says_what_was_asked_and_what_came_out(html: str) -> None:
    text = " ".join(Page(html).text)
    for part in (
        "Differences between methods",
        "Shared settings",
        "Compute",
        "All runs",
        "Statistical methods",
    ):
        assert part in text
    assert "Which trust region holds under 64 updates per rollout?" in text
    assert "Collapsed below half of the starting accuracy: pg in 3 of 3 runs" in text
    assert "d146cf0a9e00" in text


def test_the_page_says_whether_theorem_1_admits_the_position_weights(html: str) -> None:
    assert "cppo: admitted by CPPO&#39;s Theorem 1" in html


def test_text_from_runs_is_escaped(html: str) -> None:
    assert HOSTILE not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2


def test_sections_stand_in_order_each_with_its_link(html: str) -> None:
    page = Page(html)
    sections = [attributes["id"] for tag, attributes in page.tags if tag == "section"]
    order = ("verdict", "accuracy", "stability", "mechanisms", "samples", "configurations", "provenance")
    assert sections == list(order)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links[1:] == [f"#{name}" for name in sections]


def test_a_section_without_anything_is_left_out_with_its_link(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("cppo",), seeds=(0, 1))
    content = collect(load_study(tmp_path, "quickstart"), {"csv"})
    html, markdown = html_page(content), markdown_page(content)
    assert "mechanisms" not in html.split("<main>")[1].split("</main>")[0]
    assert "#mechanisms" not in html
    assert "## Mechanisms" not in markdown


def test_the_policy_of_the_page_admits_only_its_own_scripts(html: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    admitted = re.search(r"script-src ([^;]*);", html.replace("&#39;", "'"))
    assert len(scripts) == 4
    assert admitted is not None
    assert admitted.group(1).split() == [f"'sha256-{digest}'" for digest in digests]


def test_a_failed_run_stands_in_the_run_table_with_its_reason(html: str) -> None:
    row = re.search(r"<tr>(?:(?!</tr>).)*failed.*?</tr>", html, re.DOTALL)
    assert row is not None
    assert "9 of 12" in row.group(0)


def test_tables_parse_back_from_csv(written: ReportFiles) -> None:
    frames = {path.stem: pd.read_csv(path) for path in written.tables if path.suffix == ".csv"}
    assert set(frames) == {
        "results",
        "learning",
        "contrasts",
        "paper",
        "paper-benchmarks",
        "stability",
        "masked-tokens",
        "configuration",
        "budget",
        "runs",
    }
    results = frames["results"].set_index("method")
    assert results["final"].between(0, 1).all()
    assert results.loc["grpo", "n"] == 1
    assert results.loc["pg", "final"] < 0.2 < 0.5 < results.loc["dppo_tv", "final"]
    assert len(frames["runs"]) == 10


def test_the_csv_and_the_page_show_the_same_number(written: ReportFiles, html: str) -> None:
    path = next(path for path in written.tables if path.name == "results.csv")
    final = pd.read_csv(path).set_index("method").loc["cppo", "final"]
    assert f"{100 * float(final):.1f}%" in html


def test_markdown_links_its_figures_and_keeps_text_harmless(written: ReportFiles) -> None:
    assert written.markdown is not None
    text = written.markdown.read_text(encoding="utf-8")
    linked = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text)
    assert linked
    assert all((written.folder / path).is_file() for path in linked)
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<script>" not in outside.replace("\\<script\\>", "")


def test_markdown_tables_are_whole(written: ReportFiles) -> None:
    assert written.markdown is not None
    blocks = re.findall(r"(?:^\|.*\|\s*$\n?)+", written.markdown.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(blocks) == 10
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", row)) for row in block.strip().splitlines()}
        assert len(widths) == 1, block


def test_only_the_formats_asked_for_are_written(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo",), seeds=(0, 1))
    files = write_report(tmp_path, "quickstart", destination=tmp_path / "here", formats=("csv",))
    assert files.folder == tmp_path / "here"
    assert {path.suffix for path in (tmp_path / "here").rglob("*") if path.is_file()} == {".csv"}
    assert (files.html, files.markdown, files.figures) == (None, None, ())


def test_a_sweep_given_on_the_command_line_is_headed_by_what_it_varies(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("pg", "grpo"), seeds=(0, 1), learning_rates=(2e-4, 4e-4))
    manifest = tmp_path / "sweeps" / "quickstart" / "sweep.json"
    command = "algo=pg,grpo trainer.lr=2e-4,4e-4 seed=range(0,2) trainer.steps=12"
    sweep = json.loads(manifest.read_text(encoding="utf-8")) | {"title": command, "question": ""}
    manifest.write_text(json.dumps(sweep), encoding="utf-8")
    page = write_report(tmp_path, "quickstart", formats=("html",)).html
    assert page is not None
    text = page.read_text(encoding="utf-8")
    assert "<h1>algo × trainer.lr</h1>" in text
    assert f'<p class="command"><code>{command}</code></p>' in text


@pytest.mark.parametrize(
    ("title", "axes", "expected"),
    [
        ("algo=cppo,pg seed=0,1", {"algo": ["cppo", "pg"], "seed": ["0", "1"]}, "algo"),
        ("algo=cppo seed=0,1", {"algo": ["cppo"], "seed": ["0", "1"]}, "seed"),
        ("Does lr=2e-4 hold?", {"lr": ["2e-4", "4e-4"]}, "Does lr=2e-4 hold?"),
        ("quickstart", {"algo": ["cppo", "pg"]}, "quickstart"),
    ],
)
def test_only_a_title_made_of_overrides_is_replaced(
    title: str, axes: dict[str, list[str]], expected: str
) -> None:
    assert title_and_command(title, axes) == (expected, "" if title == expected else title)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo",), seeds=(0,))
    with pytest.raises(ValueError, match=r"formats = docx: allowed are html, md, png, pdf, csv"):
        write_report(tmp_path, "quickstart", formats=("docx",))
    assert FORMATS == ("html", "md", "png", "pdf", "csv", "tex")


def test_nothing_is_written_when_there_is_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(NothingToReport):
        write_report(tmp_path, destination=tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_runs_without_evaluations_profiles_and_masks_still_make_a_page(tmp_path: Path) -> None:
    dropped = ("eval/heldout/accuracy", "mask/share", "mask/share_threshold", "mask/share_budget")
    write_sweep(
        tmp_path,
        algos=("grpo",),
        seeds=(0, 1),
        missing_metrics={"grpo": dropped},
        profiles=False,
        baseline=None,
    )
    files = write_report(tmp_path, "quickstart", formats=("html", "png"))
    assert files.html is not None
    text = files.html.read_text(encoding="utf-8")
    assert "Cannot be drawn: no run recorded eval/heldout/accuracy" in text
    assert "Not recorded by any run: Held-out accuracy, Tokens masked, " in text


def test_several_learning_rates_get_a_panel_each(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("grpo", "dppo_tv"), seeds=(0, 1), learning_rates=(2e-4, 4e-4))
    files = write_report(tmp_path, "quickstart", formats=("png",))
    names = {path.stem for path in files.figures}
    assert {"stability-lr-2e-4", "stability-lr-4e-4", "position-profiles-lr-2e-4"} <= names


def test_the_same_runs_give_the_same_page(tmp_path: Path) -> None:
    write_sweep(tmp_path, algos=("pg", "grpo"), seeds=(0, 1))
    first = write_report(tmp_path, "quickstart", destination=tmp_path / "a", formats=("html",)).html
    second = write_report(tmp_path, "quickstart", destination=tmp_path / "b", formats=("html",)).html
    assert first is not None
    assert second is not None
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_the_page_of_a_hundred_runs_of_five_hundred_steps_can_be_sent_by_mail(tmp_path: Path) -> None:
    algos = [f"rule_{number}" for number in range(20)]
    write_sweep(
        tmp_path, algos=algos, seeds=range(5), steps=500, evaluate_every=25, keep_every=25, baseline=None
    )
    page = write_report(tmp_path, "quickstart", formats=("html",)).html
    assert page is not None
    text = page.read_text(encoding="utf-8")
    assert page.stat().st_size < 25 * 2**20
    block = re.search(r'id="sample-data">(.*?)</script>', text, re.DOTALL)
    assert block is not None
    runs = json.loads(block.group(1))["runs"]
    assert len(runs) == 100
    assert min(len(run["steps"]) for run in runs) >= 3


def test_a_method_keeps_its_look_whoever_stands_beside_it() -> None:
    alone = looks_of(["cppo", "my_rule"])
    crowd = looks_of(["pg", "my_rule", "grpo", "cppo"])
    assert alone["cppo"] == crowd["cppo"] == LOOKS["cppo"]
    assert alone["my_rule"] == looks_of(["my_rule", "cppo"])["my_rule"]


def test_every_named_method_of_the_lab_has_a_look_of_its_own() -> None:
    names = {path.stem for path in (Path(__file__).parents[2] / "conf" / "algo").glob("[!_]*.yaml")}
    assert names
    assert names <= set(LOOKS)


def test_no_two_methods_look_alike() -> None:
    methods = [*LOOKS, *(f"rule_{index}" for index in range(10))]
    looks = looks_of(methods)
    assert len(set(looks.values())) == len(methods)


def test_every_colour_of_the_style_has_a_dark_counterpart() -> None:
    used = {look.color for look in (*LOOKS.values(), *SPARE)} | {CROSS}
    assert used <= set(DARK)


def test_labels_are_spread_in_order_and_within_bounds() -> None:
    placed = style.spread([0.60, 0.61, 0.605, 0.1], 0.05, 0.0, 0.7)
    assert [placed.index(value) for value in sorted(placed)] == [3, 0, 2, 1]
    ordered = sorted(placed)
    assert all(b - a >= 0.05 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert 0.0 <= ordered[0] <= ordered[-1] <= 0.7


def test_house_colours_of_a_picture_follow_the_theme() -> None:
    svg = inline_svg(
        '<?xml version="1.0"?><svg width="1pt" height="1pt"><path style="fill: #0072b2"/><path fill="#fefefd"/></svg>'
    )
    assert "fill: var(--c-0072b2, #0072b2)" in svg
    assert 'style="fill: var(--c-fefefd, #fefefd)"' in svg
    assert "xml version" not in svg


def test_analysis_imports_neither_torch_nor_what_needs_it() -> None:
    code = (
        "import sys, cppo_lab.analysis.page.report, cppo_lab.analysis.load.mlflow_runs; "
        "heavy = {'torch', 'transformers', 'hydra', 'mlflow', 'cppo_lab.config.schema', 'matplotlib.pyplot'}; "
        "bad = heavy & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
