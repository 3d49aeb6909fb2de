"""Pages opened in a real Chromium, driven over its DevTools protocol by Playwright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

OpenPage = Callable[..., AbstractContextManager["Page"]]
HEIGHT = 900


def opener(browser: Browser) -> OpenPage:
    """Opens a file in a window of its own: `with open_page(path, width=390) as page`.

    When the window closes, the page must not have said anything on its console, thrown, opened a dialog, or asked for
    anything but itself and `data:`.
    """

    @contextmanager
    def opened(path: Path, *, width: int = 1440, fragment: str = "", **options: Any) -> Iterator[Page]:
        said: list[str] = []
        asked: list[str] = []
        address = path.resolve().as_uri()
        context = browser.new_context(viewport={"width": width, "height": HEIGHT}, **options)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address + fragment)
        try:
            yield page
        finally:
            context.close()
        assert said == []
        assert {url for url in asked if not url.startswith("data:")} == {address}

    return opened


def options(page: Any, name: str) -> list[str]:
    """The values to choose from in the picker's `name`."""
    return page.locator(f"#pick-{name} option").evaluate_all("all => all.map((one) => one.value)")


def unfold(page: Any) -> None:
    """Open everything that is folded away."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")


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


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace("−", "-"))
