"""The text tower of a model of images and text: its language model, read as the text model that it is.

A reward model reads text. Of Gemma 3, Qwen's VL models, LLaVA and their like, and of models of speech and text, the
language model is trained and exported as a text model, which servers know without its images. It knows configurations
and the names of weights.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, cast

from transformers import AutoConfig, PreTrainedConfig

log = logging.getLogger(__name__)

TWINS = {
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl_text": "qwen3",
}
"""Text towers without a sequence classifier, and the text model that has their layers and names. On text alone the
three coordinates of a position are equal, and are what the twin has as its one position."""

WEIGHTS = {
    r"^(?:model\.)?language_model\.lm_head\.": "lm_head.",
    r"^(?:model\.)?(?:language|text)_model\.(?:model\.)?": "model.",
}
"""Where a text tower's weights stand in a checkpoint, and their names in the text model."""

_POSITIONS = ("mrope_section", "mrope_interleaved")
_OF_THE_WHOLE = ("pad_token_id", "eos_token_id", "bos_token_id")


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return a checkpoint's configuration, or that of its text tower where it has other towers too (not one of an
    encoder and a decoder of text).

    What the whole says of labels, padding and the end of texts is taken over where the text tower says nothing.
    """
    tower = config.get_text_config()
    if tower is config or config.is_encoder_decoder:
        return config
    text = _as_twin(tower) if tower.model_type in TWINS else copy.deepcopy(tower)
    text.architectures = config.architectures
    if config.num_labels is not None:
        text.num_labels = config.num_labels
    if (tied := getattr(config, "tie_word_embeddings", None)) is not None:
        text.tie_word_embeddings = tied
    for name in _OF_THE_WHOLE:
        if getattr(text, name, None) is None:
            ids = getattr(config, name, None)
            setattr(text, name, [*cast("tuple[int, ...]", ids)] if isinstance(ids, tuple) else ids)
    if text.dtype is None:
        text.dtype = config.dtype
    log.info("%s reads images and text: its text tower, %s, is what is read here", config.model_type, text.model_type)
    return text


def _as_twin(tower: PreTrainedConfig) -> PreTrainedConfig:
    """Return the configuration of the text model that a tower is, layer by layer."""
    values: dict[str, Any] = tower.to_dict()
    known = AutoConfig.for_model(TWINS[values.pop("model_type")])
    settings = {name: value for name, value in values.items() if name in known.to_dict()}
    rope: dict[str, Any] = dict(values.get("rope_parameters") or {})
    settings["rope_parameters"] = {name: value for name, value in rope.items() if name not in _POSITIONS}
    if settings["rope_parameters"].get("rope_type") == "mrope":
        settings["rope_parameters"]["rope_type"] = "default"
    return type(known)(**settings)
