"""Metrics as CSV, of a run that may have been stopped: the file goes on where the run goes on; and
TensorBoard, W&B, Trackio.

It knows Lightning's loggers and what a checkpoint says of its step; no model, no metric.
"""

from __future__ import annotations

import csv
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from fsspec.implementations.local import LocalFileSystem
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from lightning_rm.drafts import draft_of, naming


class QuietWandbLogger(WandbLogger):
    """Lightning's WandbLogger, without an option that W&B has given up and warns of in every run; a run that goes on is
    one run there.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)

    def go_on(self, folder: Path) -> None:
        """Go on with the run that a folder's run has sent to W&B, unless another one is named.

        One that was kept offline is left alone, and so is one that goes on offline: parts of a run that are sent after
        it replace what it has.

        Args:
            folder: of the run that goes on.
        """
        sent = sorted(path.name for path in (folder / "wandb").glob("run-*-*"))  # by date: run-20260131_120000-ID
        if sent and not self._offline and self.version is None and "WANDB_RUN_ID" not in os.environ:
            self._id = self._wandb_init["id"] = sent[-1].split("-", 2)[2]


def tensorboard_logger(save_dir: str) -> TensorBoardLogger:
    """Return Lightning's logger of events for TensorBoard, which writes them to `<save_dir>/tensorboard`.

    Raises:
        ValueError: if the package is not installed.
    """
    if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
        raise ValueError("logger=tensorboard needs the package tensorboard; pip install 'lightning-rm[tensorboard]'")
    return TensorBoardLogger(save_dir, name="", version="tensorboard", default_hp_metric=False)


class TrackioLogger(Logger):
    """Metrics in Trackio's database on this machine; a run that goes on goes on there, and any other begins anew.

    Args:
        project: that runs are shown under.
        folder: of the run, which is known by it: Trackio finds a run to go on with by its name alone.
        group: of runs that belong together.

    Raises:
        ValueError: if the package is not installed.
    """

    goes_on: bool = False
    """Whether the run goes on; `GoOn` sets it."""

    def __init__(self, project: str, folder: str, group: str | None = None) -> None:
        super().__init__()
        if find_spec("trackio") is None:
            raise ValueError("logger=trackio needs the package trackio; pip install 'lightning-rm[trackio]'")
        self._project, self._name, self._group = project, os.path.relpath(folder), group
        self._run: Any = None

    @property
    def name(self) -> str:
        """The project's."""
        return self._project

    @property
    def version(self) -> str:
        """The run's name."""
        return self._name

    @property
    def experiment(self) -> Any:
        """Trackio's run, begun at the first metric."""
        if self._run is None:
            trackio = import_module("trackio")
            resume, self.goes_on = ("allow" if self.goes_on else "never"), True  # it is tested after it is trained
            self._run = trackio.init(
                project=self._project, name=self._name, group=self._group, resume=resume, embed=False
            )
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log what was measured at a step."""
        self.experiment.log({name: float(value) for name, value in metrics.items()}, step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Log nothing: the run's folder has its configuration."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is still waiting."""
        if self._run is not None:
            self._run.finish()
            self._run = None


class Utf8Files(LocalFileSystem):
    """Files of this machine, their text in UTF-8 whatever the locale; one that is written anew is swapped whole."""

    def open(self, path: str, mode: str = "rb", *args: Any, **options: Any) -> Any:
        """Return a context of the open file; an error of the disk names it."""
        return _opened(Path(path), mode, options if "b" in mode else {"encoding": "utf-8", **options})


@contextmanager
def _opened(path: Path, mode: str, options: dict[str, Any]) -> Generator[Any]:
    whole = draft_of(path) if "w" in mode else naming(path)
    with whole as draft, (draft or path).open(mode, **options) as file:
        yield file


class ResumableCSVLogger(CSVLogger):
    """Lightning's CSVLogger, except that rows which its folder has from before `goes_on_from` stay.

    Lightning removes an earlier file at once. Here what is not kept goes with the first row that is logged, so that a
    run that fails before it loses nothing. At 0, where a run begins anew, nothing is kept:

        rows of steps 0 1 2 3 4 5, goes_on_from 4  ->  0 1 2 3, then what is logged

    A checkpoint of a validation is of the step before: step 3 is logged again, and what it has logged stays. A run that
    goes on in another folder takes those rows from the file `before`.
    """

    goes_on_from: int = 0
    """The optimizer steps that are done where the run goes on; `GoOn` sets it."""
    before: Path | None = None
    """The file of the run that this one continues; `GoOn` sets it."""
    _kept: set[tuple[int, str]] | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """Lightning's writer; the file outlives its making."""
        if self._experiment is None:
            file, aside = self._file, self._file.with_suffix(".kept")
            if file.exists():
                file.replace(aside)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Experiment logs directory.*")
                writer = cast(ExperimentWriter, super().experiment)
            writer._fs = Utf8Files()  # pyright: ignore[reportPrivateUsage]  # sets have names in any language
            self._experiment = writer
            if aside.exists():
                aside.replace(file)
        return cast(ExperimentWriter, self._experiment)

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Tensor | float], step: int | None = None) -> None:
        """Log what the step has not logged before the run was stopped."""
        if self._kept is None:
            self._kept = self._keep()
        new = {name: value for name, value in metrics.items() if name == "epoch" or (step, name) not in self._kept}
        if new.keys() - {"epoch"}:
            super().log_metrics(new, step)

    @property
    def _file(self) -> Path:
        return Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE

    def _keep(self) -> set[tuple[int, str]]:
        """Leave the rows before `goes_on_from` in the file; steps and metrics of the cells that hold a value."""
        writer, file = self.experiment, self._file
        earlier = file if file.exists() or self.before is None else self.before
        if not earlier.exists():
            return set()
        text = earlier.read_text(encoding="utf-8")
        reader = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())  # without half a row of a full disk
        names = list(reader.fieldnames or ())
        rows = [row for row in reader if row["step"] and int(row["step"]) < self.goes_on_from]
        if not rows:
            file.unlink(missing_ok=True)
            return set()
        with draft_of(file) as draft, draft.open("w", newline="", encoding="utf-8") as opened:
            table = csv.DictWriter(opened, names)
            table.writeheader()
            table.writerows(rows)
        writer.metrics_keys = names
        return {(int(row["step"]), name) for row in rows for name, cell in row.items() if cell}
