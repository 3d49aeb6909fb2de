"""The learner whose updates verl's workers make, without verl: what it makes of what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny_runs import loop_for, tiny_config

from cppo_lab.errors import UserError
from cppo_lab.training.verl.remote import RemoteLearner


@pytest.mark.parametrize(("shift", "is_refused"), [(1e-4, False), (1e-2, True)])
def test_an_update_that_saw_another_policy_ends_the_run(
    shift: float, is_refused: bool, warmed_up: Path
) -> None:
    config = tiny_config(warmed_up, "algo=cppo_binary")
    loop = loop_for(config)
    experience = loop.rollouts.collect(0, 0)
    algo = loop.learner.algo
    learner = RemoteLearner(loop.policy, algo, config.trainer, 0, cluster=cast(Any, None))
    rows = torch.arange(len(experience.rollout.logp))
    batch, _ = loop.learner.token_batch(experience, rows)
    said = replace(batch, logp=experience.old_logp + shift)
    width = said.logp.shape[1]
    if is_refused:
        with pytest.raises(UserError, match=r"log-probabilities that are up to 0\.01 nats from those"):
            learner._check_anchor(said, experience, rows, width)
    else:
        learner._check_anchor(said, experience, rows, width)
