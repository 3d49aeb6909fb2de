"""LoRA (Hu et al. 2021, arXiv:2106.09685) by peft: adapters in a network, and the plain network that they amount to."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cppo_lab.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

_NAME = "default"
ADAPTER_FOLDER = "adapter"
"""In a checkpoint, beside the plain weights: the adapter alone, in peft's format."""


@dataclass(frozen=True)
class Lora:
    """A low-rank update `alpha` / `rank` B A of the weights of `targets`: names of modules, or `all-linear`.

    A is drawn with `seed`, and B is zero, so that training starts from the network as it is.
    """

    rank: int
    alpha: float
    targets: str | Sequence[str]
    seed: int


def add_adapter(network: PreTrainedModel, lora: Lora) -> None:
    """Put an adapter into `network`, whose other parameters are frozen.

    Raises UserError without peft, and where the network has none of the targets.
    """
    import torch

    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UserError(
            f"trainer.lora_rank={lora.rank}: needs peft; install it with pip install 'cppo-lab[lora]'."
        ) from error
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    config = LoraConfig(
        r=lora.rank, lora_alpha=cast(int, lora.alpha), target_modules=targets, lora_dropout=0.0, task_type="CAUSAL_LM"
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(lora.seed)
        try:
            network.add_adapter(config, _NAME)
        except ValueError as error:
            raise UserError(f"trainer.lora_targets={targets}: {first_line(error)}") from error


def has_adapter(network: nn.Module) -> bool:
    """Whether `add_adapter` has put an adapter into `network`."""
    return bool(getattr(network, "_hf_peft_config_loaded", False))


def plain_parameters(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Name and value of every parameter of the network without adapters that computes the same."""
    if not has_adapter(network):
        yield from network.named_parameters()
        return
    adapted = {f"{name}.base_layer.weight": layer for name, layer in _adapted(network)}
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            continue
        layer = adapted.get(name)
        change = 0 if layer is None else layer.get_delta_weight(_NAME)
        yield name.replace(".base_layer.", "."), parameter + change


def plain_copy(network: nn.Module) -> nn.Module:
    """A copy of the network without adapters, which computes the same."""
    import torch

    copied = copy.deepcopy(network)
    if not has_adapter(network):
        return copied
    with torch.no_grad():
        for name, layer in list(_adapted(copied)):
            layer.merge()
            holder, _, last = name.rpartition(".")
            setattr(copied.get_submodule(holder), last, layer.get_base_layer())
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
    setattr(copied, "_hf_peft_config_loaded", False)  # noqa: B010
    return copied


def save_adapter(network: PreTrainedModel, folder: Path) -> None:
    """Write the adapter alone, as peft's `PeftModel.from_pretrained` reads it."""
    network.save_pretrained(folder)


def load_adapter(network: nn.Module, folder: Path) -> None:
    """Give the network's adapter the weights of `folder`."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    weights = load_file(folder / "adapter_model.safetensors")
    own = {name.removeprefix("base_model.model."): each for name, each in weights.items()}
    found: Any = set_peft_model_state_dict(network, own, _NAME)
    assert not found.unexpected_keys, found.unexpected_keys


def _adapted(network: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and module of every layer with an adapter."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in network.named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module
