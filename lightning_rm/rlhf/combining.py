"""Several reward models of a round as one: an ensemble, or the average of their weights. It knows folders of models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.formats.scorable import prompt_and_response
from lightning_rm.data.rows import GroupRow
from lightning_rm.models.ensembles.aggregate import Aggregate
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.warm import average_weights
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.conversations import Conversation, encode
from lightning_rm.scoring.engine import Rewards, score_sequences
from lightning_rm.scoring.load import load_model
from lightning_rm.scoring.parts import Refusal

Combine = Aggregate | Literal["warm"]


def combine_models(
    folders: Sequence[Path],
    groups: Sequence[GroupRow],
    how: Combine,
    lam: float,
    out: Path,
    device: str | torch.device = "cpu",
) -> RewardEnsemble | None:
    """Write several reward models as one, which `load_model` reads.

    An ensemble's members are centred on what the policy says now: each has a zero of its own, and without this the
    worst case and the variance would measure those zeros in place of disagreement. Responses that the models cannot
    read whole are left out, as they are where rewards are given.

    Args:
        folders: M models.
        groups: responses of the policy, to centre the members on.
        how: an aggregate, or `warm`: the average of their weights (arXiv 2401.12187).
        lam: of `mean_minus_variance`.
        out: a folder; it is replaced.
        device: where the responses are scored.

    Returns:
        The ensemble; None of an average.

    Raises:
        ValueError: if the models can read no response.
    """
    loaded = [load_model(folder) for folder in folders]
    tokenizer = loaded[0].tokenizer
    models = [model for each in loaded for model in each.model.plain_models]
    if how == "warm":
        average_weights(models).save_pretrained(out, tokenizer)
        return None
    ensemble = RewardEnsemble(models, how, lam).eval().to(device)
    ensemble.centre(torch.from_numpy(_votes(ensemble, tokenizer, groups)))
    ensemble.save_pretrained(out, tokenizer)
    return ensemble


def zeros_of(model: AnyRewardModel, tokenizer: PreTrainedTokenizerBase, groups: Sequence[GroupRow]) -> list[float]:
    """Return (M,), the mean reward of each member of a model over responses of the policy: what it takes for 0.

    Args:
        model: with M members on one backbone.
        tokenizer: the model's.
        groups: responses of the policy; those that the model cannot read whole are left out.

    Raises:
        ValueError: if it can read none.
    """
    return _votes(model, tokenizer, groups).mean(axis=0, dtype=np.float64).tolist()


def _votes(model: AnyRewardModel, tokenizer: PreTrainedTokenizerBase, groups: Sequence[GroupRow]) -> Rewards:
    """Return (N, M), the rewards by every member of the N responses that it can read."""
    conversations = [
        Conversation(
            prompt_and_response(group.prompt, response[-1]["content"]), group.tools, group.chat_template_kwargs
        )
        for group in groups
        for response in group.responses
    ]
    encoded = encode(tokenizer, conversations, model.max_tokens)
    read = [ids for ids in encoded if not isinstance(ids, Refusal)]
    if not read:
        raise ValueError(
            f"the reward models can read none of {len(encoded):,} responses, the first because of: {encoded[0]}; make "
            "max_prompt_tokens or max_new_tokens smaller"
        )
    return score_sequences(model, read, each_member=True)
