"""the known truth, worked out by hand, and what makes the made world a fair test."""

from __future__ import annotations

import pytest

from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.prompts import FAMILIES, OOD_FAMILIES, held_out_by, sample_prompt, split_of
from lightning_rm.data.synthetic.responses import sample_response, sample_style
from lightning_rm.data.synthetic.tasks import WEIGHTS, Task, checks, gold_reward
from lightning_rm.data.synthetic.words import CATEGORIES, INVENTED, THINGS
from tests.float64 import same

RED = [thing.word for thing in THINGS.values() if thing.category == "fruits" and "red" in thing.attributes]
TASK = Task("fruits", 3, ("red",), order="shortest", polite=True)


def in_order(words: list[str]) -> list[str]:
    return sorted(words, key=len)


def test_a_perfect_answer_earns_every_point() -> None:
    answer = f"{', '.join(in_order(RED[:3]))}. thank you."
    assert checks(TASK, answer) == dict.fromkeys(WEIGHTS, 1.0)
    assert gold_reward(TASK, answer) == sum(WEIGHTS.values()) == 10


@pytest.mark.parametrize(
    ("answer", "lost"),
    [
        # Two of three: one too few costs half the count.
        (f"{', '.join(in_order(RED[:2]))}. thank you.", {"count": 0.5}),
        # No courteous word.
        (f"{', '.join(in_order(RED[:3]))}.", {"courtesy": 1.0}),
        # The same word twice.
        (f"{RED[0]}, {RED[0]}, {RED[0]}. thank you.", {"repeats": 1.0}),
        # Nothing named at all: no category, no attribute, no order, three too few.
        ("thank you.", {"category": 1.0, "attributes": 1.0, "count": 1.0, "order": 1.0}),
    ],
)
def test_each_flaw_costs_its_own_points(answer: str, lost: dict[str, float]) -> None:
    expected = 10 - sum(WEIGHTS[name] * share for name, share in lost.items())
    assert gold_reward(TASK, answer) == same(expected)


def test_a_worked_reward() -> None:
    """Two of three are fruits, all are red, nothing else is wrong: 2.5 * 2/3 + 1.5 + 1.5 + 1 + 1 + 1 + 1.5."""
    assert gold_reward(Task("fruits", 3, ("red",)), "apple, cherry, crab") == 9.166667


def test_to_name_what_does_not_exist_is_wrong_whatever_was_asked() -> None:
    for category in CATEGORIES:
        assert checks(Task(category, 2), " and ".join(INVENTED[:2]))["category"] == 0
        assert checks(Task(category, 2, ("red",)), INVENTED[0])["attributes"] == 0


def test_the_reward_of_any_text_lies_between_0_and_10_and_rambling_earns_nothing() -> None:
    for text in ("", "thank you " * 50, " ".join(THINGS), "zebra 17 !?", "apple " * 30):
        assert 0 <= gold_reward(TASK, text) <= 10
    assert gold_reward(TASK, " ".join(THINGS)) < gold_reward(TASK, f"{RED[0]}.")


def test_what_is_forbidden_costs_a_point_and_case_does_not_matter() -> None:
    task = Task("fruits", 2, avoid=(RED[0],))
    assert gold_reward(task, f"{RED[0].upper()} and {RED[1]}.") == 9
    assert gold_reward(task, f"{RED[1]} AND {RED[2]}!") == 10


def test_a_wrong_category_and_the_reverse_order_are_seen() -> None:
    tool = next(thing.word for thing in THINGS.values() if thing.category == "tools")
    two, one = checks(Task("fruits", 2), f"{RED[0]}, {tool}"), checks(TASK, ", ".join(in_order(RED[:3])[::-1]))
    assert two["category"] == 0.5
    assert one["order"] < 1


def test_responses_without_flaws_are_perfect() -> None:
    for number in range(100):
        prompt = sample_prompt("train", Draws("test", number))
        draws = Draws("answer", number)
        assert gold_reward(prompt.task, sample_response(prompt.task, 0.0, sample_style(draws), draws)) == 10


def test_a_task_stands_in_one_split_and_ood_is_held_out_by_rule() -> None:
    for split in ("train", "val", "test", "ood"):
        families = OOD_FAMILIES if split == "ood" else FAMILIES
        for number in range(60):
            prompt = sample_prompt(split, Draws("test", number))
            assert split_of(prompt.task) == split
            assert held_out_by(prompt.task) == families[prompt.family].held_out_by
            assert prompt.messages[-1]["role"] == "user"
