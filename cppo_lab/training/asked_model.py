"""What the way of asking a model depends on."""

from __future__ import annotations

import functools

from cppo_lab.models.config import ModelConfig, PretrainedModel
from cppo_lab.models.loading import load_tokenizer
from cppo_lab.tasks.asking import AskedModel


@functools.cache
def asked_model(model: ModelConfig) -> AskedModel:
    """Whether a model is pretrained and has a chat template. Raises UserError for a tokenizer that cannot be loaded."""
    if not isinstance(model, PretrainedModel):
        return AskedModel(is_pretrained=False)
    template = getattr(load_tokenizer(model.path, model.revision), "chat_template", None)
    return AskedModel(is_pretrained=True, has_chat_template=bool(template))
