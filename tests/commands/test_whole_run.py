"""A run as a user starts it, in a process of its own and with its figures drawn; `.ci/run` starts one afresh."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.commands.test_train import SMALL
from tests.processes import lightning_rm


@pytest.fixture(autouse=True, scope="module")
def _without_ink() -> None:
    """Figures have ink here."""


def test_one_run_leaves_everything_it_says(tmp_path: Path) -> None:
    result = lightning_rm(tmp_path, "train", *SMALL, "hydra.run.dir=run", "name=hello", "seed=3", "logger=csv")
    assert result.returncode == 0, result.stderr
    run = tmp_path / "run"
    for word in ("rows", "accuracy", "length", "clean", "calibration", "test/ood", "model/best"):
        assert word in result.stdout
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["name"], config["seed"]) == ("hello", 3)
    results = json.loads((run / "results.json").read_text())
    assert {"train", "val", "test", "test/ood"} <= results.keys()
    assert results["test"]["num_pairs"] == 24
    with (run / "csv" / "metrics.csv").open() as file:
        assert sum(bool(row["train/loss"]) for row in csv.DictReader(file)) == 6
    figures = {path.name for path in (run / "figures").iterdir()}
    assert {"curves.png", "curves.svg", "rewards_val_val.png", "reliability_test_test.svg"} <= figures
    model = AutoModelForSequenceClassification.from_pretrained(run / "model" / "best")
    tokenizer = AutoTokenizer.from_pretrained(run / "model" / "best")
    assert model.config.num_labels == 1
    assert tokenizer.chat_template
