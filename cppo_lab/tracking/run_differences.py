"""How what MLflow says of a run differs from what its folder says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cppo_lab.tracking.mlflow_names import SENT_TAG, TOKEN_TAG, VERSION_TAG
from cppo_lab.tracking.run_content import RunContent

_OWN_TAGS = ("cppo_lab.", VERSION_TAG)


@dataclass(frozen=True)
class StoredRun:
    """What MLflow says of a run. metrics: all values by key and step. files: sizes in bytes by path."""

    status: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[tuple[str, int], Sequence[float]]
    files: Mapping[str, int]


NOTHING = StoredRun("RUNNING", {}, {}, {}, {})
"""A run that was just created."""


@dataclass
class Differences:
    """What has to be sent so that MLflow says what the folder says.

    contradictions: what cannot be mended by sending more, since MLflow never forgets a parameter or a value.
    """

    contradictions: list[str] = field(default_factory=list)
    metrics: list[tuple[str, int]] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    stale_tags: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    status: tuple[str, str] | None = None

    def described(self) -> list[str]:
        """One phrase for each kind of difference."""
        found = list(self.contradictions)
        found += [f"{len(self.metrics)} metric values missing"] if self.metrics else []
        found += [f"{len(self.params)} parameters missing"] if self.params else []
        found += [f"tags {', '.join(changed)}"] if (changed := sorted([*self.tags, *self.stale_tags])) else []
        found += [f"files {', '.join(self.files)}"] if self.files else []
        found += [f"status {self.status[0]}, not {self.status[1]}"] if self.status else []
        return found


def differences(content: RunContent, stored: StoredRun) -> Differences:
    """What MLflow lacks, or has wrong, of a run's content. The times of values are not compared.

    A row that was made again after a resume has the time of its first attempt in MLflow.
    """
    found = Differences()
    other = [key for key, text in content.params.items() if stored.params.get(key, text) != text]
    found.contradictions += [f"parameter {key} is another" for key in other]
    found.params = [key for key in content.params if key not in stored.params]
    for place, value in content.metrics.items():
        there = stored.metrics.get(place)
        if there is None:
            found.metrics.append(place)
        elif len(there) > 1:
            found.contradictions.append(f"{place[0]} has {len(there)} values at step {place[1]}")
        elif not math.isclose(there[0], value.value, rel_tol=1e-12):
            found.contradictions.append(f"{place[0]} is another at step {place[1]}")
    if content.has_ended:
        surplus = stored.metrics.keys() - content.metrics.keys()
        found.contradictions += [f"{key} has a value at step {step}" for key, step in sorted(surplus)[:1]]
    found.tags = [key for key, text in content.tags.items() if stored.tags.get(key) != text]
    found.stale_tags = [
        key
        for key in stored.tags
        if key.startswith(_OWN_TAGS) and key not in content.tags and key not in (TOKEN_TAG, SENT_TAG)
    ]
    found.files = [
        name for name, path in content.files.items() if stored.files.get(name) != path.stat().st_size
    ]
    if stored.status != content.status:
        found.status = (stored.status, content.status)
    return found
