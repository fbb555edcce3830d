"""What is said of rewards: intervals, ties, mean and spread, and a card that leaves nothing out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.publishing.facts import Reference, accuracy_interval, share_interval
from lightning_rm.publishing.publish import PublishOptions, publish
from lightning_rm.scoring.load import load_model
from tests.float64 import same
from tests.toy import toy_model


def test_wilson_interval() -> None:
    """8 of 10: between .4902 and .9433; at 0 and at all it ends there, and is not of width 0."""
    assert share_interval(8, 10) == pytest.approx((0.8, 0.490162, 0.943318), abs=1e-6)
    assert share_interval(0, 10)[:2] == pytest.approx((0, 0), abs=1e-12)
    assert share_interval(10, 10)[2] == pytest.approx(1, abs=1e-12)
    assert share_interval(10, 10)[1] == same(1 - share_interval(0, 10)[2])
    for number in range(1, 200):
        for successes in (0, number):
            share, low, high = share_interval(successes, number)
            assert 0 <= low <= share <= high <= 1


def test_accuracy_counts_ties_half_and_undecided_labels_not() -> None:
    """Right, wrong, tied, a label that prefers rejected, one that prefers neither: (1 + 0 + .5 + 1) / 4."""
    chosen, rejected = np.array([2.0, 0.0, 1.0, 0.0, 5.0]), np.array([1.0, 1.0, 1.0, 3.0, 0.0])
    assert accuracy_interval(chosen, rejected, np.array([1, 1, 1, 0.2, 0.5])).value == same(2.5 / 4)
    with pytest.raises(ValueError, match="no pair with a preferred response"):
        accuracy_interval(chosen, rejected, np.full(5, 0.5))


def test_reference_of_pairs() -> None:
    """The temperature is that of the worked example: margins 2, 1, .5, -.5, 3, -1 give 1.1596."""
    chosen, rejected = np.array([2, 1, 0.5, -0.5, 3, -1.0]), np.zeros(6)
    found = Reference.of_pairs("val", chosen, rejected, np.ones(6))
    assert (found.mean, found.num_rewards) == (same(5 / 12), 12)
    assert found.std == same(math.sqrt((4 + 1 + 0.25 + 0.25 + 9 + 1) / 12 - (5 / 12) ** 2))
    assert found.temperature == pytest.approx(1.1596, abs=1e-4)
    settings = found.without(3).settings()
    assert settings["mean"] == settings["lightning_rm"]["reward_mean"] == found.mean
    assert settings["lightning_rm"]["reference"] == {"name": "val", "num_rewards": 12, "num_left_out": 3}


def test_responses_by_themselves_have_a_mean_and_no_temperature() -> None:
    """Rewards 1, 2 and 6, each on both sides of its row; with pairs of 2 and 3, 2 and 0 there is a temperature."""
    alone = np.array([1.0, 2.0, 6.0])
    found = Reference.of_pairs("val", alone, alone, np.full(3, 0.5))
    assert (found.mean, found.num_rewards, found.temperature) == (3.0, 3, None)
    assert found.std == same(math.sqrt((4 + 1 + 9) / 3))
    chosen, rejected = np.append(alone, [2.0, 2.0]), np.append(alone, [3.0, 0.0])
    mixed = Reference.of_pairs("val", chosen, rejected, np.array([0.5, 0.5, 0.5, 1.0, 1.0]))
    assert (mixed.mean, mixed.num_rewards) == (16 / 7, 7)
    assert mixed.temperature is not None


@pytest.mark.parametrize("margins", [[1.0, 2.0], [-3.0, 1.0]])
def test_margins_that_are_all_right_or_worse_than_chance_have_no_temperature(margins: list[float]) -> None:
    assert Reference.of_pairs("val", np.array(margins), np.zeros(2), np.ones(2)).temperature is None


def test_a_run_on_responses_by_themselves_has_a_card(tmp_path: Path) -> None:
    run = tmp_path / "run"
    toy_model().save_pretrained(run / "model" / "best", world_tokenizer())
    (run / "config.yaml").write_text("{}")
    (run / "pairs").mkdir()
    rewards = [0.5, 1.5, 2.5]
    rows = {"chosen": rewards, "rejected": rewards, "label": [0.5] * 3}
    pq.write_table(pa.table(rows), run / "pairs" / "val_val.parquet")
    figures = {"accuracy": math.nan, "nll": math.log(2), "tie_rate": 1.0, "score_rank_correlation": 0.25}
    (run / "results.json").write_text(json.dumps({"val": figures}))
    publish(run, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| set | pairs | accuracy | 95 % interval | score_rank_correlation |\n" in card
    assert "| val | 3 | n/a | n/a | 0.250 |\n" in card
    assert "On 3 responses of the set validation (val): mean 1.5000" in card
    assert "Temperature" not in card


def test_a_run_of_members_without_validation(tmp_path: Path) -> None:
    """What is unknown is said to be, and members are told from their average."""
    run = tmp_path / "run"
    model = MemberRewardModel.of(toy_model(), Members(num_members=3)).eval()
    model.save_pretrained(run / "model" / "best", world_tokenizer())
    told: dict[str, Any] = {"name": "voters", "seed": 4, "module": {"_target_": "lightning_rm.modules.voters.VotersRM"}}
    (run / "config.yaml").write_text(yaml.safe_dump(told))
    publish(run, tmp_path / "out", PublishOptions(name="someone/voters"))
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        'license: "unknown"',
        "# voters",
        "3 members on one backbone",
        "was not recorded by this run",
        "Nothing was measured.",
        "mean, spread and temperature are unknown",
        "- Seeds: seed 4",
        'load_model("someone/voters")',
        "an unknown number of tokens",
    ):
        assert said in card, said
    assert load_model(tmp_path / "out").model.num_members == 3
