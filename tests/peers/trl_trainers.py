"""TRL's own trainers on fabricated log-probabilities: a tiny model is built, and its forward pass is replaced."""

import functools
import tempfile
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from peer_batches import HORIZON, Result, gradient
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

from cppo_lab.objectives import TokenBatch

GROUP = 8
RESPONSE_TOKEN = 2


class _Fabricated:
    """What the trainers would get from a model and a sampler, set by hand before each call."""

    logp: Tensor
    rewards: list[float]
    sampled: tuple[list[list[int]], list[list[int]], list[list[float]]]

    def _get_per_token_logps_and_entropies(self, *arguments: Any, **options: Any) -> tuple[Any, ...]:
        return self.logp, torch.zeros_like(self.logp), None

    def _generate(self, prompts: Sequence[str]) -> tuple[Any, ...]:
        tokens, tool_masks, logp = self.sampled
        texts = ["a"] * len(prompts)
        return [[RESPONSE_TOKEN]] * len(prompts), tokens, tool_masks, texts, logp, {}, None, None


class Fabricated(_Fabricated, GRPOTrainer):
    pass


class FabricatedGMPO(_Fabricated, GMPOTrainer):
    pass


def _tokenizer() -> PreTrainedTokenizerFast:
    words = models.WordLevel({"<pad>": 0, "<eos>": 1, "a": RESPONSE_TOKEN}, unk_token="a")
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token="<pad>", eos_token="<eos>", unk_token="a"
    )


def _model() -> Qwen3ForCausalLM:
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=3,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=8,
            max_position_embeddings=64,
        )
    )


@functools.cache
def trainer(gmpo: bool = False, micro_batches: int = 1, beta: float = 0.0, **settings: Any) -> Fabricated:
    """A trainer under TRL's defaults but for `settings`, in training mode."""
    kind, configuration = (FabricatedGMPO, GMPOConfig) if gmpo else (Fabricated, GRPOConfig)
    made = kind(
        _model(),
        reward_funcs=lambda completions, **columns: made.rewards,
        args=configuration(
            output_dir=tempfile.mkdtemp(),
            use_cpu=True,
            bf16=False,
            report_to=[],
            per_device_train_batch_size=GROUP,
            gradient_accumulation_steps=micro_batches,
            num_generations=GROUP,
            max_completion_length=HORIZON,
            **settings,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a"] * GROUP}),
        processing_class=_tokenizer(),
    )
    # Given to the constructor, a KL coefficient would make it load a reference model by name.
    made.beta = beta
    # The training loop sets this before it calls compute_loss.
    made.current_gradient_accumulation_steps = micro_batches
    return made


def inputs(batch: TokenBatch, tokens_in_minibatch: Tensor | None = None) -> dict[str, Tensor]:
    """What TRL's loss reads; holes come as its tool mask. mu is absent, as it is without vLLM."""
    rows, mask = batch.logp.shape[0], batch.response_mask.long()
    assert batch.old_logp is not None
    assert batch.reference_logp is not None
    return {
        "prompt_ids": torch.full((rows, 1), RESPONSE_TOKEN),
        "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
        "completion_ids": torch.full(batch.logp.shape, RESPONSE_TOKEN),
        "completion_mask": mask.flip(-1).cummax(-1).values.flip(-1),
        "tool_mask": mask,
        "advantages": batch.advantages,
        "old_per_token_logps": batch.old_logp,
        "ref_per_token_logps": batch.reference_logp,
        "num_items_in_batch": mask.sum() if tokens_in_minibatch is None else tokens_in_minibatch,
    }


def loss(made: Fabricated, batch: TokenBatch, given: dict[str, Tensor]) -> Result:
    """The trainer's loss on `given` and its gradient with respect to the batch's log-probabilities."""
    made.logp = batch.logp
    return gradient(made.compute_loss(made.model, given), batch)


def theirs(batch: TokenBatch, **settings: Any) -> Result:
    return loss(trainer(**settings), batch, inputs(batch))


def last_metric(name: str, **settings: Any) -> float:
    """The value that the trainer logged at its last call."""
    return trainer(**settings)._metrics["train"][name][-1]


def scored(batch: TokenBatch, rewards: Tensor, vllm: bool = False, **settings: Any) -> dict[str, Tensor]:
    """TRL's own scoring of a rollout: advantages, and importance ratios of pi_old to mu where `vllm` is on.

    Rows are padded to the longest response, so that the batch's last columns may be missing.
    """
    made = trainer(**settings)
    # Built without vLLM: the flag is all that the scoring asks of it.
    made.use_vllm = vllm
    assert batch.old_logp is not None
    mask = batch.response_mask
    lengths = (mask * torch.arange(1, mask.shape[1] + 1)).amax(-1).tolist()
    made.sampled = (
        [[RESPONSE_TOKEN] * length for length in lengths],
        [mask[row, :length].long().tolist() for row, length in enumerate(lengths)],
        [batch.rollout_logp[row, :length].tolist() for row, length in enumerate(lengths)],
    )
    made.logp = batch.old_logp[:, : max(lengths)]
    made.rewards = rewards.flatten().tolist()
    return made._generate_and_score_completions([{"prompt": "a"}] * len(lengths))
