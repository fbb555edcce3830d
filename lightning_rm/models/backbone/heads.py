"""Heads: at which token an architecture is read, and what its own classifier makes of that one hidden state.

Encoders have heads of their own, each known here; `families` says what is a decoder. It knows no batch, no layout and
no file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lightning_rm.models.attention.masks import SEGMENT_ATTENTION
from lightning_rm.precision import wide
from lightning_rm.tokens import ReadAt


@dataclass(frozen=True)
class Architecture:
    """How a Hugging Face sequence classifier with one label is read.

    Args:
        read_at: the token that the reward is read at; what the classifier itself, and a server's pooling, reads.
        head: names, within the classifier, of the modules that make a reward of one hidden state. All else is backbone.
        reward: from the classifier and features (N, H) to rewards (N, 1), as the classifier's own forward does.
        packs: whether the layout `packed` can be honoured: attention goes through transformers' attention interface and
            positions are read from `position_ids`. The tests hold every one of them to it.
        positions_after_pad: whether positions count from `pad_token_id + 1` (the RoBERTa family).
        attention: what transformers is asked for where nothing else is wanted: `SEGMENT_ATTENTION` or its own `sdpa` or
            `eager`.
        why_rows: where it does not pack, why, in words that go on after its name.
    """

    read_at: ReadAt
    head: tuple[str, ...]
    reward: Callable[[Any, Tensor], Tensor]
    packs: bool = True
    positions_after_pad: bool = False
    attention: str = SEGMENT_ATTENTION
    why_rows: str | None = None


def _score(model: Any, feature: Tensor) -> Tensor:
    return model.score(feature)


def _bert(model: Any, feature: Tensor) -> Tensor:
    return model.classifier(model.dropout(model.bert.pooler(feature[:, None])))


def _classification_head(model: Any, feature: Tensor) -> Tensor:
    return model.classifier(feature[:, None])


def _distilbert(model: Any, feature: Tensor) -> Tensor:
    return model.classifier(model.dropout(torch.relu(model.pre_classifier(feature))))


def _deberta(model: Any, feature: Tensor) -> Tensor:
    return model.classifier(model.dropout(model.pooler(feature[:, None])))


def _modernbert(model: Any, feature: Tensor) -> Tensor:
    return model.classifier(model.drop(model.head(feature)))


_ROBERTA = Architecture("first", ("classifier",), _classification_head, positions_after_pad=True)
_DEBERTA = Architecture(
    "first",
    ("pooler", "classifier"),
    _deberta,
    packs=False,
    attention="eager",
    why_rows="it has an attention of its own",
)

DECODER = Architecture("last", ("score",), _score)
"""A linear map of the last attended token's hidden state; which layouts a decoder honours depends on its code."""

ENCODERS: dict[str, Architecture] = {
    "bert": Architecture("first", ("bert.pooler", "classifier"), _bert),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Architecture("first", ("classifier",), _classification_head),
    "distilbert": Architecture("first", ("pre_classifier", "classifier"), _distilbert),
    "modernbert": Architecture("first", ("head", "classifier"), _modernbert),
    "deberta": _DEBERTA,
    "deberta-v2": _DEBERTA,
}
"""Encoders whose head is known, by the `model_type` of their configuration."""

REMOTE = Architecture("last", ("score",), _score, packs=False, attention="eager", why_rows="it brings code of its own")
"""What a classifier that brings its own code (`trust_remote_code`) is taken for: a decoder with a linear `score`."""


def head_tensors(classifier: PreTrainedModel, architecture: Architecture) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the head's parameters by their names within the classifier, in a fixed order.

    Raises:
        ValueError: as `head_modules`.
    """
    for module, part in head_modules(classifier, architecture).items():
        for name, parameter in part.named_parameters():
            yield f"{module}.{name}", parameter


def head_modules(classifier: PreTrainedModel, architecture: Architecture) -> dict[str, nn.Module]:
    """Return the modules that make the head by their names within the classifier.

    Raises:
        ValueError: if the classifier has no such head: one that brings its own code may have any, and a model of
            transformers that is no classifier has none.
    """
    try:
        return {name: classifier.get_submodule(name) for name in architecture.head}
    except AttributeError as error:
        raise ValueError(
            f"{type(classifier).__name__} has no head {' and '.join(architecture.head)!r}: a linear `score` of the "
            "last token is needed; give a sequence classifier, or the path of the model to "
            "RewardModel.from_pretrained, which draws a head"
        ) from error


@torch.no_grad()
def init_head(classifier: PreTrainedModel, architecture: Architecture, names: set[str], seed: int) -> None:
    """Draw new head weights: linear maps from N(0, 1 / (d + 1)), d their inputs; biases 0, norms 1.

    The init of the reward model's head in Stiennon et al., "Learning to summarize from human feedback" (arXiv
    2009.01325): a variance of 1 / (d + 1) makes first rewards of order one for features of order one. The draw depends
    on the seed alone; the global random state is neither read nor moved.

    Args:
        classifier: a Hugging Face sequence classifier with one label.
        architecture: its entry in the table.
        names: which head parameters to draw; the others keep what a checkpoint gave them.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in head_tensors(classifier, architecture):
        if parameter.ndim == 2:
            std = (parameter.shape[1] + 1) ** -0.5
            drawn = torch.randn(parameter.shape, generator=generator, device="cpu") * std  # also under torch.device
        else:
            drawn = torch.full(parameter.shape, 0.0 if name.endswith("bias") else 1.0)
        if name in names:
            parameter.copy_(drawn)


def widen_head(classifier: PreTrainedModel, architecture: Architecture) -> None:
    """Store the head in float32 and have it take float32 features, whatever the backbone's dtype; float64 stays."""
    for module in head_modules(classifier, architecture).values():
        module.to(torch.promote_types(classifier.dtype, torch.float32))
        # BERT's pooler also runs inside the base model, on hidden states of the backbone's dtype.
        module.register_forward_pre_hook(_wide_inputs)


def _wide_inputs(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(wide(value) for value in args)
