"""What judges say: the planted gold of the made world, and another reward model, both of words alone."""

from __future__ import annotations

import dataclasses
import re

import pytest

from lightning_rm import RewardFunction, score
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.rlhf.judges import Comparison, Judgement, PlantedJudge, RewardJudge, by_worth, judged
from lightning_rm.scoring.load import LoadedModel
from tests.float64 import roughly
from tests.toy import toy_model

PROMPT = ({"role": "user", "content": "name two red fruits."},)
GOOD, BAD = "apple and cherry", "apple and crab"
COMPARISONS = [Comparison(PROMPT, GOOD, BAD), Comparison(PROMPT, BAD, GOOD), Comparison(PROMPT, "", "")]
MODEL = LoadedModel(toy_model(dtype="float64").eval(), world_tokenizer())


def test_planted_gold_judges_by_words() -> None:
    """Two things, one of them no fruit, both red: 10 - 2.5 / 2. Nothing is named: 10 - 2.5 - 1.5 - 1.5."""
    assert PlantedJudge()(COMPARISONS) == [
        Judgement("win", 10.0, 8.75),
        Judgement("lose", 8.75, 10.0),
        Judgement("tie", 4.5, 4.5),
    ]
    assert [judgement.verdict for judgement in PlantedJudge(tie=1.25)(COMPARISONS)] == ["tie"] * 3


def test_planted_gold_is_of_the_made_world() -> None:
    with pytest.raises(ValueError, match="is not a prompt of the made world"):
        PlantedJudge()([dataclasses.replace(COMPARISONS[0], prompt=({"role": "user", "content": "hello"},))])


def test_a_reward_model_judges_by_the_rewards_of_score() -> None:
    good, bad = score(*MODEL, [[*PROMPT, {"role": "assistant", "content": text}] for text in (GOOD, BAD)]).tolist()
    found = RewardJudge(RewardFunction(MODEL))(COMPARISONS[:2])
    assert [(each.gold, each.other_gold) for each in found] == [
        (roughly(good), roughly(bad)),
        (roughly(bad), roughly(good)),
    ]
    assert found[0].verdict == ("win" if good > bad else "lose")
    assert {found[0].verdict, found[1].verdict} == {"win", "lose"}
    assert RewardJudge(RewardFunction(MODEL), tie=1e9)(COMPARISONS[:1])[0].verdict == "tie"
    assert RewardJudge(RewardFunction(MODEL))([]) == []


def test_what_a_model_cannot_read_has_no_verdict() -> None:
    judge = RewardJudge(RewardFunction(MODEL, overlong=None))
    (found,) = judge([Comparison(PROMPT, "apple " * 300, GOOD)])
    assert found.verdict is None
    assert found.gold is None


def test_a_digest_changes_with_what_the_judgements_depend_on() -> None:
    other = LoadedModel(toy_model(1, dtype="float64").eval(), MODEL.tokenizer)
    judges = [
        PlantedJudge(),
        PlantedJudge(0.5),
        RewardJudge(RewardFunction(MODEL)),
        RewardJudge(RewardFunction(MODEL), 0.5),
        RewardJudge(RewardFunction(MODEL, clip=(-1.0, 1.0))),
        RewardJudge(RewardFunction(other)),
    ]
    assert len({judge.digest for judge in judges}) == len(judges)
    assert RewardJudge(RewardFunction(MODEL)).digest == judges[2].digest


@pytest.mark.parametrize(("gold", "verdict"), [(1.0, "win"), (0.5, "tie"), (0.0, "tie"), (-0.6, "lose")])
def test_worth_within_a_tie(gold: float, verdict: str) -> None:
    assert by_worth(gold, 0.0, 0.5).verdict == verdict


def test_a_tie_is_not_below_0() -> None:
    """Or equal responses would lose."""
    with pytest.raises(ValueError, match=r"tie=-0\.5; give 0 or more"):
        PlantedJudge(-0.5)
    with pytest.raises(ValueError, match=r"tie=nan; give a number, 0 or more"):
        RewardJudge(RewardFunction(MODEL), float("nan"))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([Judgement("win")], "the judge gives 1 judgements of 2 comparisons"),
        ([Judgement("win"), Judgement("won")], "verdict on comparison 1 is 'won'; it has to be win, tie, lose or None"),  # pyright: ignore[reportArgumentType]
        (
            [Judgement("win", float("nan")), Judgement(None)],
            "gold of comparison 0 is nan; it has to be a finite number",
        ),
    ],
)
def test_what_a_judge_of_ones_own_says_can_be_counted(said: list[Judgement], message: str) -> None:
    class Own:
        digest = "own"

        def __call__(self, comparisons: object) -> list[Judgement]:
            return said

    with pytest.raises(ValueError, match=re.escape(message)):
        judged(Own(), COMPARISONS[:2])
    assert judged(Own(), []) == []
    assert judged(PlantedJudge(), COMPARISONS) == PlantedJudge()(COMPARISONS)
