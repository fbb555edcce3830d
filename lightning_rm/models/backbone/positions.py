"""How long a sequence a model has positions for, and rotary positions whose scale is that of a whole batch.

With these a reward depends on what stands beside it: of `longrope` (Ding et al., arXiv 2402.13753; Phi 3 and Phi 4
mini) transformers takes one of two sets of factors for all sequences of a forward, by whether the longest is over the
length that the model was pretrained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from transformers import PreTrainedConfig


def longest_sequence(config: PreTrainedConfig) -> int | None:
    """Return the most tokens that a model has positions for; None where its configuration names no limit."""
    text = config.get_text_config()  # of a model of images too: its language model's
    limit: int | None = getattr(text, "max_position_embeddings", getattr(text, "max_seq_len", None))  # MPT's
    return limit


def steady_tokens(config: PreTrainedConfig) -> int | None:
    """Return how long a sequence may be before shorter ones beside it get other rewards; None where none ever do."""
    told: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    kinds = [told, *(cast("Mapping[str, Any]", kind) for kind in told.values() if isinstance(kind, Mapping))]
    lengths = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    longest = longest_sequence(config)
    return min((length for length in lengths if longest is None or length < longest), default=None)
