"""What the tests of the page share: the browser, and the pages.

They run on a page of generated runs and, where CPPO_LAB_REPORT names one, on that page as well.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser_pages import OpenPage, opener
from run_folders import Fault, write_sweep

from cppo_lab.analysis.page.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

GIVEN = os.environ.get("CPPO_LAB_REPORT")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The Chromium of the machine; none is ever downloaded."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip(
            "there is no Chromium: neither chromium, chromium-browser nor google-chrome is on the path"
        )
    playwright_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> OpenPage:
    return opener(chromium)


@pytest.fixture(scope="session")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("outputs")
    write_sweep(
        output,
        algos=("pg", "grpo", "dppo_tv", "cppo"),
        seeds=(0, 1),
        faults={
            ("pg", 1): Fault(
                "FAILED", "loss is not finite (nan) at step 9 after a long time of doing well", 9, True
            )
        },
    )
    page = write_report(output, "quickstart", formats=("html",)).html
    assert page is not None
    return page


@pytest.fixture(params=["generated", *(["given"] if GIVEN else [])])
def report(request: pytest.FixtureRequest) -> Path:
    return Path(str(GIVEN)) if request.param == "given" else request.getfixturevalue("generated")
