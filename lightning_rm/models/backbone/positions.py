"""How long a sequence a configuration has positions for, and up to which length they are scaled alike.

Of `longrope` (Ding et al., arXiv 2402.13753; Phi 3 and Phi 4 mini) there are two sets of factors, one of them for
sequences over the length that the model was pretrained on. See `longrope`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from transformers import PreTrainedConfig

LONGROPE = "longrope"


def longest_sequence(config: PreTrainedConfig) -> int | None:
    """Return the most tokens that a model has positions for; None where its configuration names no limit."""
    text = config.get_text_config()  # of a model of images too: its language model's
    limit: int | None = getattr(text, "max_position_embeddings", getattr(text, "max_seq_len", None))  # MPT's
    return limit


def steady_tokens(config: PreTrainedConfig) -> int | None:
    """Return the longest sequence that a backbone's first set of factors is for; None where there is no second one."""
    told: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    kinds = [told, *(cast("Mapping[str, Any]", kind) for kind in told.values() if isinstance(kind, Mapping))]
    lengths = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == LONGROPE]
    longest = longest_sequence(config)
    return min((length for length in lengths if longest is None or length < longest), default=None)
