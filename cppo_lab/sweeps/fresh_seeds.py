"""Fresh seeds of a sweep: its runs at seeds that nobody has used yet, each beside the setting that it repeats."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import count, islice

from cppo_lab.errors import UserError
from cppo_lab.sweeps.expansion import values_set
from cppo_lab.sweeps.sweep import PlannedRun, Sweep

SEED = "seed"
FIRST_FRESH_SEED = 1000
"""The first seed that `cppo-lab reproduce` takes. The lab's own sweeps, tuning included, stay below it."""

Setting = frozenset[tuple[str, str]]
"""What a run's overrides set, its seed left out: equal for runs of a sweep that differ in `seed` alone."""


def fresh_seeds(taken: Collection[str], number: int, first: int = FIRST_FRESH_SEED) -> list[int]:
    """The `number` smallest seeds from `first` on that are not among `taken`: the same on every machine."""
    return list(islice((seed for seed in count(first) if str(seed) not in taken), number))


def planned_seeds(sweep: Sweep) -> set[str]:
    """The values of `seed` that a sweep plans. Raises UserError for a sweep without that axis."""
    if not all(SEED in values_set(run.overrides) for run in sweep.runs):
        raise UserError(f"sweep {sweep.name}: sets no {SEED} for its runs, so there are no others to draw.")
    return {values_set(run.overrides)[SEED] for run in sweep.runs}


def seeds_override(seeds: Sequence[int]) -> str:
    """The override that gives every run of a sweep these seeds instead of its own."""
    return f"{SEED}={','.join(map(str, seeds))}"


def setting(run: PlannedRun) -> Setting:
    """What the run shares with the runs of other seeds."""
    return frozenset((key, value) for key, value in values_set(run.overrides).items() if key != SEED)
