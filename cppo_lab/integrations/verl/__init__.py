"""What verl imports in each of its processes: workers that train by the lab's objectives, and what a CPU needs.

    VERL_USE_EXTERNAL_MODULES=cppo_lab.integrations.verl

Importing it registers a worker's engines, a rollout by the lab's sampler (`rollout.name=cppo_lab`) and a platform
without accelerators (`VERL_PLATFORM=cpu`); nothing of verl is patched. Needs verl at the version that is `TESTED`.
"""

# verl asks for the platform as soon as anything of its engines is imported, so it comes first.
# ruff: noqa: I001
from cppo_lab.integrations.verl import platform
from cppo_lab.integrations.verl import engines, rollout
from cppo_lab.integrations.verl.private import TESTED
from cppo_lab.integrations.verl.workers import TrustRegionWorker

__all__ = ["TESTED", "TrustRegionWorker", "engines", "platform", "rollout"]
