"""What a run writes at its end, and in which order."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import Mock

import pytest
from filelock import FileLock
from omegaconf import OmegaConf

from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.commands import _ended, _folder
from lightning_rm.commands._alone import RUN_LOCK
from lightning_rm.commands._data import start_of
from lightning_rm.commands._found import STOPPED, changes, check_free, has_come_to, take_runs
from lightning_rm.commands._trainings import train_in

RESULTS = {"test": {"accuracy": 0.5, "num_pairs": 2.0}}


def test_results_come_last_for_they_say_that_a_run_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def draw(run: Path) -> list[Path]:
        seen.append((run / "results.json").exists())
        return []

    monkeypatch.setattr(_ended, "write_figures", draw)
    _ended.report(tmp_path, RESULTS)
    assert seen == [False]
    assert json.loads((tmp_path / "results.json").read_text()) == RESULTS


@pytest.mark.parametrize("error", [ValueError("no rewards"), OSError(28, "full", "figures"), KeyboardInterrupt()])
def test_figures_that_fail_cost_no_result(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(run: Path) -> list[Path]:
        raise error

    monkeypatch.setattr(_ended, "write_figures", draw)
    if isinstance(error, ValueError):
        _ended.report(tmp_path, RESULTS)
        assert "no figures: no rewards" in capsys.readouterr().out
    else:
        with pytest.raises(type(error)):
            _ended.report(tmp_path, RESULTS)
    if isinstance(error, KeyboardInterrupt):  # a run that is stopped here is made whole by the next start
        assert not (tmp_path / "results.json").exists()
    else:
        assert json.loads((tmp_path / "results.json").read_text()) == RESULTS


def test_what_a_stop_left_goes_when_the_run_has_ended(tmp_path: Path) -> None:
    last, left = (tmp_path / "checkpoints" / f"{name}.ckpt" for name in ("last", "resume"))
    for make in (Path.mkdir, Path.touch, lambda _: None):  # of shards, a file, none
        last.mkdir(parents=True, exist_ok=True)
        make(left)
        _ended.clear_stopped(tmp_path)
        assert list(last.parent.iterdir()) == [last]


@pytest.mark.parametrize(
    ("checkpoint", "of_shards"), [(STOPPED, False), (STOPPED, True), ("checkpoints/last.ckpt", False)]
)
def test_a_training_with_a_checkpoint_goes_on_and_what_another_left_is_removed(
    checkpoint: str, of_shards: bool, tmp_path: Path
) -> None:
    """A checkpoint of shards is a folder; a kill leaves that of the last validation."""
    stopped, dead = tmp_path / "stopped", tmp_path / "dead"
    for run in (stopped, dead):
        (run / "checkpoints").mkdir(parents=True)
    left = stopped / checkpoint
    (left.mkdir if of_shards else left.touch)()
    words = [train_in(run, ["a=1"]) for run in (stopped, dead)]
    assert words == [["train", "a=1", f'hydra.run.dir="{run}"', "resume=auto"] for run in (stopped, dead)]
    assert (left.exists(), dead.exists()) == (True, False)


def test_settings_that_change_on_the_way_are_kept_with_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rates of 1, of 2 from step 5 on, of 3 from step 9; then of 4 from step 7, and as at first from step 5."""
    monkeypatch.setattr(_folder, "write_trained_on", Mock())
    monkeypatch.setattr(_folder, "trained_on", Mock(return_value=()))

    def begin(rate: int, step: int | None) -> dict[str, int]:
        cfg = OmegaConf.create({"lr": rate, "module": {"lr": "${lr}"}, "resume": step})
        _folder.begin(tmp_path, cfg, step)
        files = {path.stem: OmegaConf.load(path) for path in tmp_path.glob("config*.yaml")}
        return {name: int(file.module.lr) for name, file in files.items()}

    assert begin(1, None) == {"config": 1}
    assert begin(1, 4) == {"config": 1}
    assert capsys.readouterr().out == ""
    assert begin(2, 5) == {"config_to_step_5": 1, "config": 2}
    assert "from step 5 on with lr=2 in place of 1; the settings before are in " in capsys.readouterr().out
    assert begin(3, 9) == {"config_to_step_5": 1, "config_to_step_9": 2, "config": 3}
    assert begin(4, 7) == {"config_to_step_5": 1, "config_to_step_7": 2, "config": 4}
    assert begin(1, 5) == {"config": 1}
    assert begin(2, 3) == {"config_to_step_3": 1, "config": 2}
    assert begin(2, None) == {"config": 2}


def test_a_run_that_begins_in_the_folder_of_another_says_that_it_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the other has written goes, and a user's own files stay."""
    monkeypatch.setattr(_folder, "write_trained_on", Mock())
    monkeypatch.setattr(_folder, "trained_on", Mock(return_value=()))
    cfg = OmegaConf.create({"lr": 1, "resume": None})
    others = ["results.json", "csv/metrics.csv", "checkpoints/best.ckpt", "model/best/model.safetensors", "pairs/a.csv"]
    own = ["notes.txt", "checkpoints/mine.ckpt", "model/mine/config.json"]
    for name in (*others, *own):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    _folder.begin(tmp_path, cfg, None)
    assert capsys.readouterr().out == ""  # there was no run: a run has its settings
    for name in others:
        assert not (tmp_path / name).exists()
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    _folder.begin(tmp_path, cfg, None)
    assert f"{tmp_path} holds a run of 20" in (said := capsys.readouterr().out)
    assert said.endswith(": it is replaced\n")
    assert [name for name in (*others, *own) if (tmp_path / name).exists()] == own


@pytest.mark.parametrize("left", [STOPPED, "checkpoints/last.ckpt", "checkpoints/best-v1.ckpt/meta.pt"])
def test_a_run_that_can_go_on_or_has_ended_is_not_replaced_unasked(tmp_path: Path, left: str) -> None:
    """Ctrl-C leaves a checkpoint, and so does a kill after a validation, of shards a folder; where a run
    is at work, it is that one that is told of.
    """
    check_free(tmp_path)
    checkpoint = tmp_path / left
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("x")
    with pytest.raises(
        ValueError, match=rf"^{tmp_path} holds a run that has not come to.* resume=auto, .*overwrite=tr"
    ):
        check_free(tmp_path)
    (tmp_path / "results.json").touch()
    with pytest.raises(ValueError, match=rf"^{tmp_path} holds a run that has ended: .*hydra.run.dir=, .*overwrite=tr"):
        check_free(tmp_path)
    (tmp_path / RUN_LOCK).parent.mkdir()
    with FileLock(tmp_path / RUN_LOCK):
        check_free(tmp_path)


def test_an_ensemble_is_no_backbone(tmp_path: Path) -> None:
    """It has a tokenizer in each of its members alone, which was all that a user heard."""
    (tmp_path / "ensemble.json").write_text('{"members": ["0", "1"]}')
    cfg = OmegaConf.create({"backbone": {"path": str(tmp_path)}, "resume": None})
    with pytest.raises(
        ValueError, match=rf"^backbone.path='{tmp_path}' is an ensemble.* one of {tmp_path}/0, {tmp_path}/1$"
    ):
        take_runs(cfg)


def test_a_run_has_come_to_its_end_by_the_settings_that_it_has(tmp_path: Path) -> None:
    """How it comes into its folder is none of them, and values that follow others are theirs; a treatment that is left
    off is a difference, and a run whose rewards are not finite ends anew as it did.
    """
    before = {"lr": 1.0, "module": {"lr": "${lr}"}, "treatment": {"flip": {"share": 0.1}}, "all": "${treatment}"}
    cfg = OmegaConf.create({**before, "resume": None})
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    assert has_come_to(tmp_path, cfg) is None  # of no run
    OmegaConf.save(cfg, tmp_path / "config.yaml", resolve=True)
    assert has_come_to(tmp_path, cfg) == RESULTS
    assert has_come_to(tmp_path, OmegaConf.create({**before, "resume": "auto", "overwrite": False})) == RESULTS
    assert changes(tmp_path / "config.yaml", OmegaConf.create({**before, "lr": 2.0})) == ["lr=2.0 in place of 1.0"]
    left_off = OmegaConf.create({**before, "treatment": {}})
    assert changes(tmp_path / "config.yaml", left_off) == ["no treatment.flip.share, which was 0.1"]
    assert has_come_to(tmp_path, left_off) is None
    (tmp_path / "results.json").write_text(json.dumps({"test": {"reward_mean": float("nan")}}))
    assert has_come_to(tmp_path, cfg) is None


def test_a_start_that_was_trained_anew_makes_other_voters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is the same, and the checksums beside its weights are not; what has none says nothing."""
    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.create({"backbone": {"path": str(tmp_path)}})
    assert start_of(cfg) == {}
    seen: list[dict[str, str]] = []
    (tmp_path / "config.json").touch()
    for crc in (1, 2):
        (tmp_path / "checksums.json").write_text(json.dumps({"model.safetensors": [8, crc]}))
        seen.append(start_of(cfg))
    assert seen[0].keys() == seen[1].keys() == {"weights of backbone.path"}
    assert seen[0] != seen[1]
    assert start_of(OmegaConf.create({"backbone": {"path": None}})) == {}


def test_a_run_that_never_began_leaves_nothing(tmp_path: Path) -> None:
    """Of a folder in which anything else stands, a job of a sweep among them, all of it stays. The settings that the
    logger of CSV writes without a row are nothing.
    """
    for run, more in (("a", []), ("b", ["job.json"]), ("c", ["csv/hparams.yaml"]), ("d", ["csv/metrics.csv"])):
        (tmp_path / run / ".hydra").mkdir(parents=True)
        (tmp_path / run / "csv").mkdir()
        (tmp_path / run / ".hydra" / "config.yaml").write_text("name: a\nseed: 0\n")
        for name in ("train.log", *more):
            (tmp_path / run / name).write_text("")
        _folder.clear_if_nothing(tmp_path / run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "d"]
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [".hydra", "csv", "job.json", "train.log"]
    with (
        pytest.warns(UserWarning, match="1 job of a sweep left no run"),
        pytest.raises(ValueError, match="names no run"),
    ):
        find_runs("runs", tmp_path / "b")  # its word was cut off


def test_nor_do_the_folders_above_a_run_that_never_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to `runs` they are Hydra's; one that holds another run stays, and so do a user's own."""
    monkeypatch.chdir(tmp_path)
    for run, left in (("runs/a/1", "."), ("runs/b/1", "runs"), ("mine/1", "mine")):
        Path(run, ".hydra").mkdir(parents=True)
        if left == "runs":
            Path("runs/other/1").mkdir(parents=True)
        _folder.clear_if_nothing(Path(run))
        assert sorted(str(path) for path in Path(left).iterdir()) == (["runs/other"] if left == "runs" else [])
