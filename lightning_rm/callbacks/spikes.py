"""The gradient spikes of a run with their pairs, one line each: the data to look at when training is unstable.

It knows the data module's pairs and a file; the module finds the spikes (`modules.spikes`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

from lightning_rm.callbacks.stop import Stopped
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.origins import file_and_line
from lightning_rm.drafts import write_json_lines
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.finite import DivergedError
from lightning_rm.modules.spikes import Spike


class SpikeRecorder(L.Callback):
    """A callback that writes the largest gradient spikes when training ends, also where it was stopped or diverged.

        {"step": 57, "norm": 41.3, "level": 1.2, "pairs": [{"row": 3, "id": "a7", "file": "pairs.jsonl", "line": 4}]}

    A line of a text file counts from 1, a row of a table or an array from 0; made data has no file, and null there.

    Args:
        path: of the file, JSON lines in the order of steps; none is written where there was no spike.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write them."""
        self._write(trainer, pl_module)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Write those so far, if all ranks are here."""
        if isinstance(exception, Stopped | DivergedError) and trainer.training:
            self._write(trainer, pl_module)

    def _write(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, PairwiseRM):
            return
        spikes = pl_module.spikes()
        if not trainer.is_global_zero:
            return
        if not spikes:
            self.path.unlink(missing_ok=True)
            return
        lines = [
            {"step": spike.step, "norm": spike.norm, "level": spike.level, "pairs": _pairs(trainer, spike)}
            for spike in spikes
        ]
        write_json_lines(self.path, lines)


def _pairs(trainer: L.Trainer, spike: Spike) -> list[dict[str, Any]]:
    """Return a spike's pairs by id, file and line; without ids where they are streamed, and by their rows alone where
    the data is not the data module's.
    """
    data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]  # set by Lightning, not declared
    if not isinstance(data, PreferenceDataModule):
        return [{"row": row} for row in spike.rows]
    if data.is_streamed:
        stands = [file_and_line(data.name_of_pair(row)) for row in spike.rows]
        return [{"row": row, "file": file, "line": line} for row, (file, line) in zip(spike.rows, stands, strict=True)]
    places = data.datasets["train"].places(spike.rows)
    stands = [file_and_line(place.origin) for place in places]
    return [
        {"row": row, "id": place.id, "file": file or None, "line": line if line >= 0 else None}
        for row, place, (file, line) in zip(spike.rows, places, stands, strict=True)
    ]
