"""A folder is the old one or the new one, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from lightning_rm import folder_drafts
from lightning_rm.drafts import check_place, draft_of, naming
from lightning_rm.folder_drafts import folder_draft


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("exchanges", [True, False])
def test_the_folder_is_swapped_and_what_is_kept_stays(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanges:
        monkeypatch.setattr(folder_drafts, "_exchange", lambda first, second: False)
    target = tmp_path / "model"
    for written in ("one", "two"):
        with folder_draft(target, keep=lambda name: name.startswith("my")) as draft:
            (draft / written).write_text(written)
            (draft / "inner").mkdir()
            (draft / "inner" / "same").write_text(written)
        if written == "one":
            (target / "my_notes").mkdir()
            (target / "my_notes" / "a").write_text("kept")
            (target / "mymodel").write_text("kept")
            target.chmod(0o750)
    assert names(target) == ["inner", "inner/same", "my_notes", "my_notes/a", "mymodel", "two"]
    assert (target / "inner" / "same").read_text() == "two"
    assert names(tmp_path)[:1] == ["model"]
    assert len(list(tmp_path.iterdir())) == 1
    assert target.stat().st_mode & 0o777 == 0o750


def test_an_error_leaves_the_old_folder_and_no_draft(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with folder_draft(target) as draft:
        (draft / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), folder_draft(target) as draft:  # noqa: PT012  # the error comes half-way
        (draft / "a").write_text("new")
        raise KeyboardInterrupt
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["model", "model/a"]


def test_a_killed_process_leaves_the_old_folder_and_its_draft_is_cleared_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with folder_draft(target) as draft:
        (draft / "a").write_text("old")
    child = os.fork()
    if child == 0:
        with folder_draft(target) as draft:
            (draft / "a").write_text("new")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert (target / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    with folder_draft(target) as draft:
        (draft / "a").write_text("newer")
    assert (target / "a").read_text() == "newer"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_files_drafts_of_killed_processes_are_cleared_by_the_next(tmp_path: Path) -> None:
    target = tmp_path / "[a].parquet"
    if (child := os.fork()) == 0:
        with draft_of(target) as draft:
            draft.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (tmp_path / "other.tmp").write_text("a user's")
    assert len(names(tmp_path)) == 2
    with draft_of(target) as living, draft_of(target) as draft:
        living.write_text("first")
        draft.write_text("whole")
        assert len(names(tmp_path)) == 3
    assert names(tmp_path) == ["[a].parquet", "other.tmp"]


def test_a_living_process_keeps_its_draft(tmp_path: Path) -> None:
    with folder_draft(tmp_path / "model") as first, folder_draft(tmp_path / "model") as second:
        (first / "a").write_text("first")
        (second / "a").write_text("second")
    assert (tmp_path / "model" / "a").read_text() == "first"  # which ended last


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with folder_draft(tmp_path / "link") as draft:
        (draft / "a").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["a"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), RuntimeError("I/O error: full (os error 28)")])
def test_a_full_disk_names_the_file_whoever_says_so(tmp_path: Path, error: Exception) -> None:
    """safetensors has an error of its own with the system's number in its words."""
    for swapped in (folder_draft, draft_of):
        with pytest.raises(OSError, match="No space left on device") as caught, swapped(tmp_path / "model"):
            raise error
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "model"))
    with pytest.raises(RuntimeError, match="ours"), folder_draft(tmp_path / "model"):
        raise RuntimeError("a fault of ours")
    assert names(tmp_path) == []


def test_a_draft_that_cannot_be_written_is_named_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that is read-only, which does not even remove what is not there; other files keep their names."""

    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    for swapped in (folder_draft, draft_of):
        with pytest.raises(OSError, match="Read-only") as caught, swapped(tmp_path / "model") as draft:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(draft))
        assert caught.value.filename == str(tmp_path / "model")
        with pytest.raises(FileNotFoundError) as caught, swapped(tmp_path / "model"):
            (tmp_path / "other").read_text()
        assert caught.value.filename == str(tmp_path / "other")
    with pytest.raises(OSError, match="No space") as caught, naming(tmp_path / "grows"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.filename == str(tmp_path / "grows")
    assert names(tmp_path) == []


def test_a_place_is_checked_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    for good in ("file", "new", "a/b/new"):
        check_place(tmp_path / good)
    for good in ("folder", "new", "a/b/new"):
        check_place(tmp_path / good, folder=True)
    with pytest.raises(IsADirectoryError, match=r"there is a folder in the place of the file: .*folder'"):
        check_place(tmp_path / "folder")
    for folder, bad in ((True, "file"), (True, "file/a"), (False, "file/a/b")):
        with pytest.raises(NotADirectoryError, match=r"there is a file in the place of the folder: .*file'"):
            check_place(tmp_path / bad, folder=folder)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # to whom root is not everything
    with pytest.raises(PermissionError, match="it cannot be written"):
        check_place(tmp_path / "a" / "new")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("name", [".", "..", ""])
def test_a_folder_that_the_process_works_in_is_not_replaced(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stands in it, the user's shell too, would stand in a folder that is gone."""
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    with pytest.raises(OSError, match="this process works there, and the folder is replaced whole"), folder_draft(name):
        pass
    with folder_draft("model"):
        pass
    assert [path.name for path in Path.cwd().iterdir()] == ["model"]


def test_a_file_in_the_folders_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    with pytest.raises(NotADirectoryError, match="there is a file"), folder_draft(tmp_path / "model"):
        pass
    assert (tmp_path / "model").read_text() == "a file"
    with pytest.raises(NotADirectoryError, match="there is a file"), draft_of(tmp_path / "model" / "a"):
        pass
