"""`lightning-rm report`: runs side by side on one page."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from lightning_rm.analysis.page.blocks import Table
from lightning_rm.analysis.report import checked_page, report_page, write_page
from lightning_rm.commands._config import plain, plain_console, require_all, say_files
from lightning_rm.commands._entry import command
from lightning_rm.commands._tables import words_table
from lightning_rm.evaluation.tables import plain_line


def report(cfg: DictConfig) -> list[Path]:
    """Write the page, show its results, and say where it lies.

    Args:
        cfg: `conf/report.yaml`, composed.

    Returns:
        The files written.
    """
    require_all(cfg)
    if OmegaConf.is_config(cfg.reference):
        raise ValueError(f"reference={cfg.reference}; name one method, which the others are compared with")
    out = checked_page(cfg.out)
    names = ("runs", "reference", "metrics", "strength", "benchmarks", "num_worst")
    page = report_page(**{name: plain(cfg[name]) for name in names})
    written = write_page(page, out)
    console = plain_console()
    for section in (section for section in page.sections if section.compares):  # run by run, and pair by pair
        for table in (block for block in section.blocks if isinstance(block, Table)):
            console.print(plain_line(table.caption), words_table(_in_words(table)))
        if section.lead:
            console.print(plain_line(section.lead))
    whole, text, *figures = written
    say_files(console, whole, text, *dict.fromkeys(path.parent for path in figures))
    return written


def _in_words(table: Table) -> list[dict[str, str]]:
    """Return a table's rows, what is said beneath a value in a line of its own."""
    rows = [zip(table.columns, table.cells(row), strict=True) for row in table.rows]
    return [{column: f"{cell.text}\n{cell.note}".rstrip() for column, cell in row} for row in rows]


@command("report")
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    report(cfg)


if __name__ == "__main__":
    main()
