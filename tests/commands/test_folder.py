"""What a run writes at its end, and in which order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_rm.commands import _folder

RESULTS = {"test": {"accuracy": 0.5, "num_pairs": 2.0}}


def test_results_come_last_for_they_say_that_a_run_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def draw(run: Path) -> list[Path]:
        seen.append((run / "results.json").exists())
        return []

    monkeypatch.setattr(_folder, "write_figures", draw)
    _folder.report(tmp_path, RESULTS)
    assert seen == [False]
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS


@pytest.mark.parametrize("error", [ValueError("no rewards"), OSError(28, "full", "figures"), KeyboardInterrupt()])
def test_figures_that_fail_cost_no_result(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(run: Path) -> list[Path]:
        raise error

    monkeypatch.setattr(_folder, "write_figures", draw)
    if isinstance(error, ValueError):
        _folder.report(tmp_path, RESULTS)
        assert "no figures: no rewards" in capsys.readouterr().out
    else:
        with pytest.raises(type(error)):
            _folder.report(tmp_path, RESULTS)
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS
