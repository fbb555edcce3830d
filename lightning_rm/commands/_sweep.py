"""What became of each job of a multirun: one that fails stops no other, and the sweep says which did.

It knows folders and Hydra's callbacks; no command. A job leaves a word in its own folder, so that it does not matter
which process or machine a launcher ran it on.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.table import Table

WORD = "job.json"
"""The file in a job's folder: its overrides, and the first line of what went wrong."""


def in_sweep() -> bool:
    """Tell whether this is a job of a multirun."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def leave_word(error: str | None) -> None:
    """Say in the job's folder that it is done, or what went wrong."""
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    word = {"overrides": list(job.overrides.task), "error": error}
    (folder / WORD).write_text(json.dumps(word) + "\n", encoding="utf-8")


class SweepTable(Callback):
    """Hydra calls it before and after a multirun; it ends one in which a job failed, or was lost, with exit code 1."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget the words of an older sweep in the folder."""
        for word in Path(config.hydra.sweep.dir).glob(f"*/{WORD}"):
            word.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Show what became of each job, if one failed."""
        found = words_of(Path(config.hydra.sweep.dir))
        failed = [folder for folder, word in found.items() if word["error"] is not None]
        if not failed:
            return
        console = Console(stderr=True, markup=False, highlight=False)
        table = Table(title=f"{len(failed)} of {len(found)} jobs failed", title_justify="left")
        for heading in ("job", "overrides", "what went wrong"):
            table.add_column(heading, overflow="fold")
        for folder in sorted(found, key=lambda path: (len(path.name), path.name)):
            table.add_row(folder.name, " ".join(found[folder]["overrides"]), found[folder]["error"] or "done")
        console.print(table)
        console.print("each of them again, alone:")
        for folder in failed:
            words = [*found[folder]["overrides"], f"hydra.run.dir={folder}"]
            words += ["resume=auto"] if config.hydra.job.config_name == "train" else []
            console.print(f"  {shlex.join(['lightning-rm', config.hydra.job.config_name, *words])}", soft_wrap=True)
        raise SystemExit(1)


def words_of(sweep: Path) -> dict[Path, dict[str, Any]]:
    """Return what became of each job that was begun, by its folder; one that left no word was lost."""
    found = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in sweep.glob(f"*/{WORD}")}
    for noted in sweep.glob("*/.hydra/overrides.yaml"):
        job = noted.parent.parent
        if job not in found:
            overrides: list[str] = list(cast(ListConfig, OmegaConf.load(noted)))
            found[job] = {"overrides": overrides, "error": "lost: it was killed, or its machine went away"}
    return dict(sorted(found.items()))
