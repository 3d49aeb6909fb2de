"""One vLLM for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from vllm_models import OneEngine


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneEngine]:
    engine = OneEngine(lambda: tmp_path_factory.mktemp("served"))
    yield engine
    engine.close()
