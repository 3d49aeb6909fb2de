"""Makes run tables of methods over a learning rate and other settings, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cppo_lab.analysis.formatting import tidy
from cppo_lab.analysis.run_table import Run, RunTable

RATES = (5e-5, 1e-4, 2e-4, 4e-4)


def run(
    method: str,
    seed: int,
    final: float,
    *,
    panel: str = "",
    kl: float = 0.01,
    masked: float = 0.0,
    **axes: object,
) -> Run:
    """One run; `axes` are its values, with double underscores for dots (`trainer__lr`)."""
    named = {name.replace("__", "."): str(value) for name, value in axes.items()}
    short = [f"{name.split('.')[-1]}={tidy(value)}" for name, value in named.items()]
    place = ", ".join(filter(None, [panel, *short]))
    return Run(
        run_id=f"{method} {place} {seed}",
        panel=place,
        method=method,
        seeds=f"seed={seed}",
        policy=f"policy {seed}",
        status="FINISHED",
        axes={"algo": method, **({"regime": panel.removeprefix("regime=")} if panel else {}), **named},
        start=0.3,
        final=final,
        kl_median=kl,
        masked_share=masked,
        duration_s=30.0,
    )


def over_rates(
    curves: Mapping[str, Sequence[float]],
    *,
    rates: Sequence[float] = RATES,
    seeds: int = 6,
    noise: float = 0.0,
    panel: str = "",
    kl: Mapping[str, float] | None = None,
    draw: int = 0,
) -> RunTable:
    """Methods with these mean final accuracies at the rates; the KL of a run is its method's factor times its rate."""
    generator = np.random.default_rng(draw)
    factors = kl or {}
    runs = [
        run(
            method,
            seed,
            mean + noise * generator.normal(),
            panel=panel,
            kl=factors.get(method, 1.0) * rate,
            trainer__lr=rate,
        )
        for method, means in curves.items()
        for rate, mean in zip(rates, means, strict=True)
        for seed in range(seeds)
    ]
    return RunTable(tuple(runs))
