"""Several reward models of a round as one: an ensemble, or the average of their weights. It knows folders of models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from lightning_rm.data.rows import GroupRow
from lightning_rm.models.ensembles.aggregate import Aggregate
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.warm import average_weights
from lightning_rm.scoring.conversations import score
from lightning_rm.scoring.load import load_model

Combine = Aggregate | Literal["warm"]


def combine_models(
    folders: Sequence[Path], groups: Sequence[GroupRow], how: Combine, lam: float, out: Path
) -> RewardEnsemble | None:
    """Write several reward models as one, which `load_model` reads.

    An ensemble's members are centred on what the policy says now: each has a zero of its own, and without this the
    worst case and the variance would measure those zeros in place of disagreement.

    Args:
        folders: M models.
        groups: responses of the policy, to centre the members on.
        how: an aggregate, or `warm`: the average of their weights (arXiv 2401.12187).
        lam: of `mean_minus_variance`.
        out: a folder; it is replaced.

    Returns:
        The ensemble; None of an average.
    """
    loaded = [load_model(folder) for folder in folders]
    tokenizer = loaded[0].tokenizer
    models = [model for each in loaded for model in each.model.plain_models]
    if how == "warm":
        average_weights(models).save_pretrained(out, tokenizer)
        return None
    ensemble = RewardEnsemble(models, how, lam).eval()
    conversations = [[*group.prompt, *response] for group in groups for response in group.responses]
    ensemble.centre(score(ensemble, tokenizer, conversations, each_member=True))
    ensemble.save_pretrained(out, tokenizer)
    return ensemble
