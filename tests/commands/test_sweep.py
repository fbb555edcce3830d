"""A sweep says which of its jobs failed or were lost, and how each runs again alone; every grid is of keys that are."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from filelock import FileLock
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from lightning_rm.commands import _alone, _sweep
from lightning_rm.commands._config import conf_dir
from lightning_rm.commands._job import LOST, WORD
from lightning_rm.commands._keys import check_keys
from lightning_rm.commands._plugins import check_search
from lightning_rm.commands._sweep import NOT_BEGUN, Sweep, show
from lightning_rm.commands._words import parse
from tests.commands.conftest import Cli

SWEEPS = sorted((Path(conf_dir()) / "grid").glob("*.yaml"))


def left(folder: Path, overrides: list[str], error: str | None, host: str = "", process: int = 0) -> None:
    word = {"overrides": overrides, "error": error, "process": [host or socket.gethostname(), process or os.getpid()]}
    folder.mkdir(parents=True)
    (folder / WORD).write_text(json.dumps(word))


def test_a_job_that_did_not_come_to_its_end_is_told_and_runs_again_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six jobs: done, lost on this machine, still running, on another machine, failed, never begun."""
    jobs = [[f"seed={number}", "name=a b"] for number in range(6)]
    left(tmp_path / "0", jobs[0], None)
    left(tmp_path / "1", jobs[1], LOST)
    left(tmp_path / "2", jobs[2], LOST, process=os.getppid())
    left(tmp_path / "3", [*jobs[3], "resume=auto"], LOST, "another")
    left(tmp_path / "4", jobs[4], "it went wrong")
    monkeypatch.setenv("COLUMNS", "300")
    assert show(Sweep(tmp_path, jobs), "train", ["-m", "allow_targets=true", "seed=range(6)", "name=a b"])
    said = capsys.readouterr().err
    assert "5 of 6 jobs are not done" in said
    for number, what in enumerate(("done", LOST, "still running", "another, process", "it went wrong", NOT_BEGUN)):
        assert re.search(rf"│ {number} +│ seed={number} name=a b .*│ .*{re.escape(what)}", said)
        words = f"allow_targets=true seed={number} 'name=a b' hydra.run.dir={tmp_path}/{number} resume=auto"
        assert (f"lightning-rm train {words}" in said) == (number != 0)
    words = f"-m allow_targets=true 'seed=range(6)' 'name=a b' hydra.sweep.dir={tmp_path} resume=auto"
    assert f"lightning-rm train {words}" in said
    assert not show(Sweep(tmp_path / "none", []), "train", ["-m"])


def test_jobs_lie_as_deep_as_a_sweep_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`hydra.sweep.subdir` may have several folders, and signs that Hydra reads within quotes alone."""
    left(tmp_path / "a" / "seed=0", ["seed=0"], None)
    left(tmp_path / "a" / "seed=1", ["seed=1"], "it went wrong")
    left(tmp_path / "inner" / "2", ["seed=2"], "of a sweep of its own")
    (tmp_path / "inner" / _alone.LOCK).touch()
    assert show(Sweep(tmp_path, [["seed=0"], ["seed=1"]]), "train", ["-m", "--config-dir", "more", "seed=0,1"])
    said = capsys.readouterr().err
    assert "1 of 2 jobs are not done" in said
    folder = f"'hydra.run.dir=\"{tmp_path}/a/seed=1\"'"
    assert f"\n  lightning-rm train --config-dir more seed=1 {folder} resume=auto\n" in said


def test_a_second_sweep_in_a_folder_names_it(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it takes away the first one's words; afterwards, and where a killed one has left its file, it begins."""
    monkeypatch.setattr(_alone, "WAIT_SECONDS", 0.0)
    left(tmp_path / "sweep" / "0", ["seed=0"], None)
    words = ("train", "-m", "seed=0", "data.file=none.jsonl", "data=jsonl", "hydra.sweep.dir=sweep")
    with FileLock(tmp_path / "sweep" / _alone.LOCK):
        said = cli(*words)
    assert said.code == 1
    assert said.err == (
        "error: another sweep is at work in sweep; wait until it has ended, or name another folder with "
        "hydra.sweep.dir=\n"
    )
    assert (tmp_path / "sweep" / "0" / WORD).is_file()
    for _ in range(2):
        said = cli(*words)
        assert (said.code, "1 of 1 jobs are not done" in said.err) == (1, True)
        assert "another sweep" not in said.err


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        (["evaluate", "models=none", "num_draws=1,2"], "runs/evaluation"),
        (["curate", "data.file=none.jsonl", "policy=soft,drop", "out=one"], "one"),
        (["curate", "data.file=none.jsonl", "policy=soft,drop", "out=of_${policy}"], ""),
        (["curate", "data.file=none.jsonl", "policy=soft,drop", "out=of_${hydra:job.num}"], ""),
        (["rlhf", "policy=none", "data.file=none.jsonl", "out=one", "stage=judge", "round=1,2"], ""),
    ],
)
def test_jobs_do_not_write_over_each_others_results(words: list[str], shared: str, cli: Cli) -> None:
    """Each was told as done, and the last one's file was all that was left."""
    said = cli(words[0], "-m", *words[1:], "hydra.sweep.dir=sweep")
    assert said.code == 1
    assert ("would be written over by the next job" in said.err) == bool(shared)
    assert f"'out=\"{shared}_${{hydra:job.num}}\"'" in said.err or not shared
    assert ("2 of 2 jobs are not done" in said.err) != bool(shared)


@pytest.mark.parametrize("words_fit", [True, False])
def test_a_full_disk_ends_a_sweep_in_words(words_fit: bool, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra would answer with a traceback where it begins the next job; what the disk did not take is in the table."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "best.ckpt")

    def leave(error: str | None, result: Any = None) -> None:
        if error != LOST and not words_fit:
            raise full
        write(error, result)

    write = _sweep.leave_word
    monkeypatch.setattr(_sweep, "leave_word", leave)
    monkeypatch.setattr("lightning_rm.commands._checks.check_config", Mock(side_effect=full))
    said = cli("train", "-m", "seed=0,1", "hydra.sweep.dir=sweep")
    assert said.code == 1
    assert said.err.startswith("error: best.ckpt: No space left on device; what was written before is whole. Make room")
    assert "Traceback" not in said.err
    assert re.search(r"│ 0 +│ seed=0 +│ best.ckpt: No space left on device", said.err)
    assert re.search(rf"│ 1 +│ seed=1 +│ {NOT_BEGUN}", said.err)


def test_a_launcher_that_is_not_installed_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Composed with another folder, so that it is composed anew."""
    check_keys("train", ["launcher=joblib"], str(tmp_path))
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "joblib.yaml")
    with pytest.raises(ValueError, match=r"launcher=joblib: this needs pip install 'lightning-rm\[sweep\]'"):
        check_keys("train", ["launcher=joblib"], str(tmp_path))


@pytest.mark.parametrize(("word", "shared"), [("out=one", True), ("out=choice(one,two)", False)])
def test_jobs_of_a_search_do_not_write_over_each_others_results(word: str, shared: bool, cli: Cli) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs lightning-rm[sweep]")
    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep", "policy=choice(soft,drop)"]
    said = cli("curate", "-m", "data.file=none.jsonl", word, *search)
    assert said.code == 1
    assert ("out=one would be written over by the next job" in said.err) == shared


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("monitor=null", "error: monitor=null, and a search goes by it: set a metric, as monitor=val/accuracy\n"),
        ("check=true", "error: no run of this search has come to a number to search by (monitor=)\n"),
    ],
)
def test_a_search_without_a_number_to_go_by_is_a_sentence(word: str, told: str, cli: Cli) -> None:
    """NaN was a traceback of Optuna's, from the first run on."""
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="needs lightning-rm[sweep]")
    few = ["data.num_pairs=8", "data.num_val=8", "data.num_test=8", "logger=none"]
    said = cli("train", "-m", *few, "grid=optuna", "hydra.sweeper.n_trials=2", "hydra.sweep.dir=sweep", word)
    assert (said.code, told in said.err) == (1, True)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("n_trials=0", r"hydra.sweeper.n_trials=0; give 1 or more"),
        ("n_jobs=many", r"hydra.sweeper.n_jobs=many; give 1 or more"),
        (
            "storage=study.db",
            r"storage='study.db' cannot be opened \(Could not parse .*give a database .* sqlite:///study",
        ),
        ("storage='sqlite:////proc/x.db'", r"storage='sqlite:////proc/x.db' cannot be opened \(.*unable to open"),
    ],
)
def test_what_a_search_is_told_is_checked_before_it(word: str, message: str) -> None:
    pytest.importorskip("optuna", reason="needs lightning-rm[sweep]")
    with pytest.raises(ValueError, match=message):
        check_search(parse([f"hydra.sweeper.{word}"]))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_grid_is_of_keys_that_are(path: Path) -> None:
    params: dict[str, Any] = OmegaConf.to_object(OmegaConf.load(path).hydra.sweeper.params)  # pyright: ignore
    words = [f"{key}={value}" for key, value in params.items()]
    module = "contrastive" if "module.beta" in params else "meta" if "module.ascent_lr" in params else "baseline"
    check_keys("train", [f"module={module}", *words])
    assert all(override.is_sweep_override() for override in OverridesParser.create().parse_overrides(words))
