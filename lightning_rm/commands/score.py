"""`lightning-rm score`: a reward for every response of a file."""

from __future__ import annotations

from functools import partial

from omegaconf import DictConfig

from lightning_rm.commands._config import plain_console, require_all, resolved
from lightning_rm.commands._engine import scoring_engine
from lightning_rm.commands._entry import command
from lightning_rm.commands._progress import Bar, resumable
from lightning_rm.scoring.files import FileReport, score_file


def score(cfg: DictConfig) -> FileReport:
    """Score a file.

    Args:
        cfg: `conf/score.yaml`, composed.

    Returns:
        What became of its rows.
    """
    require_all(cfg)
    console = plain_console()
    with (
        resumable("scored"),
        scoring_engine(cfg) as (fabric, engine),
        Bar(console, shown=fabric.global_rank == 0) as bar,
    ):
        report = score_file(
            cfg.model,
            cfg["in"],
            cfg.out,
            weights=cfg.weights,
            format=cfg.format,
            columns=resolved(cfg.columns),
            prefill=cfg.prefill,
            best=cfg.best,
            each_member=cfg.each_member,
            prefix=cfg.prefix,
            max_tokens=cfg.max_tokens,
            overwrite=cfg.overwrite,
            dtype=cfg.dtype,
            fabric=fabric,
            layout=cfg.layout.layout,
            batch_tokens=cfg.batch_tokens,
            shard_rows=cfg.shard_rows,
            engine=engine,
            progress=partial(bar.show, "rows"),
        )
    if fabric.global_rank == 0:
        for line in summary(report):
            console.print(line, soft_wrap=True)
    return report


def summary(report: FileReport) -> list[str]:
    """Return what to say of a file that is scored."""
    lines = [
        f"{report.num_rows:,} rows, {report.num_responses:,} responses; {report.num_scored:,} distinct conversations "
        "scored"
    ]
    lines += [f"  {count:,} {remark}" for remark, count in report.remarks.items()]
    if report.refused:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in report.refused.items())
        lines.append(f"rows with a response that has no reward: {sum(report.refused.values()):,} ({reasons})")
        lines += [f"  {example}" for example in report.examples]
    return [*lines, f"  {report.path}"]


@command("score", alone=True)
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    score(cfg)


if __name__ == "__main__":
    main()
