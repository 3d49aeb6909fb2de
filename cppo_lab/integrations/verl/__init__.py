"""`trainer.v1.trainer_mode=cppo_lab`: verl's own trainer under a method of the lab.

    VERL_USE_EXTERNAL_MODULES=cppo_lab.integrations.verl

verl imports it in each of its processes, by that variable or by the entry point of an installed lab. It registers the
trainer, engines that return the policy's log-probabilities of the sampler's top K tokens, and a platform without
accelerators (`VERL_PLATFORM=cpu`); nothing of verl is patched. Needs verl at the version that is `TESTED`.
"""

# verl asks for the platform as soon as anything of its engines is imported, so it comes first.
# ruff: noqa: I001
from cppo_lab.integrations.verl import platform
from cppo_lab.integrations.verl import engines
from cppo_lab.integrations.verl.private import TESTED
from cppo_lab.integrations.verl.sync_trainer import TrustRegionTrainer
from cppo_lab.integrations.verl.workers import TrustRegionWorker

__all__ = ["TESTED", "TrustRegionTrainer", "TrustRegionWorker", "engines", "platform"]
