"""`lightning-rm rlhf`: rounds of sampling, reward modelling, policy improvement and judging, each stage once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from rich.console import Console

from lightning_rm.analysis.plots.rounds import rounds_figure
from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.commands._config import plain_console, require_all, say_files
from lightning_rm.commands._entry import arguments, command
from lightning_rm.commands._folder import check_no_run
from lightning_rm.commands._process import Run, as_a_process
from lightning_rm.commands._progress import resumable
from lightning_rm.commands._round_checks import check_all, check_settings
from lightning_rm.commands._round_setup import Setup
from lightning_rm.commands._rounds import RoundStages
from lightning_rm.commands._tables import words_table
from lightning_rm.drafts import check_place
from lightning_rm.rlhf.measures import read_judged
from lightning_rm.rlhf.round_table import RoundTable, read_rounds
from lightning_rm.rlhf.rounds import Round, Stage, is_made, run_rounds, settle


def rlhf(cfg: DictConfig, words: Sequence[str] = (), run: Run | None = None) -> RoundTable | None:
    """Run all rounds, or one stage of one, and say what came out.

    Args:
        cfg: `conf/rlhf.yaml`, composed.
        words: the command line that it was composed from; what concerns training is handed on.
        run: runs a command; None for a process of its own.

    Returns:
        The rounds; None after a single stage.
    """
    require_all(cfg)
    out = Path(cfg.out)
    check_place(out, folder=True)
    check_no_run(cfg.out)
    console = plain_console()
    made = RoundStages(Setup(cfg, words, run or as_a_process, console))
    check_settings(made)
    stages = made.all()
    with resumable("made"):
        if cfg.stage is not None:
            _one(cfg, stages, console, check=lambda: check_all(made))
            return None
        check_all(made)
        rounds = run_rounds(
            out,
            stages,
            cfg.rounds,
            worth=lambda round: read_judged(round.folder)[0].worth,
            patience=cfg.patience,
            overwrite=cfg.overwrite,
            after_stage=lambda stage, round, is_new: _say(console, stage, round, is_new),
        )
    table = read_rounds(rounds, stopped=len(rounds) <= cfg.rounds)
    files = [*table.write(out), *save_figure(rounds_figure(table.series()), out / "rounds")]
    _log(cfg, table)
    console.print(words_table(_turned(table.rows())))
    for line in table.notes():
        console.print(line, soft_wrap=True)
    say_files(console, *files)
    return table


def _one(cfg: DictConfig, stages: Sequence[Stage], console: Console, check: Callable[[], None]) -> None:
    """Run one stage of one round."""
    named = {stage.name: stage for stage in stages}
    if cfg.stage not in named:
        raise ValueError(f"stage={cfg.stage!r}: the stages of this run are {', '.join(named)}")
    stage = named[cfg.stage]
    if cfg.round < stage.first:
        raise ValueError(f"round={cfg.round}: the first round with a stage {stage.name} is {stage.first}")
    if stage.name == "sample":
        check()
    round = Round(Path(cfg.out), cfg.round)
    if stage.name == "judge" and round.number:
        _check_start(stage, Round(Path(cfg.out), 0))
    _say(console, stage, round, settle(stage, round, overwrite=cfg.overwrite))


def _check_start(stage: Stage, start: Round) -> None:
    """Check that the start policy, which a later round is held against, was judged as that round will be.

    Raises:
        ValueError: if it was not, or in another way.
    """
    if not is_made(stage, start):
        raise ValueError(
            f"{start.folder} is not judged yet, and later rounds are held against it; judge it first (stage=judge "
            "round=0)"
        )


def _say(console: Console, stage: Stage, round: Round, is_new: bool) -> None:
    console.print(f"round {round.number}: {stage.name}{'' if is_new else ' is there already'}")


def _turned(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return a table with its columns as rows: rounds are few, and measures many."""
    first, *others = rows[0]
    return [{first: name, **{row[first]: row[name] for row in rows}} for name in others]


def _log(cfg: DictConfig, table: RoundTable) -> None:
    """Have every logger log the measures of every round, its number as the step."""
    loggers: list[Logger] = list(instantiate(cfg.logger.loggers).values())
    for logger in loggers:
        for number, metrics in table.metrics().items():
            logger.log_metrics(metrics, step=number)
        logger.save()
        logger.finalize("success")


@command("rlhf", alone=True)
def main(cfg: DictConfig) -> Any:
    """Run as the Hydra entry point."""
    rlhf(cfg, arguments())


if __name__ == "__main__":
    main()
