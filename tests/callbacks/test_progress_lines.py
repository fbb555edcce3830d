"""A log that is a file gets a line with the first loss, and then a line a minute."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console

from lightning_rm.callbacks import ProgressLines
from lightning_rm.commands._progress import Bar
from tests.toy import toy_data, toy_module, toy_trainer


def test_a_line_a_minute(tmp_path: Path) -> None:
    """Every look at the clock takes a quarter of a minute: one a batch, 18 of training and six of validation."""
    now, lines = iter(range(0, 10_000, 15)), []
    progress = ProgressLines(clock=lambda: next(now), say=lines.append)
    trainer = toy_trainer(tmp_path, max_epochs=3, callbacks=[progress], log_every_n_steps=1)
    trainer.fit(toy_module(), toy_data())
    assert 4 <= len(lines) <= 11
    steps = [line for line in lines if line.startswith("step ")]
    assert re.fullmatch(
        r"step [12] of 18, epoch 1 of 3, loss 0\.\d+, accuracy 0\.\d+, margin -?0\.\d+, "
        r"0\.\d+ steps \(0\.\d+ pairs\) a second, \d+ min left",
        steps[0],
    )
    told = ProgressLines(seconds=0, clock=lambda: next(now), say=lines.append)
    toy_trainer(tmp_path, callbacks=[told]).test(toy_module(), toy_data(), verbose=False)
    assert lines[-1] == "testing test: batch 2"


def test_a_bar_says_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    now = iter(range(0, 10_000, 25))
    with (tmp_path / "log").open("w") as file, Bar(Console(file=file), clock=lambda: next(now)) as bar:
        task = bar.add_task("runs/[/b]", total=10)
        for done in range(10):
            bar.update(task, completed=done)
    lines = [line for line in (tmp_path / "log").read_text().splitlines() if line]  # rich 13.8 ends with an empty one
    assert lines == ["runs/[/b]: 2 of 10", "runs/[/b]: 5 of 10", "runs/[/b]: 8 of 10"]


def test_what_is_shown_is_a_task_of_its_own_by_its_key() -> None:
    with Bar(Console(), shown=False) as bar:
        for done in (1, 3):
            bar.show("best", done, 4, key="runs/0/best")
        bar.show("best", 2, None, key="runs/1/best")
        bar.show("rows", 5, 5)
        bar.show("rows", 6, 7)
        assert [(task.description, task.completed, task.total) for task in bar.tasks] == [
            ("best", 3, 4),
            ("best", 2, None),
            ("rows", 6, 7),
        ]
