"""`lightning-rm report`: runs side by side on one page."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_rm.analysis.report import report as report_on
from lightning_rm.commands._config import plain_console, require_all
from lightning_rm.commands._entry import command


def report(cfg: DictConfig) -> list[Path]:
    """Write the page, and say where it lies.

    Args:
        cfg: `conf/report.yaml`, composed.

    Returns:
        The files written.
    """
    require_all(cfg)
    if OmegaConf.is_config(cfg.reference):
        raise ValueError(f"reference={cfg.reference}; name one method, which the others are compared with")
    names = ("runs", "out", "reference", "metrics", "strength", "benchmarks", "num_worst")
    told = {name: OmegaConf.to_container(cfg[name]) if OmegaConf.is_list(cfg[name]) else cfg[name] for name in names}
    written = report_on(**told)  # pyright: ignore[reportArgumentType]  # Hydra knows no types
    page, text, *figures = written
    console = plain_console()
    for path in (page, text, *dict.fromkeys(path.parent for path in figures)):
        console.print(f"  {path}", soft_wrap=True)
    return written


@command("report")
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    report(cfg)


if __name__ == "__main__":
    main()
