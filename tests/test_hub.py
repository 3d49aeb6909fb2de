"""Without the hub its clients are put into offline mode, after one short question."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import datasets
import huggingface_hub.constants
import pytest

from cppo_lab.hub import offline_if_unreachable

NAMES = (
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"),
    *("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
)


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in NAMES:
        # Set first, so that what a test leaves behind is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    offline_if_unreachable.cache_clear()
    yield
    offline_if_unreachable.cache_clear()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The addresses that were asked for; none of them answers."""
    found: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> Any:
        found.append(address)
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    return found


def is_offline() -> bool:
    states = {
        bool(os.environ.get("HF_HUB_OFFLINE")),
        huggingface_hub.constants.HF_HUB_OFFLINE,
        datasets.config.HF_HUB_OFFLINE,
    }
    assert len(states) == 1
    return states.pop()


def test_a_hub_that_does_not_answer_is_asked_once(asked: list[tuple[str, int]]) -> None:
    for _ in range(3):
        offline_if_unreachable()
    assert asked == [("huggingface.co", 443)]
    assert is_offline()


def test_another_endpoint_is_asked_at_its_own_port(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror.local:8080")
    offline_if_unreachable()
    assert asked == [("mirror.local", 8080)]


def test_a_hub_that_answers_stays_online(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        offline_if_unreachable()
    assert not is_offline()


@pytest.mark.parametrize(("name", "value"), [("https_proxy", "http://proxy:3128"), ("HF_HUB_OFFLINE", "1")])
def test_nothing_is_asked_behind_a_proxy_or_offline(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    offline_if_unreachable()
    assert asked == []
