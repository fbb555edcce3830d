"""Rotary positions whose scale is that of a whole batch: with them a reward depends on what stands beside it.

Of `longrope` (Ding et al., arXiv 2402.13753; Phi 3 and Phi 4 mini) transformers takes one of two sets of factors for
all sequences of a forward, by whether the longest is over the length that the model was pretrained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from transformers import PreTrainedConfig


def steady_tokens(config: PreTrainedConfig) -> int | None:
    """Return how long a sequence may be before shorter ones beside it get other rewards; None where none ever do."""
    told: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    kinds = [told, *(cast("Mapping[str, Any]", kind) for kind in told.values() if isinstance(kind, Mapping))]
    lengths = [kind["original_max_position_embeddings"] for kind in kinds if kind.get("rope_type") == "longrope"]
    longest: int | None = getattr(config, "max_position_embeddings", None)
    return min((length for length in lengths if longest is None or length < longest), default=None)
