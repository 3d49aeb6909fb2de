"""The page in a real browser: nothing is loaded, everything that can be pressed does what it says, nothing overlaps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browser_pages import OpenPage, choose_masked, number, unfold

pytestmark = pytest.mark.browser

WIDTHS = (390, 768, 1440)
A4_TEXT_WIDTH = 688


@pytest.mark.parametrize("width", WIDTHS)
def test_every_part_is_there_and_every_picture_drawn(open_page: OpenPage, report: Path, width: int) -> None:
    with open_page(report, width=width) as page:
        headings = page.locator("main h2").all_inner_texts()
        links = page.locator("nav a").all_inner_texts()
        assert headings == links
        assert headings[0] == "Verdict"
        is_over_rates = page.locator("#single-rates").count() == 1
        assert page.locator("#verdict table").count() == (2 if is_over_rates else 1)
        assert page.locator("#single-rates[open]").count() == 0
        pictures = page.locator(".plate > .scroll > .picture > *, .view:not([hidden]) .picture > *").all()
        assert len(pictures) >= 5
        for picture in pictures:
            box = picture.bounding_box()
            assert box is not None
            assert box["width"] >= 300
            assert box["height"] >= 100
            assert picture.is_visible()
        assert page.locator("#responses article").first.is_visible()
        assert not page.locator(".samples").is_visible()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_window_and_nothing_overlaps(
    open_page: OpenPage, report: Path, width: int, dark: bool
) -> None:
    with open_page(report, width=width, color_scheme="dark" if dark else "light") as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        groups = (
            "nav .inner > *",
            "nav a",
            ".choices select, .choices .only label",
            "main > section",
            "article",
        )
        for group in groups:
            boxes = [box for one in page.locator(group).all() if (box := one.bounding_box())]
            assert len(boxes) >= 2
            for place, a in enumerate(boxes):
                for b in boxes[place + 1 :]:
                    apart_x = a["x"] + a["width"] <= b["x"] + 1 or b["x"] + b["width"] <= a["x"] + 1
                    apart_y = a["y"] + a["height"] <= b["y"] + 1 or b["y"] + b["height"] <= a["y"] + 1
                    assert apart_x or apart_y, (group, a, b)
        hidden = page.locator("main *").evaluate_all(
            """(all, width) => all.filter((one) => {
              const box = one.getBoundingClientRect();
              return box.width && box.right > width + 1 && !one.closest('.scroll, .numbers');
            }).map((one) => one.outerHTML.slice(0, 120))""",
            width,
        )
        assert hidden == []


def test_accuracy_is_shown_over_the_axis_chosen_by_keyboard_and_the_choice_stays(
    open_page: OpenPage, report: Path
) -> None:
    with open_page(report) as page:
        choice = page.get_by_role("combobox", name="Horizontal axis of Held-out accuracy over training")
        shown = page.locator("#figure-accuracy .view:visible")
        assert shown.get_attribute("data-axis") == "steps"
        choice.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        assert choice.input_value() == "tokens"
        assert shown.count() == 1
        assert shown.get_attribute("data-axis") == "tokens"
        assert "response tokens of the rollouts" in shown.inner_text()
        page.reload()
        assert choice.input_value() == "tokens"
        assert shown.get_attribute("data-axis") == "tokens"
        shown.locator(".picture").click()
        assert page.locator("#large svg").is_visible()


def test_without_scripts_accuracy_is_over_steps_and_there_is_nothing_to_choose(
    open_page: OpenPage, report: Path
) -> None:
    with open_page(report, java_script_enabled=False) as page:
        assert page.locator("#figure-accuracy .view:visible").count() == 1
        assert page.locator("#figure-accuracy .view:visible").get_attribute("data-axis") == "steps"
        assert not page.locator("label.axis").is_visible()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_has_no_known_barrier(open_page: OpenPage, report: Path, width: int, dark: bool) -> None:
    """Contrast, names, roles and keyboard access, by the rules of axe-core."""
    from axe_playwright_python.sync_playwright import Axe

    with open_page(report, width=width, color_scheme="dark" if dark else "light") as page:
        choose_masked(page)
        page.locator("#responses .token").first.focus()
        found = Axe().run(page)
        assert found.response["passes"]
        assert found.violations_count == 0, found.generate_report()


def test_a_table_sorts_by_mouse_and_by_keyboard(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        unfold(page)
        table = page.locator("#table-results")
        head = table.locator("thead th", has_text="final")
        place = head.evaluate("head => head.cellIndex")
        values = "(rows, place) => rows.map((row) => parseFloat(row.cells[place].dataset.value))"
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        rising = table.locator("tbody tr").evaluate_all(values, place)
        assert len(rising) >= 2
        assert rising == sorted(rising)
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert table.locator("tbody tr").evaluate_all(values, place) == rising[::-1]
        table.locator("thead button").first.click()
        assert head.get_attribute("aria-sort") is None
        names = table.locator("tbody th").all_inner_texts()
        assert names == sorted(names)


def test_intervals_sort_by_their_lower_end_and_dashes_come_last(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        unfold(page)
        table = page.locator("#table-results")
        head = table.locator("thead th", has_text="95% interval of difference")
        cells = f"tbody td:nth-child({head.evaluate('head => head.cellIndex') + 1})"
        for press in range(2):
            head.locator("button").click()
            shown = table.locator(cells).all_inner_texts()
            low = [number(text.split(" to ")[0]) for text in shown if text != "–"]
            assert len(low) >= 2
            assert low == sorted(low, reverse=press == 1)
            assert shown[len(low) :] == ["–"] * (len(shown) - len(low))


@pytest.mark.parametrize("width", [390, 1440])
def test_a_figure_opens_large_and_escape_leads_back_to_it(
    open_page: OpenPage, report: Path, width: int
) -> None:
    with open_page(report, width=width) as page:
        button, dialog = page.locator(".picture").first, page.locator("#large")
        button.focus()
        page.keyboard.press("Enter")
        assert dialog.is_visible()
        large, small = dialog.locator("div > *").bounding_box(), button.bounding_box()
        assert large is not None
        assert small is not None
        assert large["width"] > small["width"]
        assert dialog.get_attribute("aria-label") == page.locator(".plate h3").first.inner_text()
        page.keyboard.press("Escape")
        assert not dialog.is_visible()
        assert button.evaluate("button => button === document.activeElement")
        button.click()
        page.locator("#close").click()
        assert not dialog.is_visible()
        button.click()
        page.mouse.click(4, 4)
        assert not dialog.is_visible()


def test_the_theme_can_be_switched_and_follows_the_system_before(open_page: OpenPage, report: Path) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    picture = "getComputedStyle(document.querySelector('.picture svg text, .picture svg path[style*=stroke]')).stroke"
    with open_page(report) as page:
        light, drawn = page.evaluate(paper), page.evaluate(picture)
        page.locator("#theme").click()
        dark = page.evaluate(paper)
        assert sum(json.loads(f"[{dark[4:-1]}]")) < 200 < sum(json.loads(f"[{light[4:-1]}]"))
        assert page.evaluate(picture) != drawn
        page.keyboard.press("Enter")
        assert page.evaluate(paper) == light
    with open_page(report, color_scheme="dark") as page:
        assert page.evaluate(paper) == dark


def test_the_first_stop_of_the_keyboard_leads_past_the_links(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        page.keyboard.press("Tab")
        link = page.locator(":focus")
        assert link.inner_text() == "Skip to the verdict"
        box = link.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert link.evaluate("link => getComputedStyle(link).outlineStyle") == "solid"


def test_without_scripts_the_page_still_has_responses_to_read(open_page: OpenPage, report: Path) -> None:
    with open_page(report, java_script_enabled=False) as page:
        assert not page.locator("#picker").is_visible()
        articles = page.locator(".samples article")
        assert articles.count() >= 2
        assert all(article.is_visible() for article in articles.all())
        assert "ratio" in (page.locator(".samples .tokens span").first.get_attribute("title") or "")


def test_on_paper_it_is_light_whole_and_without_controls(open_page: OpenPage, report: Path) -> None:
    with open_page(report, width=A4_TEXT_WIDTH, color_scheme="dark") as page:
        page.locator("#theme").click()
        page.locator("#theme").click()
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 32, 36)"
        for gone in ("nav", "#picker", "#large"):
            assert not page.locator(gone).is_visible()
        assert page.locator(".samples article").first.is_visible()
        for part in page.locator("table, .picture, pre").all():
            box = part.bounding_box()
            assert box is None or box["x"] + box["width"] <= A4_TEXT_WIDTH + 1, part.get_attribute("id")
        assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_nothing_moves_for_those_who_asked_for_less_motion(open_page: OpenPage, report: Path) -> None:
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    with open_page(report, reduced_motion="reduce") as page:
        assert page.evaluate(behaviour) == "auto"
    with open_page(report) as page:
        assert page.evaluate(behaviour) == "smooth"
