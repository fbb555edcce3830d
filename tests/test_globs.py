"""Names of paths: those that are there before those that match."""

from __future__ import annotations

from pathlib import Path

from lightning_rm.evaluation.asked import find_models
from lightning_rm.globs import is_glob, named_paths


def test_a_path_that_is_there_is_no_glob(tmp_path: Path) -> None:
    for name in ("a", "b", "a[1]"):
        (tmp_path / name).mkdir()
    assert named_paths(tmp_path / "a[1]") == [tmp_path / "a[1]"]
    assert named_paths(tmp_path / "[ab]") == [tmp_path / "a", tmp_path / "b"]
    assert named_paths(tmp_path / "c*") == []
    assert [is_glob(tmp_path / name) for name in ("a", "a[1]", "[ab]", "c")] == [False, False, True, False]
    assert find_models(tmp_path / "a[1]") == {str(tmp_path / "a[1]"): tmp_path / "a[1]"}
