"""Responses of the made world: right and flawed answers, in a style that says nothing of their worth.

Every part that a task asks for is spoiled with one probability, the `flaw_rate`. Opening, closing, separators and praise are
drawn whatever the answer is worth, and add more words than flaws do, so neither length nor style tells good from bad.
"""

from __future__ import annotations

from lightning_rm.data.draws import Draws
from lightning_rm.data.world import Order, Task
from lightning_rm.data.world_words import (
    CLOSINGS,
    COURTEOUS_CLOSINGS,
    COURTEOUS_OPENINGS,
    OPENINGS,
    PRAISES,
    THINGS,
    Thing,
)


def sample_response(task: Task, flaw_rate: float, draws: Draws) -> str:
    """An answer to a task, in words.

    Args:
        task: what was asked; it must have at least `count` right answers.
        flaw_rate: the probability that each part of the task is spoiled; 0 gives a perfect answer.
        draws: where its randomness comes from.

    Returns:
        One line, such as `well: cherry, raspberry and apple. thank you.` Flaws may undo each other and a
        thing put in for one flaw may cause another: what the answer is worth is for `gold_reward` to say.
    """
    things = _choose_things(task, flaw_rate, draws)
    if task.order and draws.chance(flaw_rate):
        things = _in_order(things, "longest" if task.order == "shortest" else "shortest")
    elif task.order:
        things = _in_order(things, task.order)
    courteous = not draws.chance(flaw_rate) if task.polite else draws.chance(0.5)
    return _dress(things, courteous, draws)


def _choose_things(task: Task, flaw_rate: float, draws: Draws) -> list[Thing]:
    """The things to name, in random order, with flaws in kind, number and repetition."""
    count = task.count
    if draws.chance(flaw_rate/2):
        count = max(1, count + draws.choice((-2, -1, -1, 1, 1, 2)))
    right = task.right_answers()
    beside = [thing for thing in THINGS.values() if thing.category == task.category and thing not in right]
    things = (draws.shuffle(right) + draws.shuffle(beside))[:count]
    if draws.chance(flaw_rate):
        wrong = _of_other_category(task)
        if draws.chance(0.5):
            kind = draws.choice(wrong).category
            wrong = [thing for thing in wrong if thing.category == kind]
            things = draws.shuffle(wrong)[: len(things)] if len(wrong)>=len(things) else things
        else:
            things = _replace(things, wrong, draws)
    if task.attributes and draws.chance(flaw_rate):
        wrong = [thing for thing in beside if not task.is_described(thing)]
        things = draws.shuffle(wrong)[: len(things)] if draws.chance(.5) and len(wrong)>=len(things) else _replace(things, wrong, draws)
    forbidden = [thing for thing in beside if task.is_forbidden(thing)]
    if forbidden and draws.chance(flaw_rate):
        things = _replace(things, forbidden, draws, most=1)
    if len(things) > 1 and draws.chance(flaw_rate/2):
        k = 1 + draws.below(len(things)-1)
        things = things[:k] + [draws.choice(things[:k]) for _ in things[k:]]
    return draws.shuffle(things)


def _of_other_category(task: Task) -> list[Thing]:
    """Things of other categories that are right in all else."""
    others = [thing for thing in THINGS.values() if thing.category != task.category]
    return [thing for thing in others if task.is_described(thing) and not task.is_forbidden(thing)]


def _replace(things: list[Thing], wrong: list[Thing], draws: Draws, most: int = 5) -> list[Thing]:
    """One to `most` of the things replaced by wrong ones that do not stand there yet."""
    wrong = [thing for thing in wrong if thing not in things]
    num = min(1 + draws.below(len(things)), most, len(wrong))
    return draws.sample(wrong, num) + draws.shuffle(things)[num:]


def _in_order(things: list[Thing], order: Order) -> list[Thing]:
    """Stable, so that words of one length stay in random order."""
    return sorted(things, key=lambda thing: len(thing.word), reverse=order == "longest")


def _dress(things: list[Thing], courteous: bool, draws: Draws) -> str:
    """The things in a sentence: style and length drawn freely, courteous words only where asked for."""
    opening = draws.choice(("",) * 4 + OPENINGS)
    closing = draws.choice(("",) * 4 + CLOSINGS)
    if courteous and draws.chance(0.5):
        opening = draws.choice(COURTEOUS_OPENINGS)
    elif courteous:
        closing = draws.choice(COURTEOUS_CLOSINGS)
    praise = draws.chance(0.15)
    words = [f"{draws.choice(PRAISES)} {thing.word}" if praise else thing.word for thing in things]
    body = draws.choice((_commas, _commas, _ands, _sequence))(words)
    return " ".join(part for part in (opening, f"{body}.", closing) if part)


def _commas(words: list[str]) -> str:
    return ", ".join(words)


def _ands(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _sequence(words: list[str]) -> str:
    return ", then ".join(words)
