"""Routers: the modules of a mixture of experts that choose, for every token, which experts compute it.

Transformers says of each family which class of its modules they are. It knows modules; not losses or batches.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from transformers import PreTrainedModel

ROUTER_LOGITS = "router_logits"
"""What transformers calls the scores of all experts among the outputs that it can record."""


def routers_of(classifier: PreTrainedModel) -> dict[str, nn.Module]:
    """Return a backbone's routers by their names within the classifier, from first layer to last.

    {} without experts.
    """
    kind = _recorder(classifier)
    modules = cast(nn.Module, classifier).named_modules()
    return {} if kind is None else {name: module for name, module in modules if isinstance(module, kind.target_class)}


def logits_index(classifier: PreTrainedModel) -> int:
    """Return which of a router's outputs are the scores of all experts (tokens, E)."""
    recorder = _recorder(classifier)
    return 0 if recorder is None else recorder.index


def _recorder(classifier: PreTrainedModel) -> Any:
    """Transformers' `OutputRecorder` of a base model's routers; None without."""
    known: dict[str, Any] = getattr(classifier.base_model, "_can_record_outputs", None) or {}
    recorder = known.get(ROUTER_LOGITS)
    # JetMoE's in transformers up to 5.17: its attention, which hands on what its router says, then all routers.
    return recorder[-1] if isinstance(recorder, list) else recorder
