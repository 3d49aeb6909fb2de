"""What every executor is held against."""

from __future__ import annotations

import pytest
from elsewhere import logs, swept


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the runs measure in the lab's own worker processes."""
    output = tmp_path_factory.mktemp("local") / "out"
    done = swept(output)
    assert done.returncode == 0, done.stdout + done.stderr
    return logs(output)
