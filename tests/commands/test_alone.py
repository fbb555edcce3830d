"""What is written by one process at a time: a second one is told, and nothing is left of the lock."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from lightning_rm.commands import _alone
from lightning_rm.commands._alone import writing_alone
from tests.commands.conftest import Cli


@pytest.mark.parametrize(
    "line",
    [
        "score model=model in=in.jsonl out=new/out",
        "annotate voters=model data=jsonl data.file=in.jsonl out=new/out",
        "evaluate models=model data=jsonl data.file=in.jsonl out=new/out",
        "weigh policy=model data=jsonl data.file=in.jsonl out=new/out",
        "sample policy=model data=jsonl data.file=in.jsonl out=new/out",
        "curate data=jsonl data.file=in.jsonl out=new/out",
        "rlhf policy=model data=jsonl data.file=in.jsonl out=new/out",
    ],
)
def test_a_second_command_that_writes_the_same_names_it(
    line: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_alone, "WAIT_SECONDS", 0.0)
    (tmp_path / "new").mkdir()
    with FileLock(tmp_path / "new/.out.lock"):
        said = cli(*line.split())
        assert (said.code, said.err.splitlines()[-1]) == (
            1,
            f"error: another {line.split()[0]} is writing new/out; wait until it has ended, or name another with out=",
        )
    assert not (tmp_path / "new/out").exists()


def test_a_lock_goes_with_its_block_and_so_do_folders_that_nothing_was_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a/b/out.jsonl"
    with writing_alone(out, "score"):
        assert [path.name for path in out.parent.iterdir()] == [".out.jsonl.lock"]
    assert not (tmp_path / "a").exists()
    with writing_alone(out, "score"):
        out.touch()
    assert list(out.parent.iterdir()) == [out]
    monkeypatch.setenv("RANK", "1")
    with writing_alone(out, "score"):
        assert list(out.parent.iterdir()) == [out]


def test_where_nothing_can_be_written_the_command_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with writing_alone(tmp_path / "file/out.jsonl", "score"):
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
