"""Responses of the made world: right and flawed answers, in a style that says nothing of their worth.

Every part that a task asks for is spoiled with one probability, the `flaw_rate`. Opening, closing, separators and
praise are drawn whatever the answer is worth, and add more words than flaws do: neither length nor style tells good
from bad.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.tasks import Order, Task
from lightning_rm.data.synthetic.words import (
    BY_CATEGORY,
    CATEGORIES,
    CLOSINGS,
    COURTEOUS_CLOSINGS,
    COURTEOUS_OPENINGS,
    OPENINGS,
    PRAISES,
    SEPARATORS,
    Thing,
)


@dataclass(frozen=True, slots=True)
class Style:
    """How an answer is dressed: what it says around the things it names. It changes length and look, never worth.

    Args:
        opening: the words before the things, or none.
        closing: the sentence after them, or none.
        separator: what stands between two things.
        last_separator: what stands before the last.
        praise: a word before each thing, or none.
    """

    opening: str
    closing: str
    separator: str
    last_separator: str
    praise: str


def sample_style(draws: Draws) -> Style:
    """Return a style, drawn without looking at task or answer."""
    separator, last_separator = draws.choice(SEPARATORS)
    return Style(
        opening=draws.choice(("",) * len(OPENINGS) + OPENINGS),
        closing=draws.choice(("",) * len(CLOSINGS) + CLOSINGS),
        separator=separator,
        last_separator=last_separator,
        praise=draws.choice(PRAISES) if draws.chance(0.15) else "",
    )


def sample_response(task: Task, flaw_rate: float, style: Style, draws: Draws) -> str:
    """Return an answer to a task, in words.

    Args:
        task: what was asked; it must have at least `count` right answers.
        flaw_rate: the probability that each part of the task is spoiled, half of it for number and repetition; 0 gives
            a perfect answer.
        style: how the answer is dressed.
        draws: where its randomness comes from.

    Returns:
        One line, such as `well: cherry, raspberry and apple. thank you.` Flaws may undo each other, and a thing put in
        for one flaw may cause another: what the answer is worth is for `gold_reward` to say.
    """
    things = _choose_things(task, flaw_rate, draws)
    if task.order and draws.chance(flaw_rate):
        things = _in_order(things, "longest" if task.order == "shortest" else "shortest")
    elif task.order:
        things = _in_order(things, task.order)
    courteous = not draws.chance(flaw_rate) if task.polite else draws.chance(0.5)
    if courteous and draws.chance(0.5):
        style = replace(style, opening=draws.choice(COURTEOUS_OPENINGS))
    elif courteous:
        style = replace(style, closing=draws.choice(COURTEOUS_CLOSINGS))
    return _dress(things, style)


def _choose_things(task: Task, flaw_rate: float, draws: Draws) -> list[Thing]:
    """Return the things to name, in random order, with flaws in kind, number and repetition."""
    count = task.count
    if draws.chance(flaw_rate / 2):
        count = max(1, count + draws.choice((-1, 1, 1, 2)))
    right, beside = _right_and_beside(task)
    things = (draws.shuffle(right) + draws.shuffle(beside))[:count]
    if draws.chance(flaw_rate):
        things = _spoil(things, _wrong_kind(task, draws), draws)
    if task.attributes and draws.chance(flaw_rate):
        things = _spoil(things, [thing for thing in beside if not task.is_described(thing)], draws)
    if (task.avoid or task.letter) and draws.chance(flaw_rate):
        things = _spoil(things, [thing for thing in beside if task.is_forbidden(thing)], draws)
    if len(things) > 1 and draws.chance(flaw_rate / 2):
        distinct = things[: 1 + draws.below(len(things) - 1)]
        things = distinct + [draws.choice(distinct) for _ in things[len(distinct) :]]
    return draws.shuffle(things)


@lru_cache(maxsize=16)  # a prompt is answered many times in a row
def _right_and_beside(task: Task) -> tuple[Sequence[Thing], Sequence[Thing]]:
    """Return the right answers to a task, and the other things of its category."""
    right = task.right_answers()
    return right, [thing for thing in BY_CATEGORY[task.category] if thing not in right]


def _wrong_kind(task: Task, draws: Draws) -> list[Thing]:
    """Return things that do not exist, or those of one other category that have the attributes asked for."""
    if draws.chance(0.4):
        return BY_CATEGORY["invented"]
    other = draws.choice([category for category in CATEGORIES if category != task.category])
    return [thing for thing in BY_CATEGORY[other] if task.is_described(thing)]


def _spoil(things: list[Thing], wrong: list[Thing], draws: Draws) -> list[Thing]:
    """Replace some of the things, or every other time all of them, by wrong ones, as far as there are any."""
    num = len(things) if draws.chance(0.5) else 1 + draws.below(len(things))
    return (draws.sample(wrong, min(num, len(wrong))) + draws.shuffle(things))[: max(len(things), 1)]


def _in_order(things: list[Thing], order: Order) -> list[Thing]:
    """Sort things by the length of their words; words of one length stay in random order."""
    return sorted(things, key=lambda thing: len(thing.word), reverse=order == "longest")


def _dress(things: list[Thing], style: Style) -> str:
    words = [f"{style.praise} {thing.word}".strip() for thing in things]
    body = style.last_separator.join(part for part in (style.separator.join(words[:-1]), words[-1]) if part)
    return f"{style.opening} {body}. {style.closing}".strip()
