"""Points at which tests kill a process: each is in the code, and none kills unless asked."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

from tiny_runs import ROOT, clean_environment

from cppo_lab.failpoints import POINTS, VARIABLE

PASS = (
    "from cppo_lab.failpoints import failpoint; [failpoint('store-made') for _ in range(3)]; print('alive')"
)


def test_every_point_is_in_the_code_and_every_one_in_the_code_is_listed() -> None:
    found = {
        name
        for path in (ROOT / "cppo_lab").rglob("*.py")
        for name in re.findall(r'failpoint\("([\w-]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert found == POINTS


def test_process_dies_at_the_point_and_the_time_asked_for_alone() -> None:
    for asked, code in (
        ("", 0),
        ("store-made", -signal.SIGKILL),
        ("store-made:3", -signal.SIGKILL),
        ("store-made:4", 0),
    ):
        done = subprocess.run(
            [sys.executable, "-c", PASS],
            env=clean_environment(**{VARIABLE: asked}),
            capture_output=True,
            check=False,
        )
        assert done.returncode == code
        assert (b"alive" in done.stdout) == (code == 0)
