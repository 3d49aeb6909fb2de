"""The page in a real browser: it opens from disk without an error and without a request."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from run_folders import write_sweep

from analysis.report import write_report

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's Chromium is not installed"),
]


def opened(page: Path, profile: Path, *extra: str) -> subprocess.CompletedProcess[str]:
    """Chromium's document after its scripts ran, and what its console said (on stderr)."""
    return subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            f"--user-data-dir={profile}",
            *extra,
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("outputs")
    write_sweep(output, algos=("pg", "grpo", "dppo_tv"), seeds=(0, 1))
    path = write_report(output, "quickstart", formats=("html",)).html
    assert path is not None
    return path


def test_the_page_opens_without_a_console_message(page: Path, tmp_path: Path) -> None:
    done = opened(page, tmp_path / "profile")
    assert ":CONSOLE(" not in done.stderr
    assert "How the numbers were made" in done.stdout


@pytest.mark.parametrize("width", [390, 1440])
def test_only_boxes_that_scroll_are_wider_than_the_window(page: Path, tmp_path: Path, width: int) -> None:
    # A frame gives the page its width exactly; a headless window has a least width of its own.
    probe = tmp_path / "probe.html"
    probe.write_text(
        f"""<iframe id="f" src="{page.as_uri()}" style="width:{width}px;height:900px;border:0"></iframe>
        <script>onload = () => setTimeout(() => {{
          const root = document.getElementById("f").contentDocument.documentElement;
          document.title = "width " + root.clientWidth + " needs " + root.scrollWidth;
        }}, 300);</script>""",
        encoding="utf-8",
    )
    done = opened(
        probe,
        tmp_path / "profile",
        "--allow-file-access-from-files",
        "--window-size=1600,1000",
        "--virtual-time-budget=3000",
    )
    assert f"<title>width {width} needs {width}</title>" in done.stdout


def test_a_click_on_a_column_sorts_the_table_and_one_on_a_figure_opens_it(page: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    probe.write_text(
        f"""<iframe id="f" src="{page.as_uri()}" style="width:1200px;height:900px;border:0"></iframe>
        <script>onload = () => setTimeout(() => {{
          const doc = document.getElementById("f").contentDocument;
          const table = doc.querySelector("table");
          const finals = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[3].dataset.value));
          table.tHead.rows[0].cells[3].firstElementChild.click();
          const rising = finals().every((v, i, all) => i === 0 || all[i - 1] <= v);
          doc.querySelector(".picture").click();
          const large = doc.getElementById("large").open && doc.querySelector("dialog svg") !== null;
          doc.getElementById("theme").click();
          document.title = ["sorted", rising, "opened", large, "theme", doc.documentElement.dataset.theme].join(" ");
        }}, 300);</script>""",
        encoding="utf-8",
    )
    done = opened(probe, tmp_path / "profile", "--allow-file-access-from-files", "--virtual-time-budget=3000")
    assert "<title>sorted true opened true theme dark</title>" in done.stdout
