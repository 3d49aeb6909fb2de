"""Where a study's next settings come from: seeded random draws, or one of Optuna's samplers by ask and tell.

Both are functions of the section's seed and of what was tried: a study that was killed asks for the same settings
again.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from typing import Any

from cppo_lab.errors import UserError
from cppo_lab.sweeps.trials import Place, Setting, between, rounded
from cppo_lab.sweeps.tune_section import THRESHOLD, Range, TuneSection

STARTING_DRAWS = 4
"""Trials that a sampler draws at random before it models anything."""


def random_settings(section: TuneSection, lacks_threshold: bool) -> list[Setting]:
    """`trials` distinct draws, the same of each key for every method.

    Raises UserError where the lists of the space have fewer combinations.
    """
    assert section.trials is not None, "checked where the section is read"
    generator = random.Random(section.seed)
    found: dict[Setting, None] = {}
    # A list may repeat a draw; a thousand in a row that are known mean that there is nothing else.
    repeats = 0
    while len(found) < section.trials:
        drawn = {key: _draw(generator, values) for key, values in section.space.items()}
        setting = tuple((k, v) for k, v in drawn.items() if not (lacks_threshold and k == THRESHOLD))
        repeats = repeats + 1 if setting in found else 0
        found[setting] = None
        if repeats >= 1000:
            raise UserError(f"tune: trials={section.trials}: the space has only {len(found)} settings.")
    return list(found)


def _draw(generator: random.Random, values: Range | tuple[float, ...]) -> float:
    if isinstance(values, Range):
        return rounded(between(values, generator.random()))
    return generator.choice(values)


def next_setting(
    section: TuneSection, place: Place, tried: Sequence[tuple[Setting, float]], lacks_threshold: bool
) -> Setting:
    """Optuna's next setting of a method in a panel after those `tried`, each with its mean accuracy.

    Raises UserError without Optuna.
    """
    optuna = _optuna()
    seed = zlib.crc32(repr((section.seed, place, len(tried))).encode())
    sampler = (
        optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTING_DRAWS)
        if section.sampler == "tpe"
        else optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTING_DRAWS)
    )
    space = {
        key: _distribution(optuna, values)
        for key, values in section.space.items()
        if not (lacks_threshold and key == THRESHOLD)
    }
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for setting, accuracy in tried:
        params = dict(setting)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=accuracy))
    asked = study.ask(fixed_distributions=space).params
    return tuple((key, value if _is_listed(section, key) else rounded(value)) for key, value in asked.items())


def _is_listed(section: TuneSection, key: str) -> bool:
    return not isinstance(section.space[key], Range)


def _distribution(optuna: Any, values: Range | tuple[float, ...]) -> Any:
    if isinstance(values, Range):
        # Values are rounded after they were asked for, and may come to lie a little outside.
        return optuna.distributions.FloatDistribution(
            rounded(values.low), rounded(values.high), log=values.log
        )
    return optuna.distributions.CategoricalDistribution(values)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "tune: sampler: tpe and gp need Optuna; install it by pip install 'cppo-lab[tune]', or use grid or random."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def check_sampler(section: TuneSection) -> None:
    """Raise UserError if the section's sampler cannot be used here."""
    if section.is_adaptive:
        _optuna()
