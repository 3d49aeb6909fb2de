"""Text that could break a page, a document or a terminal is shown as text by each of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hostile_runs import METHODS, TEXTS, write_hostile_sweep
from markdown_it import MarkdownIt

from cppo_lab.analysis.page.latex import latex
from cppo_lab.analysis.page.markdown import cell, fence, line
from cppo_lab.analysis.page.report import ReportFiles, write_report
from cppo_lab.analysis.page.tables import Cell, Table
from cppo_lab.analysis.safe_text import brief, visible

Invoke = Callable[..., tuple[int, str, str]]


class Elements(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_hostile_sweep(folder)
    return folder


@pytest.fixture(scope="module")
def written(output: Path) -> ReportFiles:
    return write_report(output, "hostile", formats=("html", "md", "csv", "tex"))


@pytest.fixture(scope="module")
def html(written: ReportFiles) -> str:
    assert written.html is not None
    return written.html.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def markdown(written: ReportFiles) -> str:
    assert written.markdown is not None
    return written.markdown.read_text(encoding="utf-8")


def test_the_page_has_no_element_and_no_handler_but_its_own(html: str) -> None:
    page = Elements(html)
    # Four scripts of the page, and the block of data.
    assert page.tags.count("script") == 5
    assert not {"img", "iframe", "object", "b"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [
        value for name, value in page.attributes if name in ("href", "src") and not value.startswith("#")
    ]
    assert TEXTS["script"] in page.text
    assert TEXTS["image"] in page.text
    assert page.text.count("{{7*7}} {% raw %} ${7*7}") >= 4


def test_the_page_is_short_and_says_what_was_left_out(html: str) -> None:
    assert "x" * 6_000 not in html
    assert "more characters" in html
    assert len(html) < 3_000_000


@pytest.mark.parametrize("name", ["html", "markdown"])
def test_no_character_of_a_page_is_unseen(name: str, request: pytest.FixtureRequest) -> None:
    text = request.getfixturevalue(name)
    unseen = {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")}
    assert unseen <= {"\n", "\t"}
    assert "\\u202e" in text


def test_markdown_stays_a_document_with_its_own_headings_tables_and_figures(markdown: str) -> None:
    tokens = MarkdownIt("gfm-like", {"linkify": False}).enable("table").parse(markdown)
    inline = [child for token in tokens for child in token.children or []]
    assert not [t for t in (*tokens, *inline) if t.type in ("html_block", "html_inline", "link_open")]
    headings = [
        tokens[place + 1].content for place, t in enumerate(tokens) if t.tag == "h2" and t.nesting == 1
    ]
    sections = ("Verdict", "Accuracy", "Stability", "Mechanisms", "Samples", "Configurations", "Provenance")
    assert headings == list(sections)
    assert sum(t.type == "table_open" for t in tokens) == 8
    pictures = [t.attrs["src"] for t in inline if t.type == "image"]
    assert pictures
    assert all(str(source).startswith("figures/") for source in pictures)


def test_latex_is_ascii_and_every_special_character_is_escaped(written: ReportFiles) -> None:
    paths = [path for path in written.tables if path.suffix == ".tex"]
    assert {path.stem for path in paths} >= {
        "results",
        "learning",
        "contrasts",
        "stability",
        "configuration",
        "runs",
    }
    for path in paths:
        text = path.read_text(encoding="utf-8")
        assert text.isascii()
        assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
        assert r"\input" not in text
        bare = re.sub(r"\$(?:-|\\times|\\cdot)\$|\\[a-zA-Z]+|\\[^a-zA-Z]", "", text)
        assert bare.count("{") == bare.count("}")
        assert not set(bare) & set("#%$^~_")
        body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
        columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
        assert columns is not None
        for row in body.strip().split("\\\\\n"):
            assert row.replace(r"\&", "").count("&") == len(columns.group(1)) - 1
            assert not row.lstrip().startswith(("[", "*"))


def test_a_cell_that_begins_with_a_bracket_is_no_length_of_a_line_break() -> None:
    rows = tuple((Cell(text), Cell("1", 1.0)) for text in ("plain", "[2pt] x", "* y"))
    written = latex(Table("t", "caption", (("a", False), ("b", True)), rows))
    assert "\n{}[2pt] x & 1" in written
    assert "\n{}* y & 1" in written


def test_csv_keeps_the_whole_text(written: ReportFiles) -> None:
    import pandas as pd

    path = next(path for path in written.tables if path.name == "configuration.csv")
    frame = pd.read_csv(path, index_col=0)
    assert frame.loc["algo.note_one_word"].str.len().tolist() == [100_001] * 3


def test_the_terminal_shows_text_and_obeys_none(invoke: Invoke, output: Path) -> None:
    code, out, err = invoke("report", "hostile", "--terminal", "--output", str(output))
    assert (code, err) == (0, "")
    assert "[/red]{{7*7}}|`" in out
    assert not {c for c in out if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n"}


@pytest.mark.parametrize("arguments", [(), ("--masked",), ("--wrong", "-n", "20"), ("--json",)])
def test_inspect_shows_text_and_obeys_none(invoke: Invoke, output: Path, arguments: tuple[str, ...]) -> None:
    (run, *_) = sorted(path.name for path in (output / "runs").iterdir())
    code, out, err = invoke("inspect", run, "--output", str(output), *arguments)
    assert (code, err) == (0, "")
    assert "alert(" in out
    assert not {c for c in out if unicodedata.category(c) in ("Cc", "Cf", "Cs")} - {"\n", "\t"}


def test_inspect_takes_no_markup_from_a_model(invoke: Invoke, output: Path) -> None:
    (run, *_) = sorted(path.name for path in (output / "runs").iterdir())
    _, out, _ = invoke("inspect", run, "--output", str(output), "--step", "1", "-n", "20")
    assert "[red]markup[/blue] [/]" in out


def test_methods_with_long_or_odd_names_stay_apart(html: str) -> None:
    rows = re.findall(
        r"<th scope=row[^>]*>.*?</th>", html.split('id="table-results"')[1].split("</table>")[0]
    )
    assert len(set(rows)) == len(METHODS)


def test_invisible_characters_are_written_out() -> None:
    assert visible("a\u202eb\u200bc\td\n") == "a\\u202eb\\u200bc\td\n"
    assert visible("\U000e0041\ud800") == "\\U000e0041\\ud800"
    assert visible("סוף <b>") == "סוף <b>"


def test_marks_heaped_on_a_letter_are_written_out() -> None:
    assert visible("e" + "\u0301" * 4 + "!") == "e" + "\u0301" * 4 + "!"
    assert visible("e" + "\u0301" * 6 + "e\u0301") == "e" + "\u0301" * 4 + "\\u0301" * 2 + "e\u0301"


def test_a_long_text_says_how_much_of_it_is_left_out() -> None:
    assert brief("abc", 3) == "abc"
    assert brief("x" * 2_005, 5) == "xxxxx … (2\u202f000 more characters)"


def test_a_fence_is_longer_than_any_run_of_backticks_inside() -> None:
    assert fence("a ```` b").startswith("`````text\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b\n<i> *c*", "a\\|b \\<i\\> \\*c\\*"),
        ("&lt;", "\\&lt;"),
        ("- item", "\\- item"),
        ("12. item", "12\\. item"),
        ("1.5 points", "1.5 points"),
        ("===", "\\==="),
    ],
)
def test_a_line_of_markdown_is_nothing_but_text(text: str, expected: str) -> None:
    assert line(text) == expected
    rendered = MarkdownIt("commonmark").render(line(text))
    plain = re.sub(r"<p>|</p>|\n", "", rendered)
    assert plain == " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def test_an_empty_cell_is_a_blank() -> None:
    assert cell("") == " "
    assert cell("+43.8") == "+43.8"
