"""Every method, with data that it trains on: for tests that hold of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import GroupRow
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from lightning_rm.modules.odin import OdinRM
from lightning_rm.modules.ordinal import OrdinalRM
from lightning_rm.modules.regression import RegressionRM
from lightning_rm.modules.response_rank import ResponseRankRM
from lightning_rm.modules.robust import RobustRM
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.supervised import SupervisedLM
from lightning_rm.modules.voters import VotersRM
from lightning_rm.strength import adaptive_margin, flip, levels
from tests.toy import CONFIG, Rows

METHODS = (
    *("baseline", "lm_head", "sft", "simcse", "swav", "meta", "meta_norm", "lists", "odin", "response_rank"),
    *("trimmed", "ordinal", "regression", "strength_aware", "lora", "meta_lora", "simcse_lora"),
)
"""Those that train on several ranks in every way."""
MEMBERS = ("voters", "voters_lora")
"""Those that FSDP2 does not shard."""
SECOND_ORDER = ("meta_second_order",)
"""Those of one device."""
RANKED = ("ordinal", "strength_aware")
"""Those that read strengths."""

SGD = partial(torch.optim.SGD, lr=0.03, momentum=0.9)


class TwoFixedViews(nn.Module):
    """In place of dropout, whose masks differ on every rank: the second view of a feature is bent a little."""

    def forward(self, feature: Tensor) -> Tensor:
        if not self.training:
            return feature
        first, second = feature.chunk(2, dim=1)
        return torch.cat([first, second * (1 + 0.3 * torch.arange(feature.shape[-1]).sin())], dim=1)


def model_of(dtype: str, **options: Any) -> RewardModel:
    tokenizer = world_tokenizer()
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_id": tokenizer.pad_token_id}
    return RewardModel.from_config(CONFIG, **sizes, dtype=dtype, **options)


def monitor_of(method: str) -> tuple[str, Literal["min", "max"]]:
    """By what the best weights of a method are kept."""
    return ("val/loss", "min") if method.startswith("sft") else ("val/accuracy", "max")


def training_rows(method: str, number: int = 25) -> Any:
    if method in ("lists", "simcse", "response_rank", "sft"):
        # Of one pair and of two: float32, which weights are in, holds 3/2 and 3/4.
        sources = (SyntheticGroups(80, k=k, scored=True) for k in (2, 3))
        alternating = zip(*([row for row in rows if len(set(row.gold)) == 2] for rows in sources), strict=False)
        rows = list(chain.from_iterable(alternating))[:number]
        return Rows(sharing(rows) if method in ("simcse", "sft") else rows)
    if method == "regression":
        rows = [
            replace(row, scores=attributes(row.gold)) for row in SyntheticGroups(60, k=2) if len(set(row.gold)) == 2
        ]
        return Rows(rows[:number])
    return SyntheticSource(number, split="train", levels=3 if method in RANKED else 0)


def sharing(rows: Sequence[GroupRow]) -> list[GroupRow]:
    """The rows with four prompts and their responses alone, so that most steps have a response in several rows."""
    return [replace(rows[place % 8], id=row.id, prompt_id=row.prompt_id) for place, row in enumerate(rows)]


def attributes(gold: Sequence[float]) -> tuple[dict[str, float], ...]:
    """Scores of two attributes, the second one with a gap."""
    return tuple({"helpful": one} | ({"brief": 0.5 - one} if place else {}) for place, one in enumerate(gold))


def data_of(method: str, cache_dir: Path, batch_pairs: int, batch_groups: int = 4, **options: Any) -> Any:
    """A data module with what the method reads."""
    treatments = {"ordinal": [levels], "strength_aware": [partial(flip, below_quantile=0.2), adaptive_margin]}
    return PreferenceDataModule(
        world_tokenizer(),
        batch_pairs=batch_pairs,
        batch_groups=batch_groups,
        cache_dir=cache_dir,
        order="random",
        ties="keep" if method == "ordinal" else "drop",
        treatments=treatments.get(method, ()),
        responses=SyntheticGroups(11, k=3) if method.startswith("meta") else None,
        **{"train": training_rows(method), **options},
    )


def module_of(
    method: str, dtype: str = "float64", optimizer: Any = SGD, fixed_views: bool | None = None, **options: Any
) -> PairwiseRM:
    """A module; in float64 without dropout.

    Args:
        method: of those above; what ends in `_by_2` is the same, and each has twins `_lora` and `_frozen`.
        dtype: of all weights.
        optimizer: as modules take it.
        fixed_views: of a contrast, in place of dropout's; None for in float64 alone.
        **options: of all modules.
    """
    module = _module(method.removesuffix("_by_2"), dtype, partial(optimizer), options)
    if (dtype == "float64" if fixed_views is None else fixed_views) and isinstance(module, ContrastiveRM):
        module.model.feature_dropout = TwoFixedViews()
    return module.double() if dtype == "float64" else module


def _module(method: str, dtype: str, optimizer: Any, options: dict[str, Any]) -> PairwiseRM:
    if method in MEMBERS:
        members = Members(num_members=3, lora_layers=int(method == "voters_lora"), rank=2)
        return VotersRM(MemberRewardModel.of(model_of(dtype), members), optimizer, **options)
    trained: dict[str, Any] = {"lora": LoraAdapter(rank=2) if method.endswith("lora") else None}
    trained["freeze_layers"] = 1 if method.endswith("_frozen") else None
    method = method.removesuffix("_lora").removesuffix("_frozen")
    if method in ("sft", "lm_head"):
        of_text = SupervisedLM if method == "sft" else BaselineRM
        return of_text(model_of(dtype, keep_lm_head=True, **trained), optimizer, **options)
    return _plain_module(method, model_of(dtype, **trained), optimizer, options)


def _plain_module(method: str, model: RewardModel, optimizer: Any, options: dict[str, Any]) -> PairwiseRM:
    match method:
        case "lists":
            weights = {"batch_centering": 0.5, "length_penalty": 0.5}
            return BaselineRM(model, optimizer, list_loss="plackett_luce", **weights, **options)
        case "odin":
            return OdinRM(model, optimizer, **options)
        case "response_rank":
            return ResponseRankRM(model, optimizer, group_size=3, **options)
        case "ordinal":
            return OrdinalRM(model, optimizer, **options)
        case "regression":
            return RegressionRM(model, optimizer, attributes={"helpful": 1.0, "brief": 0.5}, **options)
        case "trimmed":
            return RobustRM(model, optimizer, trim=0.25, **options)
        case "strength_aware":
            return StrengthAwareRM(model, optimizer, distill=0.25, **options)
        case "meta_norm":
            way = {"ascent_lr": 0.05, "ascent_scale": "relative", "ascent_part": "last:1"}
            return MetaRM(model, optimizer, **way, **options)
        case "meta" | "meta_second_order":
            exact = method == "meta_second_order"
            return MetaRM(model, optimizer, ascent_lr=0.5, centering=0.01, second_order=exact, **options)
        case "simcse" | "swav":
            return _contrastive(method, model, optimizer, options)
        case _:
            return BaselineRM(model, optimizer, centering=0.01, **options)


def _contrastive(method: str, model: RewardModel, optimizer: Any, options: dict[str, Any]) -> PairwiseRM:
    contrasts = {
        "simcse": partial(SimCSE, temperature=0.5, other_weight=2.0),
        "swav": partial(SwAV, samples="difference", num_prototypes=3, queue=11, frozen=1, projection=6),
    }
    in_float64 = next(model.parameters()).dtype == torch.float64
    dropout: dict[str, Any] = {"dropout_at": None if in_float64 else "features", "dropout": 0.1}
    return ContrastiveRM(model, optimizer, contrasts[method], centering=0.01, **dropout, **options)
