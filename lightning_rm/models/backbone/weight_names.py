"""The names and sizes of a checkpoint's weights, against those of the model that reads them: what is missing, what
stands there in another form, what is left out. It knows names; it reads no weight.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from transformers import PreTrainedConfig, PreTrainedModel

from lightning_rm.counts import and_others, number_of
from lightning_rm.models.backbone.checkpoint import Checkpoint, is_classifier
from lightning_rm.models.backbone.layers import layers_name

FOREIGN_HEADS = (
    *("v_head", "value_head", "reward_head", "score_head", "rm_head", "regression_head", "regression_layer"),
    "score.",  # of several layers
)
"""Parts of names that other libraries have for a reward head."""
FOREIGN_FILE = "value_head.*"
"""Files that other libraries keep one in, beside the model's."""


def check_sizes(checkpoint: Checkpoint, mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]]) -> None:
    """Check that all weights have the sizes that the configuration says.

    Args:
        checkpoint: where they are.
        mismatched: those that have not: name, size in the file, size in the model.

    Raises:
        ValueError: if there are any.
    """
    if found := sorted(mismatched):
        name, stored, wanted = found[0]
        more = f" ({number_of(len(found) - 1, 'other')} too)" if len(found) > 1 else ""
        raise ValueError(
            f"{checkpoint.origin}: the weights do not fit their configuration: {name} is {tuple(stored)} in the file, "
            f"and config.json says {tuple(wanted)}{more}; put the config.json there that the weights were saved with"
        )


def check_names(
    checkpoint: Checkpoint,
    config: PreTrainedConfig,
    head: set[str],
    missing: set[str],
    unexpected: set[str],
    hint: str = "",
) -> None:
    """Check which weights a checkpoint lacks, and that no head that was trained is replaced by a new one.

    Args:
        checkpoint: where it is.
        config: its configuration.
        head: names of the head's parameters.
        missing: names of all weights that it lacks.
        unexpected: names of weights in it that are not read.
        hint: what to say where the backbone is incomplete.

    Raises:
        ValueError: if the backbone is incomplete, or the head of a reward model is, or lies there in another form.
    """
    if lacks := sorted(missing - head):
        raise ValueError(f"{checkpoint.origin}: backbone weights are missing: {first_of(lacks)}{hint}")
    if missing and is_classifier(config):
        raise ValueError(f"{checkpoint.origin}: a reward model whose head is missing: {', '.join(sorted(missing))}")
    foreign = sorted(name for name in unexpected if any(part in name for part in FOREIGN_HEADS))
    foreign += sorted(file.name for file in Path(checkpoint.path).glob(FOREIGN_FILE))
    if missing and foreign:
        raise ValueError(
            f"{checkpoint.origin}: its reward head is stored as {first_of(foreign)}, which transformers does not "
            f"read; rename it to {', '.join(sorted(missing))}, start from its causal model, or draw another with "
            "new_head=True"
        )


def warn_of_layers(checkpoint: Checkpoint, backbone: PreTrainedModel, unexpected: set[str]) -> None:
    """Warn of weights of layers that a checkpoint has and its configuration does not: the model is not whole."""
    if (layers := layers_name(backbone)) is None:  # a recurrent model of a user's own
        return
    prefix = backbone.base_model_prefix
    unread = sorted(name for name in unexpected if name.removeprefix(f"{prefix}.").startswith(f"{layers}."))
    if unread:
        warnings.warn(
            f"{checkpoint.origin}: weights of layers are left out, as its config.json says nothing of them: "
            f"{first_of(unread)}; rewards are those of the model without them",
            stacklevel=2,
        )


def first_of(names: Sequence[str]) -> str:
    """Return the first three of some names, and how many others there are."""
    return ", ".join(names[:3]) + and_others(len(names) - 3)
