"""One rank of a run of each method."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from lightning_rm.callbacks import Benchmarks, HuggingFaceCheckpoint, PairRecorder
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.models.sharding import FSDP2Strategy
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
from lightning_rm.modules.supervised import SupervisedLM
from lightning_rm.strength import levels
from tests.evaluation.made import llmbar
from tests.float64 import keep_float64
from tests.processes import torchrun_environment
from tests.toy import CONFIG, Rows, toy_model, toy_trainer

METHODS = (
    *("baseline", "lm_head", "sft", "simcse", "swav", "meta", "meta_norm", "baseline_by_2", "meta_by_2"),
    *("lists", "odin", "response_rank", "trimmed", "ordinal", "regression"),
)
"""What ends in `_by_2` accumulates two micro-batches a step; its last step has one, of one pair."""
PAIRS_A_STEP = 8
GROUPS_A_STEP = 4


class TwoFixedViews(nn.Module):
    """In place of dropout, whose masks differ on every rank: the second view of a feature is bent a little."""

    def forward(self, feature: Tensor) -> Tensor:
        if not self.training:
            return feature
        first, second = feature.chunk(2, dim=1)
        return torch.cat([first, second * (1 + 0.3 * torch.arange(feature.shape[-1]).sin())], dim=1)


def causal_model() -> RewardModel:
    tokenizer = world_tokenizer()
    options: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_id": tokenizer.pad_token_id}
    return RewardModel.from_config(CONFIG, **options, keep_lm_head=True, dtype="float64")


def equally_long(num_pairs: int) -> Rows:
    """Pairs whose chosen responses have 12 tokens: the mean over tokens is then exact over ranks."""
    tokenizer = world_tokenizer()
    rows = (row for row in SyntheticSource(400, split="train") if isinstance(row, PairRow))
    long = (row for row in rows if len(tokenizer(row.chosen[-1]["content"])["input_ids"]) == 12)
    return Rows(list(islice(long, num_pairs)))


@dataclass(frozen=True)
class GroupRows:
    """A source of given groups."""

    rows: list[GroupRow]

    def fingerprint(self) -> str:
        return repr(self.rows)

    def __iter__(self) -> Iterator[GroupRow]:
        return iter(self.rows)


def training_rows(method: str) -> Any:
    if method == "sft":
        return equally_long(25)
    if method == "lists":  # of three pairs each: their weights are then 1, and rounded nowhere
        groups = [row for row in SyntheticGroups(60, k=3, scored=True) if len(set(row.gold)) == 3]
        return GroupRows(groups[:25])
    if method == "regression":
        rows = [
            replace(row, scores=attributes(row.gold)) for row in SyntheticGroups(60, k=2) if len(set(row.gold)) == 2
        ]
        return GroupRows(rows[:25])
    return SyntheticSource(25, split="train", levels=3 if method in ("response_rank", "ordinal") else 0)


def attributes(gold: Sequence[float]) -> tuple[dict[str, float], ...]:
    """Scores of two attributes, the second one with a gap."""
    return tuple({"helpful": one} | ({"brief": 0.5 - one} if place else {}) for place, one in enumerate(gold))


def module_of(method: str) -> PairwiseRM:
    optimizer = partial(torch.optim.SGD, lr=0.03, momentum=0.9)
    if method == "sft":
        return SupervisedLM(causal_model(), optimizer)
    if method == "lm_head":
        return BaselineRM(causal_model(), optimizer)
    model = toy_model(dtype="float64")
    if method == "lists":
        return BaselineRM(model, optimizer, list_loss="plackett_luce", batch_centering=0.5, length_penalty=0.5)
    if method == "odin":
        return OdinRM(model, optimizer).double()
    if method == "response_rank":
        return ResponseRankRM(model, optimizer, group_size=3)
    if method == "ordinal":
        return OrdinalRM(model, optimizer).double()
    if method == "regression":
        return RegressionRM(model, optimizer, attributes={"helpful": 1.0, "brief": 0.5}).double()
    if method == "trimmed":
        return RobustRM(model, optimizer, trim=0.25)
    contrasts = {
        "simcse": partial(SimCSE, temperature=0.5, other_weight=2.0),
        "swav": partial(SwAV, samples="difference", num_prototypes=3, queue=64, frozen=1, projection=6),
    }
    if method.startswith("baseline"):
        return BaselineRM(model, optimizer, centering=0.01)
    if method in ("meta", "meta_by_2"):
        return MetaRM(model, optimizer, ascent_lr=0.5, centering=0.01)
    if method == "meta_norm":
        return MetaRM(model, optimizer, ascent_lr=0.05, ascent_scale="relative", ascent_part="last:1")
    model.feature_dropout = TwoFixedViews()
    module = ContrastiveRM(model, optimizer, contrasts[method], centering=0.01)
    module.objective.double()
    return module


def run_all(rank: int, folder: Path, strategy: str, port: int) -> None:
    """A run of every method, in folders of their names."""
    world_size = 1 if strategy == "auto" else 2
    torchrun_environment(rank, world_size, port)
    torch.set_num_threads(1)
    keep_float64()
    warnings.filterwarnings("error", message=".*recommended to use .self.log.*sync_dist=True.*")
    for method in METHODS:
        run(folder / method, strategy, method, rank, world_size)


def run(folder: Path, strategy: str, method: str, rank: int, world_size: int) -> None:
    strategies = {
        "auto": lambda: "auto",
        "ddp": lambda: DDPStrategy(process_group_backend="gloo"),
        "fsdp2": lambda: FSDP2Strategy(process_group_backend="gloo"),
    }
    accumulate = 2 if method.endswith("_by_2") else 1
    trainer = toy_trainer(
        folder,
        strategy=strategies[strategy](),
        devices=world_size,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=0.5,
        num_sanity_val_steps=1,
        val_check_interval=2,
        log_every_n_steps=2,
        callbacks=[
            HuggingFaceCheckpoint(folder / "model", world_tokenizer()),
            PairRecorder(folder / "pairs"),
            *([Benchmarks({"llmbar": llmbar(folder / f"llmbar{rank}")})] if method == "baseline" else []),
        ],
    )
    module = module_of(method)
    data = PreferenceDataModule(
        world_tokenizer(),
        train=training_rows(method),
        val=SyntheticSource(7, split="val"),
        test=SyntheticSource(7, split="test", clean_labels=True),
        batch_pairs=PAIRS_A_STEP // (world_size * accumulate),
        # One process pads its rows, two share prefixes: a layout changes nothing either.
        layout="padded" if world_size == 1 else "shared_prefix",
        order="random",
        ties="keep" if method == "ordinal" else "drop",
        treatments=[levels] if method == "ordinal" else (),
        cache_dir=folder.parent / f"cache{rank}",
        responses=SyntheticGroups(7, k=3) if module.reads_responses else None,
        batch_groups=GROUPS_A_STEP // (world_size * accumulate),
        test_responses=SyntheticGroups(5, k=3, split="test"),
    )
    trainer.fit(module, data)
    metrics = dict(trainer.callback_metrics)
    trainer.test(module, data, verbose=False)
    metrics |= trainer.callback_metrics
    values = {name: float(value) for name, value in metrics.items()}
    (folder / f"metrics{rank}.json").write_text(json.dumps(values))
