"""Whether reward models can answer as one, which they can if they read the same token batches in the same way."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_rm.models.reward_model import RewardModel


def check_alike(members: Sequence[RewardModel]) -> None:
    """Check that members read the same token batches in the same way.

    Raises:
        ValueError: if there are none, one is not a plain RewardModel, or they differ in architecture, in the token
            that rewards are read at, or in the padding token.
    """
    if not members:
        raise ValueError("an ensemble needs members; give at least one reward model")
    kinds: list[dict[str, object]] = []
    for number, member in enumerate(members):
        if type(member) is not RewardModel:
            name = type(member).__name__
            raise ValueError(f"member {number} is a {name} and not a plain RewardModel; give its members one by one")
        model_type = member.backbone.config.model_type
        kinds.append({"model_type": model_type, "read_at": member.read_at, "pad_id": member.pad_id})
        for name, value in kinds[0].items():
            if kinds[-1][name] != value:
                raise ValueError(
                    f"member {number} has {name}={kinds[-1][name]!r} and member 0 has {value!r}; an ensemble reads one "
                    "token batch with all members, so give models of one architecture and tokenizer"
                )
