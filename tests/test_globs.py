"""Names of paths: those that are there before those that match."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightning_rm.commands._data import find_voters
from lightning_rm.evaluation.asked import find_models
from lightning_rm.globs import is_glob, named_paths
from lightning_rm.publishing.publish import publish
from lightning_rm.scoring.load import load_model


def test_a_path_that_is_there_is_no_glob(tmp_path: Path) -> None:
    for name in ("a", "b", "a[1]"):
        (tmp_path / name).mkdir()
    assert named_paths(tmp_path / "a[1]") == [tmp_path / "a[1]"]
    assert named_paths(tmp_path / "[ab]") == [tmp_path / "a", tmp_path / "b"]
    assert named_paths(tmp_path / "c*") == []
    assert [is_glob(tmp_path / name) for name in ("a", "a[1]", "[ab]", "c")] == [False, False, True, False]
    assert find_models(tmp_path / "a[1]") == {str(tmp_path / "a[1]"): tmp_path / "a[1]"}


def test_a_folder_of_runs_stands_for_the_reward_models_in_it(tmp_path: Path) -> None:
    """As `report` reads `runs/*`: a run of a date, the jobs of a sweep in their order; no policy, nothing hidden."""
    for name, architecture in {
        "mine": "LlamaForSequenceClassification",
        "flip/2026-01-01/2": "LlamaForSequenceClassification",
        "flip/2026-01-01/10": "LlamaForSequenceClassification",
        "sft/2026-01-01": "LlamaForCausalLM",
        ".old/2026-01-01": "LlamaForSequenceClassification",
        "a/b/c/too_deep": "LlamaForSequenceClassification",
    }.items():
        model = tmp_path / "runs" / name / "model" / "best"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    (tmp_path / "runs" / "evaluation").mkdir()
    sweep = [str(tmp_path / "runs" / "flip" / "2026-01-01" / job) for job in ("2", "10")]
    assert list(find_models(tmp_path / "runs" / "*")) == [*sweep, str(tmp_path / "runs" / "mine")]
    assert list(find_models(tmp_path / "runs" / "flip")) == sweep
    assert list(find_models(tmp_path / "runs" / "sft")) == [str(tmp_path / "runs" / "sft")]  # whoever loads it says no
    for given, number in ((tmp_path / "runs" / "flip" / "2026-01-01", "2 runs"), (tmp_path / "runs", "3 runs")):
        told = f"{given} is no model, but has {number} in it; name one: {given}/"
        with pytest.raises(ValueError, match=told):
            load_model(given)
        with pytest.raises(ValueError, match=told):
            publish(given, tmp_path / "out")
    assert [voter.name for voter in find_voters(str(tmp_path / "runs" / "flip" / "2026-01-01"), "best")] == sweep


def test_runs_have_one_order_however_they_are_named(tmp_path: Path) -> None:
    """By the numbers in their names, and not by their digits put together, by which .05 came after .1."""
    for name in ("b_1", "a_2", "lr=0.1_seed=2", "lr=0.05_seed=10", "lr=0.05_seed=9", "10", "9"):
        model = tmp_path / "vote" / name / "model" / "best"
        model.mkdir(parents=True)
        (model / "config.json").write_text(json.dumps({"architectures": ["LlamaForSequenceClassification"]}))
    order = ["9", "10", "a_2", "b_1", "lr=0.05_seed=9", "lr=0.05_seed=10", "lr=0.1_seed=2"]
    expected = [str(tmp_path / "vote" / name) for name in order]
    for pattern in (f"{tmp_path}/vote", f"{tmp_path}/vote/*"):
        assert [voter.name for voter in find_voters(pattern, "best")] == expected
        assert list(find_models(pattern)) == expected
