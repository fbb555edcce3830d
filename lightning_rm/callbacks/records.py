"""The rewards of each pair in each evaluation, as Parquet, and the texts of the worst pairs, as JSONL and in W&B.

It knows batches and rewards; neither the model nor the metrics know it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import lightning as L
import numpy as np
import pyarrow as pa
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from lightning_rm.batch import GroupBatch, PreferenceBatch
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.origins import file_and_line
from lightning_rm.data.store.pairs import PairDataset, PairPlace
from lightning_rm.drafts import draft_of, write_json_lines
from lightning_rm.metrics.alone import stand_alone
from lightning_rm.parquet_files import write_parquet


@dataclass(frozen=True)
class PairRecords:
    """The rewards of each pair of one data set in an evaluation, in the data set's order.

    Args:
        data_set: the set's name.
        row: (N,) the pair's place among those that are kept of the data set.
        subset: (N,) subset names.
        chosen: (N,) rewards.
        rejected: (N,) rewards.
        label: (N,) probability that chosen is preferred.
        clean: (N,) 1 where chosen is truly better, 0 where not, NaN where unknown.
        places: (N,) where each pair comes from; none for data that is not the data module's.
    """

    data_set: str
    row: np.ndarray
    subset: list[str]
    chosen: np.ndarray
    rejected: np.ndarray
    label: np.ndarray
    clean: np.ndarray
    places: list[PairPlace] = field(default_factory=list[PairPlace])

    def write(self, path: Path) -> None:
        """Write one row per pair as Parquet.

        `id`, `prompt_id`, `file` and `line` join it to the data: a line of a text file counts from 1, a row of a table
        or an array from 0, as errors name them. Made data has no file, and null there.
        """
        columns = {name: getattr(self, name) for name in ("row", "subset", "chosen", "rejected", "label", "clean")}
        if self.places:
            stands = [file_and_line(place.origin) for place in self.places]
            columns["id"] = [place.id for place in self.places]
            columns["prompt_id"] = [place.prompt_id for place in self.places]
            columns["file"] = pa.array([file or None for file, _ in stands], pa.string())
            columns["line"] = pa.array([line if line >= 0 else None for _, line in stands], pa.int64())
        with draft_of(path) as draft:
            write_parquet(pa.table(columns), draft)

    def worst(self, num_pairs: int) -> np.ndarray:
        """Return (n,), positions of the pairs ranked worst against their label, worst first; a response by itself is
        none.
        """
        margin = (self.chosen - self.rejected) * np.sign(self.label - 0.5)
        order = np.argsort(margin, kind="stable")
        return order[~stand_alone(self.chosen, self.rejected, self.label)[order]][:num_pairs]


class PairRecorder(L.Callback):
    """A callback that keeps each pair's rewards of every validation and test, and writes them as Parquet and the worst
    pairs in words.

    Args:
        folder: gets `<stage>_<set>.parquet` and `<stage>_<set>_worst.jsonl`, the latest evaluation's.
        num_worst: pairs of each set in words; W&B gets a table of those of the first validation set.
    """

    def __init__(self, folder: str | Path, num_worst: int = 50) -> None:
        self.folder = Path(folder)
        self.num_worst = num_worst
        self._batches: dict[str, list[Tensor]] = {}
        self._subset_names: dict[str, tuple[str, ...]] = {}

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget an evaluation that was interrupted."""
        self._batches = {}

    on_test_start = on_validation_start

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the batch's rewards."""
        self._keep(cast(Mapping[str, Tensor], outputs), batch)

    on_test_batch_end = on_validation_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the records; give W&B the worst pairs of the first set."""
        records = self._write(pl_module, "val")
        if records and trainer.is_global_zero and not trainer.sanity_checking:
            self._log_worst(trainer, records[0])

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the records."""
        self._write(pl_module, "test")

    def _keep(self, rewards: Mapping[str, Tensor], batch: PreferenceBatch | GroupBatch) -> None:
        if isinstance(batch, GroupBatch) or not rewards:  # groups and text have metrics, no records
            return
        chosen, rejected = rewards["chosen"], rewards["rejected"]
        columns = (batch.row, batch.subset, chosen, rejected, batch.label, batch.clean, batch.valid)
        table = torch.stack([column.cpu().double() for column in columns])
        self._batches.setdefault(batch.data_set, []).append(table)
        self._subset_names[batch.data_set] = batch.subset_names

    def _write(self, pl_module: L.LightningModule, stage: str) -> list[PairRecords]:
        """Gather every rank's pairs of each set, leave fillers out, and write them on rank 0."""
        records: list[PairRecords] = []
        for name, batches in self._batches.items():
            table = _gather_columns(pl_module, torch.cat(batches, dim=1))
            table = table[:, table[-1] == 1]
            values = table[:, table[0].argsort()].numpy()
            names = self._subset_names[name]
            record = PairRecords(
                data_set=name,
                row=values[0].astype(np.int64),
                subset=[names[int(index)] for index in values[1]],
                chosen=values[2].astype(np.float32),
                rejected=values[3].astype(np.float32),
                label=values[4],
                clean=values[5],
                places=self._places(pl_module.trainer, name, values[0]),
            )
            if pl_module.global_rank == 0:
                record.write(self.folder / f"{stage}_{name}.parquet")
                _write_lines(self.folder / f"{stage}_{name}_worst.jsonl", self._worst(pl_module.trainer, record))
            records.append(record)
        self._batches = {}
        return records

    def _places(self, trainer: L.Trainer, name: str, rows: np.ndarray) -> list[PairPlace]:
        """Return where a set's pairs come from, on the rank that writes."""
        data_set = _data_set(trainer, name)
        return [] if data_set is None or not trainer.is_global_zero else data_set.places(rows.astype(np.int64).tolist())

    def _worst(self, trainer: L.Trainer, records: PairRecords) -> list[dict[str, Any]]:
        """Return the worst pairs of a set in words with their rewards; none of data that is not the data module's."""
        data_set = _data_set(trainer, records.data_set)
        if data_set is None:
            return []
        return [
            {
                "row": int(records.row[position]),
                "where": records.places[position].origin,
                **asdict(data_set.text(int(records.row[position]))),
                "reward chosen": float(records.chosen[position]),
                "reward rejected": float(records.rejected[position]),
            }
            for position in records.worst(self.num_worst)
        ]

    def _log_worst(self, trainer: L.Trainer, records: PairRecords) -> None:
        names = ["id", "prompt", "chosen", "rejected", "margin", "reward chosen", "reward rejected"]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                if not (pairs := self._worst(trainer, records)):
                    continue
                table = [{**pair, "margin": pair["reward chosen"] - pair["reward rejected"]} for pair in pairs]
                logger.log_table(
                    "val/worst_pairs", columns=names, data=[[row[name] for name in names] for row in table]
                )


def _data_set(trainer: L.Trainer, name: str) -> PairDataset | None:
    """Return a set of the data module; None of data that comes otherwise."""
    datamodule = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Lightning, not declared
    return datamodule.datasets[name] if isinstance(datamodule, PreferenceDataModule) else None


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line; without rows, remove an older file and write none."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    write_json_lines(path, rows)


def _gather_columns(pl_module: L.LightningModule, local: Tensor) -> Tensor:
    """Return (C, N of all ranks) from each rank's (C, n); where n differs, zeros fill up, which are not valid."""
    if pl_module.trainer.world_size == 1:
        return local
    sizes = cast(Tensor, pl_module.all_gather(torch.tensor(local.shape[1], device=pl_module.device)))
    filled = torch.nn.functional.pad(local, (0, int(sizes.max()) - local.shape[1])).to(pl_module.device)
    return torch.cat(list(cast(Tensor, pl_module.all_gather(filled)).cpu()), dim=1)
