"""Model folders that are not, or not only, a language model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_runs import starting, tiny_config

from cppo_lab.errors import UserError
from cppo_lab.manifests import MANIFEST_FILE
from cppo_lab.models.loading import load_policy
from cppo_lab.training.checkpoint import save_checkpoint


@pytest.fixture
def model(output: Path, tmp_path: Path) -> Path:
    """A model that nobody has listed the files of: the lab's own refuse any change."""
    save_checkpoint(tmp_path / "model", starting(tiny_config(output)))
    (tmp_path / "model" / MANIFEST_FILE).unlink()
    return tmp_path / "model"


def change_weights(model: Path, drop: str | None = None, **more: torch.Tensor) -> None:
    weights = load_file(model / "model.safetensors")
    kept = {key: value for key, value in weights.items() if drop is None or drop not in key}
    save_file(kept | more, model / "model.safetensors", metadata={"format": "pt"})


def test_a_value_head_beside_the_model_changes_nothing(model: Path) -> None:
    tokens = torch.arange(5, 12).unsqueeze(0)
    before = load_policy(str(model)).network(tokens).logits
    head = {"v_head.summary.weight": torch.randn(1, 64), "v_head.summary.bias": torch.randn(1)}
    change_weights(model, **head)
    assert torch.equal(load_policy(str(model)).network(tokens).logits, before)


def test_missing_weights_are_not_filled_with_random_numbers(model: Path) -> None:
    change_weights(model, drop="layers.0.mlp.down_proj")
    with pytest.raises(UserError, match=r"missing tensors: 1, such as .*down_proj"):
        load_policy(str(model))


def test_a_critic_is_no_language_model(model: Path) -> None:
    config = (model / "config.json").read_text(encoding="utf-8")
    (model / "config.json").write_text(
        config.replace("Qwen3ForCausalLM", "Qwen3ForTokenClassification"), encoding="utf-8"
    )
    with pytest.raises(UserError, match="Qwen3ForTokenClassification, not a language model"):
        load_policy(str(model))


@pytest.mark.parametrize("beside", [True, False], ids=["beside its base", "alone"])
def test_an_adapter_is_never_ignored(model: Path, beside: bool) -> None:
    (model / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    if not beside:
        (model / "config.json").unlink()
    sentence = "holds a LoRA adapter beside a base model" if beside else r"holds a LoRA adapter \("
    with pytest.raises(UserError, match=rf"{sentence}.*merge_and_unload"):
        load_policy(str(model))


def test_weights_that_are_no_numbers_are_refused(model: Path) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    broken = load_file(model / "model.safetensors")[name]
    broken[0, 0] = torch.nan
    change_weights(model, **{name: broken})
    with pytest.raises(UserError, match=r"NaN or infinite numbers; such tensors: 1, such as .*down_proj"):
        load_policy(str(model))


def test_a_git_lfs_pointer_is_no_weights(model: Path) -> None:
    (model / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match=r"model\.safetensors is a Git LFS pointer .* git lfs pull"):
        load_policy(str(model))


def test_tokens_without_an_embedding_are_refused(model: Path) -> None:
    tokenizer = load_policy(str(model)).tokenizer
    tokenizer.add_tokens([f"<extra{i}>" for i in range(9)])
    tokenizer.save_pretrained(model)
    with pytest.raises(
        UserError, match=r"token '<extra8>' with ID \d+, but the model has only \d+ embeddings"
    ):
        load_policy(str(model))
