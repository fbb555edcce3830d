"""A toy run: the made world, a decoder of a few thousand weights, a data module, a trainer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor

from lightning_rm.annotation.files import write_parquet
from lightning_rm.annotation.votes import Votes
from lightning_rm.batch import PreferenceBatch
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import BadRow, GroupRow, PairRow
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.baseline import BaselineRM

CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


# Of one session of tests: the same made pairs are tokenised for hundreds of runs.
_CACHE = tempfile.TemporaryDirectory(prefix="toy-")


@dataclass(frozen=True)
class Rows:
    """A source of given rows."""

    rows: Sequence[PairRow | GroupRow | BadRow]

    def fingerprint(self) -> str:
        return repr(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)


def toy_model(seed: int = 0, dtype: str = "float32", **config: Any) -> RewardModel:
    """In float32; `dtype="float64"` where two computations must be the same, see `tests.float64`."""
    tokenizer = world_tokenizer()
    return RewardModel.from_config(
        {**CONFIG, **config}, vocab_size=len(tokenizer), pad_id=tokenizer.pad_token_id, seed=seed, dtype=dtype
    )


def toy_data(
    num_pairs: int = 24, num_val: int = 7, cache_dir: Path | None = None, **options: Any
) -> PreferenceDataModule:
    """`num_val` is odd on purpose: the last evaluation batch is uneven."""
    return PreferenceDataModule(
        world_tokenizer(),
        train=SyntheticSource(num_pairs, split="train"),
        val=SyntheticSource(num_val, split="val"),
        test={"test": SyntheticSource(num_val, split="test", clean_labels=True)},
        cache_dir=cache_dir or Path(_CACHE.name),
        **{"batch_pairs": 4, **options},
    )


def toy_module(seed: int = 0, lr: float = 1e-2, config: dict[str, Any] | None = None, **options: Any) -> BaselineRM:
    """On a model in float32; `config={"dtype": "float64"}` takes another."""
    return BaselineRM(toy_model(seed, **(config or {})), partial(torch.optim.AdamW, lr=lr), **options)


class LossRecorder(L.Callback):
    """The loss of every micro-batch, as it was minimised."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: PreferenceBatch,
        batch_idx: int,
    ) -> None:
        self.losses.append(float(outputs["loss"]))


def toy_trainer(folder: Path | str, **options: Any) -> L.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return L.Trainer(**{**defaults, **options})


def weights(module: L.LightningModule) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def write_annotated(path: Path, num_pairs: int, num_voters: int = 3, seed: int = 0) -> None:
    """Made pairs with the votes of voters that know the gold margin but for some noise, as a Parquet file."""
    source = SyntheticSource(num_pairs, split="train", noise=0.25, seed=seed)
    gold = np.array([row.gold_margin for row in source], float)
    votes = 0.3 * gold[:, None] + np.random.default_rng(seed).normal(size=(num_pairs, num_voters))
    pairs = cast(PairDataset, SimpleNamespace(source_row=np.arange(num_pairs)))
    names = tuple(f"voter {number}" for number in range(num_voters))
    write_parquet(source, Votes(pairs, names, votes, np.zeros_like(votes)), path)


def write_jsonl(path: Path, rows: Iterable[PairRow | BadRow]) -> None:
    """Write good rows in the explicit-prompt format, a line each."""
    names = ("prompt", "chosen", "rejected", "id", "prompt_id", "subset", "label")
    good = [row for row in rows if isinstance(row, PairRow)]
    path.write_text("".join(json.dumps({name: getattr(row, name) for name in names}) + "\n" for row in good))
