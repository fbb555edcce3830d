"""The made world's tasks and its known truth: what was asked for, and how good an answer is.

The gold reward reads the *words of a response*, nothing else, so it can score any text: made responses, a person's, a
policy's. This file does not know how prompts are phrased or how responses are made.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from lightning_rm.data.synthetic.words import BY_CATEGORY, COURTEOUS_WORDS, THINGS, Thing

Order = Literal["shortest", "longest"]


@dataclass(frozen=True, slots=True)
class Task:
    """One verifiable instruction: "name three red fruits, shortest first, and be polite".

    Args:
        category: what kind of things to name, as in `THINGS`: `fruits`.
        count: how many.
        attributes: what each must be: a colour, a size, or one of each.
        order: by number of letters, `shortest` or `longest` first; equal lengths may stand either way.
        avoid: words that must not be named.
        letter: a letter that no named thing may contain.
        polite: whether a courteous word is asked for.
    """

    category: str
    count: int
    attributes: tuple[str, ...] = ()
    order: Order | None = None
    avoid: tuple[str, ...] = ()
    letter: str | None = None
    polite: bool = False

    def is_forbidden(self, thing: Thing) -> bool:
        """Tell whether the task forbids naming this thing, by its word or a letter of it."""
        return thing.word in self.avoid or (self.letter is not None and self.letter in thing.word)

    def is_described(self, thing: Thing) -> bool:
        """Tell whether this thing has every attribute asked for."""
        return all(attribute in thing.attributes for attribute in self.attributes)

    def fits(self, thing: Thing) -> bool:
        """Tell whether this thing is a right answer: of the category, with the attributes, not forbidden."""
        return thing.category == self.category and self.is_described(thing) and not self.is_forbidden(thing)

    def right_answers(self) -> list[Thing]:
        """Return every thing that fits, in the order of `THINGS`."""
        return [thing for thing in BY_CATEGORY[self.category] if self.fits(thing)]


WEIGHTS: Mapping[str, float] = {
    "category": 2.5,
    "attributes": 1.5,
    "count": 1.5,
    "order": 1.0,
    "repeats": 1.0,
    "forbidden": 1.0,
    "courtesy": 1.5,
}
"""Points for each check of an answer. They sum to 10, the reward of a perfect answer to any task."""


def checks(task: Task, response: str) -> dict[str, float]:
    """Say how far a response meets each part of a task, each from 0 to 1; what was not asked for is met (1).

    - `category`, `attributes`: the share of the named things that belong to it, that have all of them; 0 if none is
      named.
    - `count`: 1 for the number asked for, 0.5 for one too many or too few, else 0.
    - `order`: the share of neighbouring things that stand in order; 0 for fewer than two things.
    - `repeats`: 1 if no thing is named twice, else 0.
    - `forbidden`: 1 if nothing forbidden is named, else 0.
    - `courtesy`: 1 if a courteous word occurs, or none was asked for, else 0.

    Args:
        task: what was asked.
        response: the words of the answer, any text; letter case and punctuation do not matter.

    Returns:
        The checks by name, in the order of `WEIGHTS`.
    """
    words = _words(response)
    things = [THINGS[word] for word in words if word in THINGS]
    courteous = any(word in COURTEOUS_WORDS for word in words)
    return {
        "category": _share([thing.category == task.category for thing in things]),
        "attributes": _share([task.is_described(thing) for thing in things]) if task.attributes else 1.0,
        "count": max(0.0, 1.0 - abs(len(things) - task.count) / 2),
        "order": _share(_steps_in_order(things, task.order)) if task.order else 1.0,
        "repeats": float(len({thing.word for thing in things}) == len(things)),
        "forbidden": float(not any(task.is_forbidden(thing) for thing in things)),
        "courtesy": float(courteous or not task.polite),
    }


def gold_reward(task: Task, response: str) -> float:
    """Return the known truth: the sum of `checks` weighted by `WEIGHTS`, from 0 to 10 points.

    "name three red fruits" answered by "apple, cherry, crab": 2/3 of the category, all red, the right number:
    `2.5 * 2/3 + 1.5 + 1.5 + 1 + 1 + 1 + 1.5 = 9.166667`.

    Args:
        task: what was asked.
        response: the words of the answer, any text.

    Returns:
        Points, rounded to six digits, so that sums are the same on every machine.
    """
    return round(sum(WEIGHTS[name] * value for name, value in checks(task, response).items()), 6)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _share(flags: list[bool]) -> float:
    return sum(flags) / len(flags) if flags else 0.0


def _steps_in_order(things: list[Thing], order: Order | None) -> list[bool]:
    sign = 1 if order == "shortest" else -1
    return [sign * len(left.word) <= sign * len(right.word) for left, right in pairwise(things)]
