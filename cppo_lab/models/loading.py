"""Loading policies in Hugging Face format, from a local folder or the hub."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cppo_lab.errors import UserError, first_line
from cppo_lab.hub import offline_if_unreachable
from cppo_lab.manifests import check_manifest
from cppo_lab.models.config import Dtype, Implementation
from cppo_lab.models.folders import check_model_folder, is_local

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Float32 rounding of log-probabilities is about 1e-5 in large vocabularies; a scale or a cap changes whole nats.
_HEAD_TOLERANCE = 1e-2


@dataclass(frozen=True)
class ModelSource:
    """A local folder or a hub id (at `revision`), the device that its model is put on, and who computes it there."""

    path: str
    revision: str | None = None
    device: str = "cpu"
    implementation: Implementation = "transformers"


class Asked(Protocol):
    """What a model is asked: a prompt, or a user's message behind a system message if there is one."""

    @property
    def prompt(self) -> str: ...
    @property
    def is_chat(self) -> bool: ...
    @property
    def system(self) -> str | None: ...


def end_tokens(generation_config: Any) -> tuple[int, ...]:
    """The end tokens in a transformers `GenerationConfig`, or in none."""
    ends = getattr(generation_config, "eos_token_id", None)
    return () if ends is None else tuple(ends) if isinstance(ends, list) else (int(ends),)


@dataclass(frozen=True)
class Policy:
    """A causal language model with its tokenizer. Weights are float32; `dtype` is that of forward passes."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: Dtype = "float32"

    def computing(self) -> AbstractContextManager[object]:
        """The context for forward passes: autocast where the policy computes in bfloat16."""
        import torch

        if self.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.network.device.type, dtype=torch.bfloat16)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids of a plain prompt, with the special tokens that the tokenizer adds."""
        ids: list[int] = self.tokenizer(prompt).input_ids
        return ids

    def problem_ids(self, problem: Asked) -> list[int]:
        """The token ids of a problem's prompt, by the model's chat template if it is a chat prompt."""
        return problem_ids(self.tokenizer, problem)

    @property
    def pad_token(self) -> int:
        """The padding token, or the end token where the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(self.eos_token if pad is None else pad)

    @property
    def eos_token(self) -> int:
        """The tokenizer's end token."""
        return int(self.tokenizer.eos_token_id)

    @property
    def stop_tokens(self) -> tuple[int, ...]:
        """The tokens that end a response besides `eos_token`: those of the model's `generation_config.json`."""
        ends = end_tokens(self.network.generation_config)
        return tuple(end for end in ends if end != self.eos_token)


def problem_ids(tokenizer: PreTrainedTokenizerBase, problem: Asked) -> list[int]:
    """See `Policy.problem_ids`."""
    text = problem.prompt
    if problem.is_chat:
        # The template writes the special tokens itself.
        text = chat_text(tokenizer, text, problem.system)
    ids: list[int] = tokenizer(text, add_special_tokens=not problem.is_chat).input_ids
    return ids


def chat_text(tokenizer: PreTrainedTokenizerBase, message: str, system: str | None = None) -> str:
    """A user's message, behind a system message if given, as the tokenizer's chat template formats it."""
    conversation = [{"role": "user", "content": message}]
    if system is not None:
        conversation.insert(0, {"role": "system", "content": system})
    text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    return text


def load_tokenizer(path: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a local folder or a hub model. Raises UserError where it cannot be loaded."""
    from transformers import AutoTokenizer

    if not is_local(path):
        offline_if_unreachable()
    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, padding_side="left")
    except Exception as error:
        raise _not_loaded(path, error) from error


def _not_loaded(path: str, error: Exception) -> UserError:
    # transformers and the hub client raise many types: offline, no such id, corrupt weights, unknown architecture.
    where = "folder" if is_local(path) else "hub id (or a folder that does not exist)"
    return UserError(f"model {path}: this {where} cannot be loaded: {first_line(error)}")


def load_policy(path: str, *, revision: str | None = None, device: str = "cpu") -> Policy:
    """Load a policy from a local folder, or from the hub at `revision`, in float32 and without dropout.

    A value head saved with the language model (as by TRL's PPO) is ignored. Raises UserError if the folder is
    incomplete, the model cannot be downloaded, weights are missing or not finite, the tokenizer has more tokens than
    the model, the model is a classifier or critic, or its logits are not those of its output head (capped or scaled
    after the head, which the trainer would not apply).
    """
    import torch
    from transformers import AutoModelForCausalLM

    if is_local(path):
        check_model_folder(path)
        check_manifest(Path(path), "restore it, or, if it was changed on purpose, remove manifest.json")
    tokenizer = load_tokenizer(path, revision)
    try:
        network, loaded = AutoModelForCausalLM.from_pretrained(
            path, revision=revision, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:
        raise _not_loaded(path, error) from error
    check_ends(tokenizer, path)
    _check_complete(network, loaded["missing_keys"], path)
    _check_finite(network, path)
    _check_vocabulary(network, tokenizer, path)
    without_dropout(network)
    _check_head(network.to(device).eval(), path)
    return Policy(network, tokenizer)


def check_ends(tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Raise UserError for a tokenizer, of the model at `path`, that has no end-of-sequence token."""
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model {path}: its tokenizer has no end-of-sequence token, so responses could never end."
        )


def _check_complete(network: PreTrainedModel, missing: Collection[str], path: str) -> None:
    # transformers initialises missing tensors at random and only logs a warning.
    if missing:
        raise UserError(
            f"model {path}: its weights are incomplete; missing tensors: {len(missing)}, such as {min(missing)}."
        )
    kinds = getattr(network.config, "architectures", None) or []
    if any("Classification" in kind or "RewardModel" in kind for kind in kinds):
        raise UserError(
            f"model {path}: is a {kinds[0]}, not a language model; give the folder of the policy."
        )


def _check_finite(network: PreTrainedModel, path: str) -> None:
    broken = [name for name, parameter in network.named_parameters() if not parameter.isfinite().all()]
    if broken:
        raise UserError(
            f"model {path}: its weights hold NaN or infinite numbers; such tensors: {len(broken)}, "
            f"such as {broken[0]}."
        )


def _check_vocabulary(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    rows, last = len(network.get_input_embeddings().weight), max(tokenizer.get_vocab().values())
    if last >= rows:
        raise UserError(
            f"model {path}: its tokenizer has the token {tokenizer.convert_ids_to_tokens(last)!r} with ID {last}, "
            f"but the model has only {rows} embeddings; resize them, or give the tokenizer that belongs to it."
        )


def without_dropout(network: torch.nn.Module) -> None:
    """Turn off all dropout: the ratio of two policies must not depend on which units were dropped."""
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def _check_head(network: PreTrainedModel, path: str) -> None:
    import torch

    from cppo_lab.models.logprobs import token_statistics

    cap = getattr(network.config.get_text_config(), "final_logit_softcapping", None)
    if cap:
        raise UserError(
            f"model {path}: its logits are capped after the output head (final_logit_softcapping: {cap:g}), which is "
            "not supported."
        )
    tokens = torch.arange(8, device=network.device).unsqueeze(0) % network.config.get_text_config().vocab_size
    mask = torch.ones_like(tokens, dtype=torch.bool)
    with torch.no_grad():
        own = torch.log_softmax(network(input_ids=tokens).logits[:, :-1].float(), dim=-1)
        ours = token_statistics(network, tokens, mask, 1).logp
    difference = float((own.gather(-1, tokens[:, 1:, None]).squeeze(-1) - ours).abs().max())
    if not difference < _HEAD_TOLERANCE:
        raise UserError(
            f"model {path}: its logits are not those of its output head (log-probabilities differ by up to "
            f"{difference:.2g} nats, so they are capped or scaled after the head), which is not supported."
        )
