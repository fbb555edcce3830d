"""`MemberHeads`: M heads on one backbone, each of the kind that the backbone brings, applied in one pass.

It knows a classifier and its head; not where features come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from lightning_rm.models.backbone.heads import Architecture, head_tensors, init_head


class MemberHeads(nn.ModuleList):
    """M heads as lists of parameters, each drawn from a seed of its own.

    The classifier's own head is a mould: it gives shapes and arithmetic, and is not trained.

    Args:
        classifier: whose head is the mould; its values are overwritten and frozen.
        architecture: of the classifier.
        seeds: M, one for each head.
    """

    def __init__(self, classifier: PreTrainedModel, architecture: Architecture, seeds: Sequence[int]) -> None:
        mould = dict(head_tensors(classifier, architecture))
        drawn: list[nn.ParameterList] = []
        for seed in seeds:
            init_head(classifier, architecture, set(mould), seed)
            drawn.append(nn.ParameterList(value.detach().clone() for value in mould.values()))
        # One parameter a member, and stacked as they are used: an optimizer still tells a bias from a matrix.
        super().__init__(drawn)
        self.names = tuple(mould)
        for value in mould.values():
            value.requires_grad_(False)

    def stacked(self) -> dict[str, Tensor]:
        """Return each of the head's parameters by its name in the classifier, (M, ...)."""
        heads = cast("list[nn.ParameterList]", list(self))
        return {name: torch.stack(list(values)) for name, *values in zip(self.names, *heads, strict=True)}

    def rewards(self, classifier: PreTrainedModel, architecture: Architecture, features: Tensor) -> Tensor:
        """Return each member's rewards (M, N, 1) of its features (M, N, H), by the mould's arithmetic.

        Dropout differs by member.
        """
        mould = _Mould(classifier, architecture)
        names = [f"classifier.{name}" for name in self.names]

        def one(weights: list[Tensor], feature: Tensor) -> Tensor:
            return functional_call(mould, dict(zip(names, weights, strict=True)), (feature,), tie_weights=False)

        return torch.vmap(one, randomness="different")(list(self.stacked().values()), features)

    @torch.no_grad()
    def restore(self, stored: Mapping[str, Tensor]) -> None:
        """Take over values (M, ...) by the names of `stacked`."""
        for number, head in enumerate(cast("list[nn.ParameterList]", list(self))):
            for name, parameter in zip(self.names, head, strict=True):
                parameter.copy_(stored[name][number])


class _Mould(nn.Module):
    """A classifier's head as a module, which is what `functional_call` calls. Nothing keeps it."""

    def __init__(self, classifier: PreTrainedModel, architecture: Architecture) -> None:
        super().__init__()
        self.classifier = classifier
        self.architecture = architecture

    def forward(self, feature: Tensor) -> Tensor:
        return self.architecture.reward(self.classifier, feature)
