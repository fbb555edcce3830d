"""TRL's side of a comparison of training speed. Only who has TRL imports it.

It knows `RewardTrainer` and its settings; nothing of ours but the meter and rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from training import Meter
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import RewardConfig, RewardTrainer

from lightning_rm.data.rows import PairRow

ORDERS = {"trl_grouped": "group_by_length", "trl_sorted": "sequential"}
"""What TRL calls the order of the pairs; `random` for every other contender."""


class TrlMeter(TrainerCallback):
    """A meter that TRL's trainer drives."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.meter.start_epoch()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.meter.step()


def texts_of(rows: Sequence[PairRow]) -> datasets.Dataset:
    """The pairs in TRL's preference format."""
    return datasets.Dataset.from_list(
        [{name: list(getattr(row, name)) for name in ("prompt", "chosen", "rejected")} for row in rows]
    )


def with_lengths(tokenised: datasets.Dataset) -> datasets.Dataset:
    """The ids of pairs that TRL made tokens of, with the length to group by."""
    lengths = [max(map(len, ids)) for ids in zip(tokenised["chosen_ids"], tokenised["rejected_ids"], strict=True)]
    return tokenised.select_columns(["chosen_ids", "rejected_ids"]).add_column("length", lengths)


def longest_first(tokenised: datasets.Dataset) -> datasets.Dataset:
    """The same pairs from long to short."""
    return tokenised.sort("length", reverse=True)


def trl_trainer(
    model: PreTrainedModel,
    data: datasets.Dataset,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    order: str = "random",
    peft_config: Any = None,
    **settings: Any,
) -> RewardTrainer:
    """TRL's trainer with its own defaults, but for what writes and shows.

    Args:
        model: trained in place.
        data: texts, or ids with a column `length`.
        tokenizer: the model's.
        folder: where it would write.
        order: TRL's `train_sampling_strategy`. Grouping works only where `remove_unused_columns` is off: else the
            column of lengths is taken away before it is looked for.
        peft_config: of adapters to train in place of the weights.
        settings: of `RewardConfig`.
    """
    config = RewardConfig(
        output_dir=str(folder),
        train_sampling_strategy=order,
        remove_unused_columns=order != "group_by_length",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        **settings,
    )
    trainer = RewardTrainer(model, config, train_dataset=data, processing_class=tokenizer, peft_config=peft_config)
    trainer.remove_callback(PrinterCallback)
    return trainer
