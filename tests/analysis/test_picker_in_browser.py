"""The picker of responses in a real browser: what it shows is what the run folders hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browser_pages import HEIGHT, OpenPage, choose_masked, number, options

pytestmark = pytest.mark.browser

REASONS = {"": "kept", "threshold": "masked by threshold", "budget": "masked by budget"}


def kept_rows(report: Path, run: str, step: int) -> list[dict[str, Any]]:
    """What the folder of a run on the page holds of a step."""
    found = list((report.parents[2] / "runs").glob(f"*{run}"))
    if not found:
        pytest.skip(f"the runs of {report} are not beside it, so that there is nothing to compare with")
    path = found[0] / "samples" / f"step_{step:06d}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def numbers(page: Any) -> dict[str, float]:
    """What the box beside a token says, by name."""
    rows = page.locator("#token dl div").evaluate_all(
        "rows => rows.map((row) => [row.dataset.name, row.querySelector('dd').textContent])"
    )
    return {name: number(value) for name, value in rows}


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
        assert "No response at this step matches." in page.locator("#left-out").inner_text()
        page.uncheck("#only-masked")
        assert page.locator("#responses article").count() > 0


def test_what_was_left_out_is_said(open_page: OpenPage, report: Path) -> None:
    with open_page(report) as page:
        run = page.locator("#pick-run").input_value()
        said = page.locator("#left-out").inner_text()
        assert f"{len(options(page, 'step'))} of " in said
        assert f"cppo-lab inspect {run} --step N shows the rest" in said


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
