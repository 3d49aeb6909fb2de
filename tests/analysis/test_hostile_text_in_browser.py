"""In a real browser text that could break the page stays text, wherever the picker leads."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser_pages import OpenPage, options
from hostile_runs import TEXTS, write_hostile_sweep

from cppo_lab.analysis.page.report import write_report
from cppo_lab.analysis.safe_text import visible

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("outputs")
    write_hostile_sweep(output)
    page = write_report(output, "hostile", formats=("html",)).html
    assert page is not None
    return page


def test_every_choice_shows_text_and_runs_nothing(open_page: OpenPage, hostile: Path) -> None:
    """Dialogs, messages and requests are refused by `open_page`."""
    with open_page(hostile) as page:
        seen = ""
        for run in options(page, "run"):
            page.select_option("#pick-run", run)
            for step in options(page, "step"):
                page.select_option("#pick-step", step)
                for problem in options(page, "problem"):
                    page.select_option("#pick-problem", problem)
                    seen += page.locator("#prompt").inner_text() + page.locator("#responses").inner_text()
        for name in ("script", "image", "attribute", "comment", "template", "latex"):
            assert TEXTS[name] in seen
        for name in ("right_to_left", "zero_width"):
            assert visible(TEXTS[name]) in seen
        assert page.locator("img, iframe, #samples b, [onmouseover], [onerror]").count() == 0
        tokens = page.locator("#responses [role=option]")
        for place in range(len(TEXTS)):
            tokens.nth(place).hover()
            assert page.locator("#token").is_visible()
        assert page.locator("#token code").inner_text().startswith("javascript:alert(5)")


@pytest.mark.parametrize("width", [390, 1440])
def test_the_layout_holds(open_page: OpenPage, hostile: Path, width: int) -> None:
    with open_page(hostile, width=width) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("document.documentElement.scrollHeight") < 60 * width + 20_000
        for selector in ("h1", "#samples", "#configurations", "#provenance", ".choices select"):
            for part in page.locator(selector).all():
                box = part.bounding_box()
                assert box is not None
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width


def test_tables_of_hostile_text_sort(open_page: OpenPage, hostile: Path) -> None:
    with open_page(hostile) as page:
        for head in page.locator("thead button").all():
            head.click()
            assert head.locator("xpath=..").get_attribute("aria-sort") == "ascending"
