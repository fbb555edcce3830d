"""Where a backbone's layers are, whatever its architecture calls them. It knows modules."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from torch import nn
from transformers import PreTrainedModel


def transformer_layers(classifier: PreTrainedModel) -> list[nn.Module]:
    """Return a backbone's layers from first to last: the longest of its outermost module lists.

    Raises:
        ValueError: if it has no module list.
    """
    if not (lists := _lists(classifier)):
        raise ValueError(f"{type(classifier).__name__} has no list of layers; set lora_layers=0 and freeze_layers=None")
    return list(min(lists.items(), key=_depth_and_length)[1])


def parameters_before(classifier: PreTrainedModel, layer: int) -> Iterator[nn.Parameter]:
    """Yield the parameters of the embeddings and of the layers before one.

    Modules stand in the order in which they run: embeddings, layers, the last norm, the head.
    """
    first_of_it = next(transformer_layers(classifier)[layer].parameters())
    return takewhile(lambda parameter: parameter is not first_of_it, classifier.parameters())


def layers_name(classifier: PreTrainedModel) -> str | None:
    """Return what the list of layers is called within the base model: `layers`, `h`, `encoder.layer`; None without."""
    return min(_lists(classifier).items(), key=_depth_and_length, default=(None,))[0]


def _lists(classifier: PreTrainedModel) -> dict[str, nn.ModuleList]:
    modules = classifier.base_model.named_modules()
    return {name: module for name, module in modules if isinstance(module, nn.ModuleList)}


def _depth_and_length(item: tuple[str, nn.ModuleList]) -> tuple[int, int]:
    return item[0].count("."), -len(item[1])
