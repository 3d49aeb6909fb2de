"""The lab's training loop with its passes through the model made by verl's workers. Imports neither verl nor Ray."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cppo_lab.diagnostics.masked_tokens import MaskedTokenCounter
from cppo_lab.errors import UserError
from cppo_lab.models.loading import Policy
from cppo_lab.objectives.advantages import zero_variance
from cppo_lab.objectives.aggregation import denominator
from cppo_lab.objectives.batch import TokenBatch
from cppo_lab.objectives.objective import token_objective
from cppo_lab.objectives.spec import AlgoSpec
from cppo_lab.rollouts.rollout import Rollout
from cppo_lab.training.checkpoint import write_folder
from cppo_lab.training.experience import Experience
from cppo_lab.training.loop import HeldOut, TrainingLoop
from cppo_lab.training.rollout_phase import RolloutPhase
from cppo_lab.training.state_file import write_state
from cppo_lab.training.step_record import StepRecord
from cppo_lab.training.update import Diverged, Learner

if TYPE_CHECKING:
    from cppo_lab.config.schema import Trainer
    from cppo_lab.tracking.run_folder import RunFolder
    from cppo_lab.training.activity import OnActivity
    from cppo_lab.training.verl.cluster import Cluster

_REREAD_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.5}
"""How far two readings of the same tokens by the same weights may be apart, in nats: passes are cut differently."""


@dataclass(frozen=True)
class RemoteRollouts(RolloutPhase):
    """A rollout phase whose log-probabilities verl's workers read again."""

    cluster: Cluster | None = None

    def _recomputed(self, network: nn.Module, rollout: Rollout) -> Tensor:
        assert self.cluster is not None, "the run is verl's"
        is_reference = network is self.reference
        return self.cluster.logp(rollout, temperature=self.settings.temperature, reference=is_reference)


class RemoteLearner(Learner):
    """A learner whose updates verl's workers make; what is recorded of them is computed here, from what they return.

    `policy.network` has no weights: it says what the model is.
    """

    def __init__(
        self, policy: Policy, algo: AlgoSpec, settings: Trainer, minibatch_seed: int, cluster: Cluster
    ) -> None:
        super().__init__(policy, algo, settings, minibatch_seed)
        self.cluster = cluster

    def _reread(self, rollout: Rollout) -> Tensor:
        return self.cluster.logp(rollout, temperature=self.settings.temperature)

    def _update(
        self, experience: Experience, rows: Tensor, step: int, factor: float, taken: StepRecord
    ) -> None:
        from cppo_lab.integrations.verl.updates import Update

        algo, mask = self.algo, experience.loss_mask[rows]
        if self._has_no_gradient(experience):
            # Nothing is to be learnt from this rollout, and Adam's momentum alone would move the policy.
            return
        rollout = experience.rollout.rows(rows)
        width = rollout.response_mask.shape[1]
        columns = self._columns(experience, rollout, rows, width)
        whole = float(denominator(mask, algo.aggregation))
        lr = self.settings.lr * factor
        metadata = {
            "temperature": self.settings.temperature,
            "calculate_sum_pi_squared": algo.requirements.needs_collision,
            "vocabulary": self.vocabulary,
        }
        said = self.cluster.update(rollout, columns, Update(lr, whole, self.place(step)), metadata)
        loss, norm = float(said["loss"][0]), float(said["grad_norm"][0])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise Diverged(
                f"diverged at step {step + 1}, update {self.updates + 1}: loss {loss:g}, gradient norm {norm:g}"
            )
        batch = self._batch(experience, rollout, rows, said)
        if self.updates == experience.rollout.policy_version:
            self._check_anchor(batch, experience, rows, width)
        taken.observe(experience, rows, batch, token_objective(batch, algo, **self.place(step)))
        taken.lr = lr
        self.updates += 1
        self.trained_tokens += int(mask.sum())
        taken.add(loss, norm, None)

    def _has_no_gradient(self, experience: Experience) -> bool:
        regulariser = self.algo.regulariser
        pulls = regulariser.kl_coefficient or regulariser.entropy_coefficient
        return not pulls and bool(zero_variance(experience.rewards).all())

    @property
    def vocabulary(self) -> int:
        """The number of tokens that could be sampled."""
        return int(self.policy.network.get_output_embeddings().weight.shape[0])

    def _columns(
        self, experience: Experience, rollout: Rollout, rows: Tensor, width: int
    ) -> dict[str, Tensor]:
        """What the rules read of the rows besides the policy, by the names under which it travels."""
        needs = self.algo.requirements
        known: dict[str, Tensor | None] = {
            "rollout_logp": rollout.logp,
            "advantages": experience.advantages[rows, :width],
            "token_mask": experience.loss_mask[rows, :width],
            "old_logp": _cut(experience.old_logp, rows, width),
            "reference_logp": _cut(experience.reference_logp, rows, width),
            "weight_order": _cut(experience.weight_order, rows, width),
            "rollout_entropy": rollout.entropy,
            "version_lag": torch.full_like(rollout.responses, experience.version_lag),
            "prompt": experience.prompts[rows],
        }
        if needs.needs_selection_order:
            known["selection_order"] = _cut(self._selection_order(experience), rows, width)
        if needs.needs_topk:
            known |= {
                "topk_ids": rollout.topk_ids,
                "rollout_topk_logp": rollout.topk_logp,
                "sampled": rollout.responses,
            }
        return {name: values for name, values in known.items() if values is not None}

    def _batch(
        self, experience: Experience, rollout: Rollout, rows: Tensor, said: dict[str, Tensor]
    ) -> TokenBatch:
        """The rows as the workers saw them, for what is recorded."""
        from cppo_lab.integrations.verl.updates import token_batch

        width = rollout.response_mask.shape[1]
        columns: dict[str, Any] = self._columns(experience, rollout, rows, width)
        columns["vocabulary"] = self.vocabulary
        answers = (said.get(name) for name in ("entropy", "collision", "topk_logp"))
        return token_batch(self.algo, columns, said["logp"], *answers)

    def _check_anchor(self, batch: TokenBatch, experience: Experience, rows: Tensor, width: int) -> None:
        """Raise UserError where the first update after a rollout saw another policy than the one that was reread."""
        mask = experience.loss_mask[rows, :width]
        gap = float((batch.logp - experience.old_logp[rows, :width]).abs()[mask].max()) if mask.any() else 0.0
        if gap > _REREAD_TOLERANCE[self.policy.dtype]:
            raise UserError(
                f"verl's first update saw log-probabilities that are up to {gap:.3g} nats from those that it read "
                "before it; its loss or its weights are not the ones that the lab gave it."
            )


class RemoteLoop(TrainingLoop):
    """The loop whose weights verl's workers hold."""

    def __init__(
        self,
        settings: Trainer,
        learner: RemoteLearner,
        rollouts: RemoteRollouts,
        held_out: HeldOut,
        folder: RunFolder,
        on_activity: OnActivity | None = None,
    ) -> None:
        super().__init__(settings, learner, rollouts, held_out, folder, on_activity=on_activity)
        self.cluster = learner.cluster
        self.masked_tokens = MaskedTokenCounter(learner.vocabulary)

    def _save(self, path: Path, state: dict[str, Any] | None = None) -> None:
        def fill(folder: Path) -> None:
            self.cluster.save(folder, to_resume=state is not None)
            self.policy.tokenizer.save_pretrained(folder)
            if state is not None:
                write_state(folder, state)

        write_folder(path, fill)

    def _resume(self) -> bool:
        if not super()._resume():
            return False
        self.cluster.load(self.folder.checkpoints()[-1][1])
        return True


def _cut(columns: Tensor | None, rows: Tensor, width: int) -> Tensor | None:
    return None if columns is None else columns[rows, :width]
