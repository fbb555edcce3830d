"""The train command as a user meets it: another directory, its own process, its output read."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lightning_rm.analysis.history import read_history
from tests.float64 import same
from tests.processes import lightning_rm, lightning_rm_afresh

SMALL = ["data.num_pairs=96", "data.num_val=24", "data.num_test=24", "trainer.log_every_n_steps=1", "data.epochs=2"]


def test_one_run_leaves_everything_it_says(tmp_path: Path) -> None:
    result = lightning_rm_afresh(tmp_path, "train", *SMALL, "hydra.run.dir=run", "name=hello", "seed=3")
    assert result.returncode == 0, result.stderr
    run = tmp_path / "run"
    for word in ("rows", "accuracy", "length only", "clean label", "calibration error", "test/ood", "model/best"):
        assert word in result.stdout
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["name"], config["seed"]) == ("hello", 3)
    results = json.loads((run / "results.json").read_text())
    assert {"train", "val", "test", "test/ood"} <= results.keys()
    assert results["test"]["num_pairs"] == 24
    with (run / "csv" / "metrics.csv").open() as file:
        assert sum(bool(row["train/loss"]) for row in csv.DictReader(file)) == 6
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {"curves.png", "curves.svg", "rewards_val_val.png", "reliability_test_test.svg"} <= figures
    model = AutoModelForSequenceClassification.from_pretrained(run / "model" / "best")
    tokenizer = AutoTokenizer.from_pretrained(run / "model" / "best")
    assert model.config.num_labels == 1
    assert tokenizer.chat_template


def test_a_run_goes_on_from_the_checkpoint_of_a_step(tmp_path: Path) -> None:
    """Three steps an epoch: the fourth is in the middle of the second, and its epoch's metrics are of all its pairs.

    What was logged before it stays, and the pairs of a set that only the run before it had. A run that begins anew in a
    folder leaves nothing there of a set that it does not have.
    """
    arguments = ["train", *SMALL, "hydra.run.dir=run", "logger=csv", "checkpoint.every_n_train_steps=4"]
    results, pairs = tmp_path / "run" / "results.json", tmp_path / "run" / "pairs"
    pairs.mkdir(parents=True)
    (pairs / "test_older.parquet").write_text("of an older run")
    (older := tmp_path / "run" / "figures" / "older.png").parent.mkdir()
    older.write_text("of an older run")
    assert lightning_rm(tmp_path, *arguments).returncode == 0
    assert not older.exists()
    whole = json.loads(results.read_text())
    sets = ["test_ood.parquet", "test_test.parquet", "val_val.parquet"]
    assert sorted(path.name for path in pairs.glob("*.parquet")) == sets
    shutil.copy(pairs / "test_test.parquet", pairs / "test_more.parquet")
    history = read_history(tmp_path / "run" / "csv" / "metrics.csv")
    checkpoint = tmp_path / "run" / "checkpoints" / "resume.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 4
    results.unlink()
    resumed = lightning_rm(tmp_path, *arguments, f"resume={checkpoint}")
    assert resumed.returncode == 0, resumed.stderr
    assert whole["train"]["num_pairs"] == 96
    for name, metrics in json.loads(results.read_text()).items():
        assert metrics == same(whole[name])
    assert sorted(path.name for path in pairs.glob("*.parquet")) == sorted([*sets, "test_more.parquet"])
    assert (tmp_path / "run" / "figures" / "rewards_test_more.png").exists()
    resumed_history = read_history(tmp_path / "run" / "csv" / "metrics.csv")
    assert history["train/loss"].steps.tolist() == list(range(6))
    assert resumed_history.keys() == history.keys()
    for name, curve in resumed_history.items():
        assert curve.steps.tolist() == history[name].steps.tolist()
        assert curve.values == same(history[name].values)


def test_a_multirun_shares_a_folder_and_returns_objectives(tmp_path: Path) -> None:
    result = lightning_rm(tmp_path, "train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep", "data.epochs=1")
    assert result.returncode == 0, result.stderr
    runs = sorted((tmp_path / "sweep").glob("*/results.json"))
    assert len(runs) == 2
    accuracies = [json.loads(run.read_text())["val"]["nll"] for run in runs]
    assert accuracies[0] != accuracies[1]
    assert len(list((tmp_path / "sweep").glob("*/wandb/offline-run-*/*.wandb"))) == 2


def test_no_logger_still_prints_the_table(tmp_path: Path) -> None:
    result = lightning_rm(tmp_path, "train", *SMALL, "logger=none", "hydra.run.dir=run", "trainer.max_steps=1")
    assert result.returncode == 0, result.stderr
    assert "length only" in result.stdout
    assert not (tmp_path / "run" / "csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "data=jsonl", "data.file=none.jsonl"], "none.jsonl"),
        (["train", "backbone=hub", "backbone.path=no/such"], "error: path='no/such' is no folder here"),
        (["train", "data=jsonl"], "error: data.file must be given: data.file=..."),
        (["train", "checkpoint.every_n_train_steps=0"], "error: every_n_train_steps=0: give 1 or more, or null"),
        (["train", "checkpoint.every_n_train_steps=0"], "\n(on the command line: checkpoint.every_n_train_steps)\n"),
        (["train", "resume=none.ckpt"], "error: resume='none.ckpt': there is no such checkpoint"),
        (["train", "monitor=val/acc"], "error: monitor='val/acc': there is no metric 'acc'; there are accuracy"),
        (["train", "monitor=dev/accuracy"], "error: monitor='dev/accuracy' is of no data set of this run"),
        (["train", "data.max_tokens=4096"], "error: data.max_tokens=4096, but the backbone has positions for 2048"),
        (["train", "module=meta"], "error: MetaRM climbs by responses of a policy and there are none"),
        (["train", "responses=synthetic"], "error: BaselineRM does not train on responses"),
        (["train", "module=contrastive"], "error: ContrastiveRM needs something to contrast by"),
        (["train", "contrast=simcse"], "error: contrast: BaselineRM takes none"),
        (["trian"], "no verb 'trian'"),
        ([], "usage: lightning-rm VERB"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = lightning_rm(tmp_path, *arguments)
    assert result.returncode != 0
    assert message in result.stdout + result.stderr
