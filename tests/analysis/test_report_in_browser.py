"""The page in a real browser: nothing is loaded, everything that can be pressed does what it says, nothing overlaps.

The tests run on a page of generated runs and, where CPPO_LAB_REPORT names one, on that page as well.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from browser_pages import HEIGHT, OpenPage
from run_folders import Fault, write_sweep

from analysis.report import write_report

pytestmark = pytest.mark.browser

GIVEN = os.environ.get("CPPO_LAB_REPORT")
REASONS = {"": "kept", "threshold": "masked by threshold", "budget": "masked by budget"}
WIDTHS = (390, 768, 1440)
A4_TEXT_WIDTH = 688


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("outputs")
    write_sweep(
        output,
        algos=("pg", "grpo", "dppo_tv", "cppo"),
        seeds=(0, 1),
        faults={
            ("pg", 1): Fault(
                "FAILED", "loss is not finite (nan) at step 9 after a long time of doing well", 9
            )
        },
    )
    page = write_report(output, "quickstart", formats=("html",)).html
    assert page is not None
    return page


@pytest.fixture(params=["generated", *(["given"] if GIVEN else [])])
def report(request: pytest.FixtureRequest) -> Path:
    return Path(str(GIVEN)) if request.param == "given" else request.getfixturevalue("generated")


def kept_rows(report: Path, run: str, step: int) -> list[dict[str, Any]]:
    """What the folder of a run on the page holds of a step."""
    found = list((report.parents[2] / "runs").glob(f"*{run}"))
    if not found:
        pytest.skip(f"the runs of {report} are not beside it, so that there is nothing to compare with")
    path = found[0] / "samples" / f"step_{step:06d}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def options(page: Any, name: str) -> list[str]:
    return page.locator(f"#pick-{name} option").evaluate_all("all => all.map((one) => one.value)")


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def numbers(page: Any) -> dict[str, float]:
    """What the box beside a token says, by name."""
    rows = page.locator("#token dl div").evaluate_all(
        "rows => rows.map((row) => [row.dataset.name, row.querySelector('dd').textContent])"
    )
    return {name: number(value) for name, value in rows}


def choose_masked(page: Any) -> tuple[str, int, int]:
    """Choose a run, step and problem whose responses have masked tokens; returns their values."""
    for run in reversed(options(page, "run")):
        page.select_option("#pick-run", run)
        for step in reversed(options(page, "step")):
            page.select_option("#pick-step", step)
            for problem in options(page, "problem"):
                page.select_option("#pick-problem", problem)
                if page.locator("#responses .threshold").count():
                    return run, int(step), int(problem)
    raise AssertionError("no response on the page has a masked token")


@pytest.mark.parametrize("width", WIDTHS)
def test_every_part_is_there_and_every_picture_drawn(open_page: OpenPage, report: Path, width: int) -> None:
    with open_page(report, width=width) as page:
        headings = page.locator("main h2").all_inner_texts()
        links = page.locator("nav a").all_inner_texts()
        assert headings == links
        assert headings[0] == "Verdict"
        assert page.locator("main section").first.locator("table").count() == 1
        pictures = page.locator(".picture > *").all()
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


def test_another_run_step_and_problem_can_be_chosen(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        seen = set()
        for run in options(page, "run")[-2:]:
            page.select_option("#pick-run", run)
            for step in options(page, "step")[:2]:
                page.select_option("#pick-step", step)
                rows = kept_rows(report, run, int(step))
                prompts = list(dict.fromkeys(row["prompt"] for row in rows))
                for problem in options(page, "problem"):
                    page.select_option("#pick-problem", problem)
                    prompt = prompts[int(problem)]
                    assert page.locator("#prompt pre").inner_text() == prompt.rstrip("\n")
                    assert run in page.locator("#prompt p").inner_text()
                    articles = page.locator("#responses article").count()
                    assert articles == min(8, sum(row["prompt"] == prompt for row in rows))
                    seen.add((run, step, problem))
        assert len(seen) >= 4


def test_one_response_can_be_chosen_and_wrong_or_masked_ones_alone(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        run, step, problem = choose_masked(page)
        rows = kept_rows(report, run, step)
        prompt = list(dict.fromkeys(row["prompt"] for row in rows))[problem]
        mine = [row for row in rows if row["prompt"] == prompt][:8]
        wrong = [row for row in mine if row["reward"] <= 0]
        masked = [row for row in wrong if any((row["tokens"] or {}).get("masked", []))]
        articles = page.locator("#responses article")
        page.check("#only-wrong")
        assert articles.count() == len(wrong)
        page.check("#only-masked")
        assert articles.count() == len(masked)
        page.uncheck("#only-wrong")
        page.uncheck("#only-masked")
        page.select_option("#pick-response", "2")
        assert articles.count() == 1
        assert articles.locator("p").first.inner_text().startswith(f"2 {mine[1]['verdict']}")


def test_a_filter_that_nothing_fits_says_so(open_page: OpenPage, generated: Path) -> None:
    with open_page(generated) as page:
        page.select_option("#pick-run", options(page, "run")[0])
        page.check("#only-masked")
        assert page.locator("#responses article").count() == 0
        assert page.locator("#pick-problem").is_disabled()
        assert "No response of this step is like that." in page.locator("#left-out").inner_text()
        page.uncheck("#only-masked")
        assert page.locator("#responses article").count() > 0


def test_what_was_left_out_is_said(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        run = page.locator("#pick-run").input_value()
        said = page.locator("#left-out").inner_text()
        assert f"{len(options(page, 'step'))} of " in said
        assert f"cppo-lab inspect {run} --step N shows the others" in said


def test_pointing_at_a_token_tells_the_numbers_of_the_run_folder(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        run, step, problem = choose_masked(page)
        rows = kept_rows(report, run, step)
        prompt = list(dict.fromkeys(row["prompt"] for row in rows))[problem]
        mine = [row for row in rows if row["prompt"] == prompt][:8]
        box = page.locator("#token")
        assert not box.is_visible()
        told = set()
        for article, row in zip(page.locator("#responses article").all(), mine, strict=True):
            record = row["tokens"]
            if record is None:
                continue
            reasons = record["masked"][:400]
            for place in sorted({0, *(reasons.index(reason) for reason in set(reasons))}):
                article.locator(".token").nth(place).hover()
                assert box.is_visible()
                names = ("divergence", "weight", "threshold", "ratio", "advantage")
                expected = {name: record[name][place] for name in names if record[name]}
                if record["weight"]:
                    expected["weighted"] = record["weight"][place] * record["divergence"][place]
                if record["delta"] is not None and record["delta"] != record["threshold"][place]:
                    expected["delta"] = record["delta"]
                assert numbers(page) == pytest.approx(expected, rel=2e-3)
                assert (
                    box.locator(".title")
                    .inner_text()
                    .startswith(f"token {place + 1} of {len(record['text'])}")
                )
                assert box.locator(".reason").inner_text() == REASONS[reasons[place]]
                told.add(reasons[place])
        assert {"", "threshold"} <= told
        page.mouse.move(2, 2)
        assert not box.is_visible()


def test_a_masked_token_can_be_told_without_colour(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        choose_masked(page)
        style = "one => getComputedStyle(one).borderBottomStyle"
        assert page.locator("#responses .threshold").first.evaluate(style) == "solid"
        assert page.locator(".legend .budget").evaluate(style) == "dotted"


def test_arrow_keys_go_from_token_to_token(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        choose_masked(page)
        list_box = page.locator("#responses [role=listbox]", has=page.locator(".threshold, .budget")).first
        tokens = list_box.locator("[role=option]")
        assert tokens.evaluate_all("all => all.filter((one) => one.tabIndex === 0).length") == 1
        tokens.first.focus()
        place = "() => [...document.activeElement.parentElement.children].indexOf(document.activeElement)"
        title = page.locator("#token .title")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert page.evaluate(place) == 2
        assert title.inner_text().startswith("token 3 of")
        assert page.locator(":focus").get_attribute("aria-describedby") == "token"
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(place) == 1
        page.keyboard.press("End")
        assert page.evaluate(place) == tokens.count() - 1
        page.keyboard.press("ArrowRight")
        assert page.evaluate(place) == tokens.count() - 1
        page.keyboard.press("Home")
        classes = tokens.evaluate_all("all => all.map((one) => one.className)")
        masked = [i for i, name in enumerate(classes) if name != "token"]
        page.keyboard.press("ArrowDown")
        assert page.evaluate(place) == next(i for i in masked if i > 0)
        assert page.locator("#token .reason").inner_text() != "kept"
        page.keyboard.press("Escape")
        assert not page.locator("#token").is_visible()
        page.keyboard.press("Tab")
        assert not list_box.evaluate("list => list.contains(document.activeElement)")


def test_a_tap_shows_the_numbers_at_the_foot_of_a_phone_and_the_token_above(
    open_page: OpenPage, report: Path
) -> None:
    with open_page(report, width=390, has_touch=True, is_mobile=True, reduced_motion="reduce") as page:
        choose_masked(page)
        token = page.locator("#responses .threshold").last
        token.evaluate("token => token.scrollIntoView({ block: 'end' })")
        before = token.bounding_box()
        assert before is not None
        page.touchscreen.tap(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
        box, at = page.locator("#token").bounding_box(), token.bounding_box()
        assert box is not None
        assert at is not None
        assert before["y"] > box["y"]
        assert (box["x"], box["width"]) == (0, 390)
        assert box["y"] + box["height"] == pytest.approx(HEIGHT, abs=1)
        assert at["y"] + at["height"] <= box["y"]
        assert numbers(page)["ratio"] > 0
        page.locator("h2", has_text="Samples").tap()
        assert not page.locator("#token").is_visible()


def test_a_link_leads_to_a_choice(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        page.select_option("#pick-run", options(page, "run")[-1])
        page.select_option("#pick-step", options(page, "step")[0])
        page.select_option("#pick-problem", options(page, "problem")[-1])
        fragment = page.evaluate("location.hash")
        prompt = page.locator("#prompt").inner_text()
    with open_page(report, fragment=fragment, reduced_motion="reduce") as page:
        assert page.locator("#prompt").inner_text() == prompt
        assert abs(page.locator("#samples").bounding_box()["y"]) < 100
    with open_page(report, fragment="#samples:%E0%A4%A:1:2") as page:
        assert page.locator("#responses article").count() > 0


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
