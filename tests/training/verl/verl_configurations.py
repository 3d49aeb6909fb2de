"""In verl's environment: its own configuration loader on lists of overrides, which come as JSON on standard input."""

import json
import sys

from verl.utils.config import omega_conf_to_dataclass

from cppo_lab.training.verl.driver import verl_config

for overrides in json.load(sys.stdin):
    told = verl_config(overrides)
    # verl's dataclasses check more than its YAML does.
    omega_conf_to_dataclass(told.actor_rollout_ref.rollout)
    print(told.actor_rollout_ref.rollout.name, told.trainer.nnodes)
