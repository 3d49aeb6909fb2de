"""Loading policies in Hugging Face format, from a folder or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cppo_lab.errors import UserError
from cppo_lab.policies.folders import check_model_folder, is_local

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Policy:
    """A causal language model with its tokenizer."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids of a prompt, special tokens as the tokenizer adds them."""
        ids: list[int] = self.tokenizer(prompt).input_ids
        return ids

    @property
    def pad_token(self) -> int:
        """The padding token, or the end token where the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(self.eos_token if pad is None else pad)

    @property
    def eos_token(self) -> int:
        """The token that ends a response."""
        return int(self.tokenizer.eos_token_id)


def load_policy(
    path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, device: str = "cpu"
) -> Policy:
    """The policy in a local folder, or of a hub id at `revision`; float32 unless `dtype` says otherwise.

    Raises UserError when the folder is incomplete or the hub cannot give the model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = is_local(path)
    if local:
        check_model_folder(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, padding_side="left")
        network = AutoModelForCausalLM.from_pretrained(
            path, revision=revision, dtype=dtype or torch.float32, attn_implementation="sdpa"
        )
    except Exception as error:
        # transformers and the hub client raise many kinds: offline, no such id, corrupt weights, unknown architecture.
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        where = "folder" if local else "hub id (or a folder that does not exist)"
        raise UserError(f"model {path}: this {where} cannot be loaded: {first}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"model {path}: its tokenizer has no end-of-sequence token, so responses could never end."
        )
    return Policy(network.to(device).eval(), tokenizer)
