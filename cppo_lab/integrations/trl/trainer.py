"""TRL's GRPOTrainer with the lab's objective in it: advantages, masks, denominators and loss are the method's."""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import trl
from accelerate.utils import gather_object
from torch import Tensor
from transformers.trainer_utils import get_last_checkpoint
from trl import GRPOConfig, GRPOTrainer

from cppo_lab.diagnostics.metrics import Diagnostics, mismatch
from cppo_lab.integrations.trl.group_rewards import live_groups, response_advantages
from cppo_lab.integrations.trl.refusals import refusals
from cppo_lab.integrations.trl.sampler import Recorder, Sampled, VLLMTopK, recorded, rows_of
from cppo_lab.objectives import (
    AlgoSpec,
    TokenBatch,
    TopK,
    aggregate,
    batch_statistics,
    denominator,
    method,
    token_objective,
)
from cppo_lab.objectives.overlong import overlong_penalty, without_truncated

TESTED = "1.16.0"
"""The version of TRL whose trainer the tests hold this one against."""
METHOD_FILE = "cppo_lab_method.json"
"""In a checkpoint: the method it was trained with."""
_PRIVATE = (
    "_generate_single_turn",
    "_calculate_rewards",
    "_generate_and_score_completions",
    "_get_per_token_logps_and_entropies",
    "_compute_loss",
    "_save_checkpoint",
)
"""What this subclass overrides or calls that TRL does not promise to keep."""
_OF_IMAGES = (
    "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes", "num_tiles",
    "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids",
)  # fmt: skip


def _check_trl() -> None:
    missing = [name for name in _PRIVATE if not hasattr(GRPOTrainer, name)]
    if missing:
        raise ImportError(
            f"TRL {trl.__version__} has no GRPOTrainer.{missing[0]}; install trl=={TESTED}, which this was tested with."
        )
    if trl.__version__ != TESTED:
        warnings.warn(
            f"cppo_lab.integrations.trl was tested with TRL {TESTED}; {trl.__version__} is installed.",
            stacklevel=2,
        )


_check_trl()


class TrustRegionGRPOTrainer(GRPOTrainer):
    """GRPOTrainer that trains under a method of the lab.

    `algo` is the name of a method (`"cppo"`), the path of a method file, or an `AlgoSpec` (`method("cppo",
    delta=0.1)`); everything else is GRPOTrainer's. The method decides its advantages, masks, loss, aggregation and KL
    term, so those settings of GRPOConfig must be left at their defaults. mu, the denominator of the ratio in methods
    anchored at the rollout policy, is what the sampler drew from, by transformers or vLLM. The log has the lab's
    metrics beside TRL's: means over the tokens of an update, averaged over processes.

    Raises ValueError, before any model is loaded, for a method that TRL cannot train or settings that do not go with
    it.
    """

    _tag_names = ("trl", "grpo", "cppo-lab")
    vllm_generation: Any

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        *further: Any,
        algo: str | Path | AlgoSpec,
        **options: Any,
    ) -> None:
        args = copy.copy(args) if args is not None else GRPOConfig()
        self.algo = _algo(algo, args.max_completion_length)
        found = refusals(
            self.algo,
            args,
            own_rollouts=options.get("rollout_func") is not None,
            tools=bool(options.get("tools")) or options.get("environment_factory") is not None,
            processes=args.world_size,
        )
        if found:
            raise ValueError(" ".join(found))
        if self.algo.requirements.needs_reference:
            # TRL then loads the reference model and evaluates it; its own KL term is not used.
            args.beta = self.algo.regulariser.kl_coefficient
        self._sampled: Sampled | None = None
        self._rewards: Tensor | None = None
        self._whole: Tensor | None = None
        self._diagnostics = Diagnostics()
        self._sampled_at = -1
        super().__init__(model, reward_funcs, args, *further, **options)
        if self.use_vllm and self.algo.requirements.needs_topk:
            self.vllm_generation = VLLMTopK(self.vllm_generation, self.algo.requirements.needs_topk)

    # Rollouts

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Sampled tokens with mu of each, [B][T]."""
        if self.use_vllm:
            return super()._generate_single_turn(*args, **kwargs)
        needs = self.algo.requirements
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with recorded(
            model, lambda: Recorder(self.temperature, needs.needs_topk, needs.needs_rollout_entropy)
        ) as recording:
            tokens, _ = super()._generate_single_turn(*args, **kwargs)
        assert recording.sampled is not None, "TRL generates by model.generate"
        self._sampled = recording.sampled
        return tokens, rows_of(recording.sampled.logp, [len(row) for row in tokens])

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards: Tensor = super()._calculate_rewards(*args, **kwargs)
        # Of all processes; None from every function is NaN.
        total = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
        self._rewards = total.masked_fill(rewards.isnan().all(1), torch.nan)
        return rewards

    def _generate_and_score_completions(self, inputs: Sequence[Any]) -> dict[str, Any]:
        """TRL's rollout, with the method's advantages and what its rules read; rows are shuffled later together."""
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if output.get("sampling_per_token_logps") is None:
            raise ValueError(
                "the rollout has no log-probabilities of the sampled tokens, which a trust region is measured from; a "
                "rollout_func must return them as logprobs."
            )
        self._sampled_at = self.state.global_step
        rows = len(inputs)
        first = self.accelerator.process_index * rows
        mine = slice(first, first + rows)
        group = self.num_generations if self.model.training else self.num_generations_eval
        mask = _response_mask(output)
        truncated = self._truncated(output)
        advantages, live = self._advantages(mask, group)
        mask = without_truncated(mask, truncated, self.algo.overlong) & live[mine].unsqueeze(-1)
        # A token that the sampler gave no probability for cannot be compared.
        output["response_mask"] = mask & output["sampling_per_token_logps"].isfinite()
        output["advantages"] = advantages[mine]
        output["prompt_index"] = torch.arange(first, first + rows, device=mask.device) // group
        self._show_advantages(advantages)
        return output | self._of_sampler(output) | self._weight_order(mask)

    def _advantages(self, mask: Tensor, group: int) -> tuple[Tensor, Tensor]:
        """Advantages and whether a response's group is trained on, [B] over all processes."""
        assert self._rewards is not None, "TRL computes rewards before it scores"
        lengths = self.accelerator.gather(mask.sum(-1))
        shaped = self._rewards + overlong_penalty(lengths, self.max_completion_length, self.algo.overlong).to(
            self._rewards
        )
        sampling = self.algo.dynamic_sampling
        live = torch.ones_like(shaped, dtype=torch.bool)
        if sampling.kind == "skip" and self.model.training:
            # TRL knows rewards only, so accuracy is the reward before it is shaped.
            judged = self._rewards if sampling.metric == "accuracy" else shaped
            live = live_groups(judged.view(-1, group)).repeat_interleave(group)
        return response_advantages(shaped.view(-1, group), self.algo.advantage), live & ~shaped.isnan()

    def _truncated(self, output: Mapping[str, Tensor]) -> Tensor:
        """Responses [B] that end by no end-of-sequence token."""
        ids, lengths = output["completion_ids"], output["completion_mask"].sum(-1)
        last = ids.gather(-1, (lengths - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
        ends = torch.tensor([*self.eos_token_ids, self._tokenizer.pad_token_id], device=ids.device)
        return ~torch.isin(last, ends)

    def _of_sampler(self, output: Mapping[str, Tensor]) -> dict[str, Tensor]:
        needs, ids = self.algo.requirements, output["completion_ids"]
        width = ids.shape[1]
        if self.use_vllm and needs.needs_topk:
            topk_ids, topk_logp = self.vllm_generation.topk(width, self._tokenizer.pad_token_id, ids.device)
            return {"rollout_topk_ids": topk_ids, "rollout_topk_logp": topk_logp}
        if self.use_vllm or self._sampled is None:
            return {}
        known = {
            "rollout_topk_ids": self._sampled.topk_ids,
            "rollout_topk_logp": self._sampled.topk_logp,
            "rollout_entropy": self._sampled.entropy,
        }
        return {name: _to_width(value, width) for name, value in known.items() if value is not None}

    def _weight_order(self, mask: Tensor) -> dict[str, Tensor]:
        if not self.algo.requirements.needs_weight_order:
            return {}
        keys = torch.rand((mask.shape[0], self.max_completion_length), generator=self._generator())
        return {"weight_order": _to_width(keys.to(mask.device), mask.shape[1])}

    def _generator(self) -> torch.Generator:
        """A stream of its own for every update and process, so that nothing else's draws change."""
        place = self.state.global_step * self.accelerator.num_processes + self.accelerator.process_index
        return torch.Generator().manual_seed((self.args.seed << 32) + place)

    def _show_advantages(self, advantages: Tensor) -> None:
        """The method's advantages in TRL's table of completions, in place of TRL's own."""
        logged = self._logs["advantages"]
        for _ in range(min(len(logged), len(advantages))):
            logged.pop()
        logged.extend(advantages.tolist())

    # Updates

    def _compute_loss(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        batch, auxiliary = self._token_batch(model, inputs)
        place = self._place()
        statistics = None
        if self.algo.requirements.needs_statistics:
            statistics = batch_statistics([batch], self.algo, **place)
        objective = token_objective(batch, self.algo, **place, statistics=statistics)
        training = self.model.training
        # Before the first update there is no such number, and evaluation accumulates nothing.
        accumulation = self._accumulated if training else 1
        at = self._step % accumulation
        if at == 0:
            self._whole, self._diagnostics = self._denominator(batch.response_mask), Diagnostics()
        assert self._whole is not None, "the first micro-batch of an update sets it"
        share = aggregate(objective.loss, batch.response_mask, self.algo.aggregation, self._whole)
        # Processes average their gradients, and the denominator is that of all of them.
        loss = share * (self.accelerator.num_processes if training else 1)
        if auxiliary is not None:
            loss = loss + self.router_aux_loss_coef * auxiliary / accumulation
        self._diagnostics.update(batch, objective)
        if at == accumulation - 1:
            self._log_metrics(self._diagnostics.result())
        if training and self.state.global_step == self._sampled_at:
            self._log_metrics(mismatch(batch.logp.detach(), batch.rollout_logp, batch.response_mask))
        return loss

    def _token_batch(self, model: Any, inputs: Mapping[str, Any]) -> tuple[TokenBatch, Tensor | None]:
        """What the rules read of one micro-batch, and a mixture of experts' balancing loss."""
        needs = self.algo.requirements
        logp, entropy, topk, collision, auxiliary = (
            self._from_logits(model, inputs)
            if needs.needs_topk or needs.needs_collision
            else self._from_trl(model, inputs)
        )
        mask: Tensor = inputs["response_mask"]
        order = None
        if needs.needs_selection_order:
            order = torch.rand(mask.T.shape, generator=self._generator()).T.to(mask.device)
        old = inputs.get("old_per_token_logps")
        batch = TokenBatch(
            logp=logp,
            rollout_logp=inputs["sampling_per_token_logps"],
            advantages=inputs["advantages"],
            response_mask=mask,
            # Without it, TRL says that nothing was updated since the rollout.
            old_logp=logp.detach() if old is None and needs.needs_old_logp else old,
            reference_logp=inputs.get("ref_per_token_logps"),
            entropy=entropy,
            topk=topk,
            weight_order=inputs.get("weight_order"),
            rollout_entropy=inputs.get("rollout_entropy"),
            version_lag=torch.zeros_like(inputs["completion_ids"]) if needs.needs_version_lag else None,
            selection_order=order,
            prompt=inputs["prompt_index"],
            collision=collision,
            vocabulary=self.model.config.get_text_config().vocab_size,
        )
        return batch, auxiliary

    def _from_trl(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """logp and entropy [B, T] by TRL's own forward pass."""
        logp, entropy, auxiliary = self._get_per_token_logps_and_entropies(
            model,
            *_tokens(inputs),
            inputs["completion_ids"].shape[1],
            compute_entropy=True,
            compute_aux_loss=self.aux_loss_enabled,
            **{name: inputs.get(name) for name in _OF_IMAGES},
        )
        bonus = self.algo.requirements.needs_entropy
        return logp, entropy if bonus else entropy.detach(), None, None, auxiliary

    def _from_logits(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Any, ...]:
        """The same with the policy's log-probabilities of the sampler's K tokens, from the whole logits."""
        images = [name for name in _OF_IMAGES if inputs.get(name) is not None]
        if images:
            raise ValueError(
                f"{self.algo.name} reads whole distributions, which is not supported for images."
            )
        needs, responses = self.algo.requirements, inputs["completion_ids"]
        ids, attention = _tokens(inputs)
        options = {"output_router_logits": True} if self.aux_loss_enabled else {}
        with self.accelerator.autocast():
            output = model(
                input_ids=ids, attention_mask=attention, logits_to_keep=responses.shape[1] + 1, **options
            )
        logits = output.logits[:, :-1].float() / self.temperature
        total = logits.logsumexp(-1, keepdim=True)
        logp = (logits.gather(-1, responses.unsqueeze(-1)) - total).squeeze(-1)
        fixed, at = logits.detach(), total.detach()
        entropy = _entropy(logits, total) if needs.needs_entropy else _entropy(fixed, at)
        topk = None
        if needs.needs_topk:
            topk_ids, topk_logp = inputs["rollout_topk_ids"], inputs["rollout_topk_logp"]
            empty = topk_logp.isneginf()
            found = (topk_ids == responses.unsqueeze(-1)) & ~empty
            now = (fixed.gather(-1, topk_ids) - at).masked_fill(empty, float("-inf"))
            topk = TopK(topk_logp, now, found.any(-1))
        collision = (2 * (fixed - at)).exp().sum(-1) if needs.needs_collision else None
        return logp, entropy, topk, collision, output.aux_loss if self.aux_loss_enabled else None

    def _denominator(self, mask: Tensor) -> Tensor:
        """That of the whole update, over all processes and accumulated micro-batches; of `mask` [B, T] in evaluation.

        Rollouts are buffered, so the micro-batches of an update are known at its first one.
        """
        if not self.model.training:
            return denominator(mask, self.algo.aggregation)
        first = self._step % self.args.steps_per_generation
        masks = [each["response_mask"] for each in self._buffered_inputs[first:][: self._accumulated]]
        mine = torch.stack([denominator(each, self.algo.aggregation) * each.any() for each in masks]).sum()
        return self.accelerator.gather(mine.to(self.accelerator.device)).sum().clamp(min=1)

    @property
    def _accumulated(self) -> int:
        return int(self.current_gradient_accumulation_steps)

    def _place(self) -> dict[str, Any]:
        """Where schedules of thresholds are; a step is a rollout, as in the lab."""
        every = self.args.steps_per_generation * self.num_iterations
        accumulation = self.args.gradient_accumulation_steps
        step, steps = (
            updates * accumulation // every for updates in (self.state.global_step, self.state.max_steps)
        )
        return {"step": step, "progress": min(1.0, step / max(1, steps - 1))}

    def _log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Append metrics to TRL's, each averaged over the processes that know it."""
        of_all: list[Mapping[str, float]] = gather_object([dict(metrics)])
        kept = self._metrics["train" if self.model.training else "eval"]
        for name in dict.fromkeys(name for each in of_all for name in each):
            values = [each[name] for each in of_all if not math.isnan(each.get(name, math.nan))]
            if values:
                kept[name].append(sum(values) / len(values))

    # Checkpoints

    def train(self, resume_from_checkpoint: str | bool | None = None, **options: Any) -> Any:
        """Trainer.train. Raises ValueError for a checkpoint that training would not continue from as if uninterrupted:
        one from within a rollout, whose responses it does not hold, or of another method.
        """
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        if folder:
            self._check_checkpoint(Path(str(folder)))
        return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)

    def _check_checkpoint(self, folder: Path) -> None:
        every = self.args.steps_per_generation * self.num_iterations
        updates = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
        if updates * self.args.gradient_accumulation_steps % every:
            per_rollout = every // self.args.gradient_accumulation_steps
            raise ValueError(
                f"{folder}: was written in the middle of a rollout, whose responses it does not hold, so resuming "
                f"would sample new ones; save_steps must be a multiple of {per_rollout}, the updates per rollout."
            )
        written = folder / METHOD_FILE
        if written.is_file() and json.loads(written.read_text(encoding="utf-8")) != self._method():
            raise ValueError(
                f"{folder}: was trained with another method than {self.algo.name}, or other values of it."
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial), f"checkpoint-{self.state.global_step}")
            (folder / METHOD_FILE).write_text(json.dumps(self._method(), indent=2) + "\n", encoding="utf-8")

    def _method(self) -> Any:
        # As JSON gives it back: lists for tuples.
        return json.loads(json.dumps(self.algo.as_dict(), default=lambda part: part.as_dict()))


def _algo(algo: str | Path | AlgoSpec, max_response_length: int | None) -> AlgoSpec:
    if not isinstance(algo, AlgoSpec):
        return method(str(algo), max_response_length=max_response_length)
    return algo if max_response_length is None else algo.with_horizon(max_response_length)


def _tokens(inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask [B, P + T] of prompts and responses."""
    return (
        torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
        torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
    )


def _response_mask(output: Mapping[str, Tensor]) -> Tensor:
    """The tokens [B, T] that the policy itself emitted."""
    mask = output["completion_mask"].bool()
    return mask & output["tool_mask"].bool() if "tool_mask" in output else mask


def _entropy(logits: Tensor, total: Tensor) -> Tensor:
    """In nats, [B, T], from logits [B, T, V] and their log-sum-exp; row by row, since it needs their size again."""
    rows = [(its - at).exp() * (at - its) for its, at in zip(logits, total, strict=True)]
    return torch.stack([row.sum(-1) for row in rows])


def _to_width(values: Tensor, width: int) -> Tensor:
    """`values` [B, T, ...] cut or padded by zeros to `width` columns."""
    short = width - values.shape[1]
    if short <= 0:
        return values[:, :width]
    return torch.cat([values, values.new_zeros(values.shape[0], short, *values.shape[2:])], 1)
