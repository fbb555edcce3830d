"""Diagnostics by hand, and of rewards that are known to have a fault."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from lightning_rm.evaluation.benchmarks.benchmark import assistant, user
from lightning_rm.evaluation.checks import exchanged, swapped
from lightning_rm.evaluation.diagnostics import (
    by_quantile,
    calibration,
    choice_by_length,
    diagnose,
    length_effects,
    selective,
    spread_within_prompts,
    temperature_of,
)
from lightning_rm.evaluation.items import Floats, Item, Items
from lightning_rm.evaluation.probes import EDITS, edited, probe
from tests.float64 import same

MARGIN = np.array([2, 1, 0.5, -0.5, 3, -1])
LABEL = np.ones(6)


def test_calibration_is_folded() -> None:
    """NLL .5417, Brier .1922, folded ECE with five bins .1456 (unfolded it would be .3611); T = 1.1596, NLL .5393."""
    found = calibration(MARGIN, LABEL, num_bins=5)
    assert (found["nll"], found["brier"], found["ece"]) == pytest.approx((0.5417, 0.1922, 0.1456), abs=1e-4)
    assert sum(one["pairs"] for one in found["bins"]) == 6
    temperature, _ = temperature_of(MARGIN, LABEL)
    assert isinstance(temperature, float)
    assert temperature == pytest.approx(1.1596, abs=1e-4)
    assert calibration(MARGIN, LABEL, temperature)["nll"] == pytest.approx(0.5393, abs=1e-4)


def test_accuracy_by_quantile_leaves_unknown_values_out() -> None:
    rows = by_quantile(np.array([3.0, math.nan, 1.0, 2.0, 4.0]), np.array([1.0, -1, -1, 0, 1]), np.ones(5), 2)
    assert [(row["from"], row["to"], row["accuracy"], row["pairs"]) for row in rows] == [(1, 2, 0.25, 2), (3, 4, 1, 2)]


def test_a_model_of_length_alone_is_found_out() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(50, 100, size=2000)
    found = length_effects(difference, np.ones(2000), difference)
    assert found["length-controlled"] == 0.5
    assert found["right when longer"] == 1.0
    assert found["without length"] == 0.5  # nothing is left of it, and nothing is a tie
    assert found["choice by length"] > 5
    blind = rng.normal(1, 1, size=2000)
    assert abs(choice_by_length(blind, difference)) < 0.2


def test_abstaining_where_members_disagree() -> None:
    """Two wrong pairs of six, the most doubted: half coverage is all right, and doubt finds them without fail."""
    found = selective(np.array([1.0, 1, 1, 1, -1, -1]), np.ones(6), np.array([0.1, 0.2, 0.3, 0.4, 0.8, 0.9]))
    assert found["accuracy"] == {"50%": 1.0, "70%": 1.0, "90%": 0.8, "100%": same(4 / 6)}
    assert found["AUROC"] == found["average precision"] == 1.0
    alike = selective(np.array([1.0, -1, 1, -1]), np.ones(4), np.zeros(4))
    assert alike["AUROC"] == 0.5


def made(num: int = 40, k: int = 2) -> Items:
    draw = random.Random(0)

    def response(right: bool) -> str:
        words = ["therefore", "answer", "because", "number", "perhaps, it is"]
        text = " ".join(draw.choice(words) for _ in range(draw.randrange(8, 20)))
        return f"**{'right' if right else 'wrong'}** {text}. Yes.\n* first {text}\n* second thing\n"

    return Items(
        Item(
            id=str(number),
            prompt=(user(f"question {number}"),),
            responses=tuple(assistant(response(place == 0)) for place in range(k)),
            gold=(1.0, *(0.0,) * (k - 1)),
            cluster=str(number),
            facts={"strength": float(number)},
        )
        for number in range(num)
    )


def words(items: Items) -> Floats:
    """A model that looks for one word."""
    return items.grid([float("right" in response[0]["content"]) for response in item.responses] for item in items)


def length(items: Items) -> Floats:
    return items.length


def test_edits_change_what_they_say_and_nothing_else() -> None:
    draw = random.Random(1)
    assert EDITS["spaces"]("One, two. Three.", draw) == "One,  two.  Three."
    assert EDITS["quotes"]("a", draw) == '"a"'
    assert EDITS["no markdown"]("# T\n**b** and *i*, `c`\n- x\n2 * 3 * 4", draw) == "T\nb and i, c\nx\n2 * 3 * 4"
    assert EDITS["list reordered"]("a\n- x\n- y\n- z\n\n1. p\n2. q", draw) == "a\n- z\n- y\n- x\n\n1. p\n2. q"
    typed = EDITS["typos"]("because " * 200, draw).split()
    assert {"".join(sorted(word)) for word in typed} == {"".join(sorted("because"))}
    assert 0 < sum(word != "because" for word in typed) < 30


def test_probes_find_the_edit_that_a_model_falls_for() -> None:
    items = made()
    found = probe(items, words(items), words)
    assert set(found) == set(EDITS)
    assert all(one["flips"] == 0 for name, one in found.items() if name not in ("typos", "look-alikes"))
    assert found["sentence"]["pairs"] == 40

    def falls_for_it(asked: Items) -> Floats:
        hoped = asked.grid([float("I hope" in one[0]["content"]) for one in item.responses] for item in asked)
        return np.where(hoped == 1, -words(asked), words(asked))

    fallen = probe(items, falls_for_it(items), falls_for_it)["sentence"]
    assert (fallen["flips"], fallen["accuracy before"], fallen["accuracy after"]) == (1, 1, 0)
    assert fallen["shift"] == 1  # rewards 1 and 0 become -1 and 0, and margins that are all equal have the scale 1


def test_probes_take_items_of_any_number_of_responses() -> None:
    """Bullets stand in the item of two responses alone, beside one of three: they were (1, 2) rewards for (1, 3).

    Of the third item the edit changes a response that is compared with none, and it is not scored again.
    """
    two, three, other = ("- right\n- b", "wrong"), ("right", "wrong", "c"), ("right", "wrong", "- x\n- y")
    items = Items(
        Item(f"{n}", (user("q"),), tuple(map(assistant, texts)), (1.0, *(0.0,) * (len(texts) - 1)), pairs=((0, 1),))
        for n, texts in enumerate((two, three, other))
    )

    def first_word(asked: Items) -> Floats:
        return asked.grid([float(one[0]["content"].startswith("- right")) for one in item.responses] for item in asked)

    found = probe(items, np.array([[1, 0, np.nan], [1, 0, 0], [1, 0, 0.0]]), first_word)["list reordered"]
    assert found == {"pairs": 1, "right": 1, "flips": 1, "accuracy before": 1, "accuracy after": 0, "shift": 1}


def test_a_text_that_an_edit_makes_too_long_is_no_flip() -> None:
    items = made(8)

    def bounded(asked: Items) -> Floats:
        quoted = [item.responses[0][0]["content"].startswith('"') for item in asked]
        return np.where(np.array([[flag and n < 3] for n, flag in enumerate(quoted)]), np.nan, words(asked))

    found = probe(items, bounded(items), bounded)
    assert (found["quotes"]["pairs"], found["quotes"]["too long"], found["quotes"]["flips"]) == (5, 3, 0)
    assert found["quotes"]["shift"] == 0
    assert "too long" not in found["newline"]
    assert probe(items[:3], words(items[:3]), bounded)["quotes"] == {"pairs": 0, "too long": 3}


def test_edits_are_the_same_in_every_process_and_for_both_responses() -> None:
    items = made(3)
    first, again = (edited(items, EDITS["typos"], seed=4) for _ in range(2))
    assert [item.responses for item in first] == [item.responses for item in again]


def test_exchanged_responses_give_one_minus_the_accuracy() -> None:
    items = made(k=3)
    found = swapped(items, length)
    assert found["swapped"] == same(1 - found["accuracy"])
    assert found["difference"] == 0
    assert found["holds"] == 1
    assert exchanged(items)[0].responses == items[0].responses[::-1]


def test_a_reward_of_the_place_breaks_the_check() -> None:
    def first_is_best(asked: Items) -> Floats:
        return asked.grid([float(-place) for place in range(len(item.responses))] for item in asked)

    found = swapped(made(), first_is_best)
    assert (found["accuracy"], found["swapped"], found["holds"]) == (1, 1, 0)


def test_spread_within_a_prompt_and_between_prompts() -> None:
    items = made(2)
    found = spread_within_prompts(items, np.array([[1.0, 3.0], [11.0, 11.0]]))
    assert found["within"] == 0.5  # of standard deviations 1 and 0
    assert found["flat"] == 0.5
    assert found["between"] == 4.5


def test_everything_at_once_is_plain_and_knows_strength_and_members() -> None:
    items = made()
    rewards = words(items) + np.random.default_rng(0).normal(size=(40, 2))
    votes = rewards[..., None] + np.random.default_rng(1).normal(size=(40, 2, 5))
    found = diagnose(items, rewards, votes, temperature=2.0)
    assert len(found["by strength"]) == 10
    assert found["calibration with temperature"]["nll"] != found["calibration"]["nll"]
    assert 0.5 < found["members' agreement"] <= 1
    assert 0 <= found["selective by members' spread"]["AUROC"] <= 1
