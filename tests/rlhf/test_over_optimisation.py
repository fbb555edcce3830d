"""The best of n by reward models: its estimator, the policies that it makes, and the call that puts them together."""

from __future__ import annotations

import csv
import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lightning_rm.data.rows import BadRow, GroupRow, PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.sources.groups import GroupFile
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.digests import file_name
from lightning_rm.rlhf.best_of import best_of_groups, labelled_pairs
from lightning_rm.rlhf.curves import curves, powers_of_two
from lightning_rm.rlhf.overoptimise import overoptimise, read_samples
from lightning_rm.rlhf.policy_files import PolicyFiles
from lightning_rm.scoring.conversations import score
from lightning_rm.scoring.load import LoadedModel
from tests.toy import toy_model

WORKED = np.array([[0.1, 0.2, 0.3, 0.4]]), np.array([[0.0, 1.0, 3.0, 2.0]])
"""Gold by rising reward as in `evaluation.best_of_n`: 1.5, 2.1667, 2.25 and 2 for n = 1 to 4."""


def random_rewards(num_prompts: int = 6, num_samples: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(num_prompts, num_samples)), rng.normal(size=(num_prompts, num_samples))


def test_a_worked_prompt() -> None:
    rewards, gold = WORKED
    curve = curves({"a": rewards}, gold, np.array([1, 2, 3, 4]))["a"]
    assert curve.gold == pytest.approx([1.5, 13 / 6, 2.25, 2.0], abs=1e-12)
    assert curve.proxy == pytest.approx([0.25, (2 + 2 * 3 + 3 * 4) / 60, (3 + 3 * 4) / 40, 0.4], abs=1e-12)
    assert curve.kl == pytest.approx([0, math.log(2) - 1 / 2, math.log(3) - 2 / 3, math.log(4) - 3 / 4], abs=1e-12)
    assert (curve.summary.start, curve.summary.n_highest, curve.summary.end) == (1.5, 3, 2.0)
    assert curve.summary.fall == pytest.approx(0.25, abs=1e-12)
    assert curve.summary.regret == pytest.approx(1.0, abs=1e-12)
    assert curve.summary.against is None


@pytest.mark.parametrize("n", [1, 3, 7])
def test_a_curve_is_the_mean_over_all_subsets(n: int) -> None:
    rewards, gold = random_rewards()
    expected = np.mean(
        [
            np.mean([gold[row, max(some, key=rewards[row].__getitem__)] for some in combinations(range(7), n)])
            for row in range(len(gold))
        ]
    )
    assert curves({"a": rewards}, gold, np.array([n]))["a"].gold[0] == pytest.approx(expected, abs=1e-12)


def test_models_are_held_against_the_first_on_the_same_draws_of_prompts() -> None:
    rewards, gold = random_rewards(40)
    found = curves({"a": rewards, "gold": gold, "same": rewards}, gold, num_draws=200)
    assert found["gold"].summary.regret == pytest.approx(0, abs=1e-12)
    same, perfect = found["same"].summary, found["gold"].summary
    assert same.against == 0
    assert same.against_interval is not None
    assert math.isnan(same.against_interval.high)  # no draw of prompts tells them apart
    assert perfect.against == pytest.approx(perfect.end - found["a"].summary.end, abs=1e-12)
    assert perfect.against_interval is not None
    assert 0 < perfect.against_interval.low < perfect.against
    assert (np.diff(found["gold"].gold) > 0).all()
    assert perfect.fall == 0
    assert perfect.n_highest == 7


@pytest.mark.parametrize("n", [[], [0, 1], [2, 2], [1, 8]])
def test_an_n_that_cannot_be_is_said(n: list[int]) -> None:
    rewards, gold = random_rewards()
    with pytest.raises(ValueError, match="rising numbers from 1 to 7"):
        curves({"a": rewards}, gold, np.array(n, np.int64))


def test_powers_of_two_end_with_all() -> None:
    assert powers_of_two(1).tolist() == [1]
    assert powers_of_two(8).tolist() == [1, 2, 4, 8]
    assert powers_of_two(12).tolist() == [1, 2, 4, 8, 12]


# Policies


def test_each_response_of_a_policy_is_the_best_of_samples_of_its_own() -> None:
    rows = list(SyntheticGroups(5, k=7))
    rewards, _ = random_rewards(5)
    policy = best_of_groups(rows, rewards, n=3, k=2)
    for row, said, reward in zip(rows, policy, rewards, strict=True):
        places = [int(reward[:3].argmax()), 3 + int(reward[3:6].argmax())]
        assert said == row.only(places)
    with pytest.raises(ValueError, match="takes 8 samples of each prompt, and there are 7"):
        best_of_groups(rows, rewards, n=4, k=2)


def group(*gold: float) -> GroupRow:
    turns = tuple(({"role": "assistant", "content": "a " * place},) for place in range(1, len(gold) + 1))
    return GroupRow(({"role": "user", "content": "?"},), turns, "g", "p", gold=gold)


def test_a_pair_is_of_the_first_two_that_differ_in_gold() -> None:
    clean = Annotator(clean_labels=True)
    (pair,) = labelled_pairs([group(1.0, 1.0, 3.0)], clean)
    assert isinstance(pair, PairRow)
    assert (pair.gold_margin, pair.clean, pair.chosen[0]["content"]) == (2.0, True, "a a a ")
    (wrong,) = labelled_pairs([group(1.0, 9.0)], Annotator(noise=1.0, length_bias=0.0))
    assert isinstance(wrong, PairRow)
    assert (wrong.gold_margin, wrong.clean) == (-8.0, False)
    (tie,) = labelled_pairs([group(2.0, 2.0)], clean)
    assert isinstance(tie, BadRow)
    assert tie.reason == "tie"
    with pytest.raises(ValueError, match="no gold rewards"):
        list(labelled_pairs([GroupRow((), (), "g", "p")], clean))


@pytest.mark.parametrize(
    ("options", "message"), [({"noise": 1.5}, "noise is 1.5"), ({"temperature": 0.0}, "temperature is 0.0")]
)
def test_an_annotator_that_cannot_be(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Annotator(**options)


# The call


def loaded(seed: int) -> LoadedModel:
    return LoadedModel(toy_model(seed, "float64").eval(), world_tokenizer())


def test_curves_files_and_policies(tmp_path: Path) -> None:
    samples = SyntheticGroups(6, k=8, split="test")
    policy = PolicyFiles([2, 4], k=2, annotator=Annotator(clean_labels=True))
    models = {"a": loaded(0), "b/0": loaded(1)}
    found = overoptimise(models, samples, out=tmp_path, policy=policy, num_draws=20)
    rows = list(samples)
    expected = {
        name: np.array(
            [score(model, tokenizer, [[*row.prompt, *said] for said in row.responses]).tolist() for row in rows]
        )
        for name, (model, tokenizer) in models.items()
    }
    gold = np.array([row.gold for row in rows])
    for name, rewards in expected.items():
        assert found.curves[name].gold == pytest.approx(curves({name: rewards}, gold)[name].gold, abs=1e-12)
    assert found.num_prompts == 6
    assert found.num_samples == 8
    with (tmp_path / "overoptimise.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["model"], row["n"]) for row in table] == [(name, n) for name in models for n in "1248"]
    told = json.loads((tmp_path / "overoptimise.json").read_text())
    assert told["models"]["a"]["gold"] == found.curves["a"].gold.tolist()
    assert "| b/0 |" in (tmp_path / "overoptimise.md").read_text()
    said = list(GroupFile(tmp_path / "policies" / file_name("b/0") / "responses_n4.jsonl"))
    assert [row.gold for row in said if isinstance(row, GroupRow)] == [
        row.gold for row in best_of_groups(rows, expected["b/0"], 4, 2)
    ]
    pairs = list(FileSource(tmp_path / "policies" / "a" / "pairs_n2.jsonl"))
    assert all(isinstance(pair, PairRow) and pair.clean and pair.gold_margin for pair in pairs)
    assert any(f"{len(pairs):,} pairs; of {6 - len(pairs):,} groups" in note for note in found.notes)


def test_another_models_rewards_are_gold_and_a_second_call_scores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(2):
        toy_model(seed).save_pretrained(tmp_path / str(seed), world_tokenizer())
    rows = [row.only(range(4)) for row in SyntheticGroups(3, k=4)]
    (tmp_path / "samples.jsonl").write_text(
        "".join(json.dumps({"prompt": row.prompt, "responses": row.responses}) + "\n" for row in rows)
    )
    samples = GroupFile(tmp_path / "samples.jsonl")
    with pytest.raises(ValueError, match=r"samples.jsonl:1 has no gold rewards; name a reward model"):
        overoptimise(str(tmp_path / "0"), samples)
    out = tmp_path / "out"
    first = overoptimise(str(tmp_path / "0"), samples, gold=tmp_path / "1", out=out, num_draws=10)
    both = overoptimise([tmp_path / "0", tmp_path / "1"], samples, gold=tmp_path / "1", num_draws=10)
    assert both.curves[str(tmp_path / "1")].gold[-1] >= both.curves[str(tmp_path / "0")].gold[-1]
    monkeypatch.setattr("lightning_rm.evaluation.evaluator.score_items", None)
    again = overoptimise(str(tmp_path / "0"), samples, gold=tmp_path / "1", out=out, num_draws=10)
    (one,), (other,) = first.curves.values(), again.curves.values()
    assert one.gold.tolist() == other.gold.tolist()
    assert first.gold == f"the reward of {tmp_path / '1'}"


def test_samples_that_cannot_be_used_are_said_or_counted() -> None:
    bad = BadRow("a.jsonl:2", "missing field", "field 'responses' is missing")
    with pytest.raises(ValueError, match=r"a.jsonl:2: field 'responses' is missing; on_bad_row=drop"):
        read_samples([group(1, 2), bad], "error")
    assert read_samples([group(1, 2), bad], "drop") == ([group(1, 2)], {"missing field": 1})
    with pytest.raises(ValueError, match="has 3 responses and group g 2"):
        read_samples([group(1, 2), group(1, 2, 3)], "error")
    with pytest.raises(ValueError, match="there are no samples"):
        read_samples([], "error")
