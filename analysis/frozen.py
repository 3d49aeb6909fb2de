"""Frozen claims in words, for the report and the page of reproductions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cppo_lab.sweeps.frozen_claims import SHOWN


def frozen_in_words(frozen: Mapping[str, Any], first_run_at: str | None = None) -> str:
    """When the claims were frozen, with their hash, and when the first run began; empty where none were frozen."""
    if not frozen:
        return ""
    began = first_run_at or frozen.get("first_run_at")
    said = f"claims frozen at {_minute(frozen['frozen_at'])} UTC, hash {frozen['claims_sha256'][:SHOWN]}"
    if not began:
        return said
    if began < frozen["frozen_at"]:
        return f"{said}, AFTER the first test run at {_minute(began)} UTC"
    return f"{said}, before the first test run at {_minute(began)} UTC"


def broken_in_words(frozen: Mapping[str, Any], first_run_at: str | None = None) -> str:
    """What makes frozen claims worth less than they look: a change since, or a run before. Empty where nothing does."""
    if not frozen:
        return ""
    began = first_run_at or frozen.get("first_run_at")
    found = []
    if frozen.get("changed"):
        changed = " and ".join(frozen["changed"])
        found.append(f"CHANGED SINCE THEY WERE FROZEN: {changed}; the verdicts are not on what was planned")
    if began and began < frozen["frozen_at"]:
        found.append("THE FIRST RUN BEGAN BEFORE THE CLAIMS WERE FROZEN")
    return f"Claims: {'; '.join(found)}." if found else ""


def _minute(stamp: str) -> str:
    return stamp[:16].replace("T", " ")
