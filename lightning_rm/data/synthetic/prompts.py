"""Prompts of the made world: families of tasks, their phrasings, and which split a prompt belongs to.

A task belongs to one split for ever, whatever the seed: the split is read off the task. What is held out for the split
`ood` is held out by rule (two attributes, combinations and a category that no training task has, a phrasing that no
other prompt uses), while every word of it occurs in training.

This file knows no reward and, except for the assistant's turn inside a follow-up, no response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lightning_rm.data.rows import Message
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.responses import sample_response, sample_style
from lightning_rm.data.synthetic.tasks import Order, Task
from lightning_rm.data.synthetic.words import (
    ATTRIBUTE_CHANGES,
    ATTRIBUTES,
    AVOID_PHRASES,
    COLOURS,
    COUNT_CHANGES,
    COURTESY_PHRASES,
    FURTHER_CHANGES,
    GREETINGS,
    LETTER_PHRASES,
    LETTERS,
    NUMBERS,
    ORDER_PHRASES,
    REQUESTS,
    SIZES,
    THINGS,
)
from lightning_rm.digests import key_digest

Split = Literal["train", "val", "test", "ood"]
Reason = Literal["attributes", "combination", "category"]

COUNT_WEIGHTS = {2: 1, 3: 2, 4: 1}
CATEGORY_WEIGHTS = {"fruits": 8, "animals": 4, "tools": 3, "clothes": 2}
COLOUR_WEIGHTS = {"red": 3, "green": 1}
SIZE_WEIGHTS = {"small": 3, "large": 1}
"""How often a task asks for each. Uneven, as people ask; it also gives a small model a foothold: words of a frequent
category are right more often, so it learns which words belong together before it learns what was asked."""
HELD_OUT_CATEGORY = "clothes"
"""The category that training only asks to name; `ood_category` asks for an order or an exception too."""


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of prompt.

    Args:
        num_extras: how many of `extras` are asked for beside the things themselves; courtesy in every second task.
        extras: what may be asked for: an `order`, something to `avoid`.
        num_attributes: how many attributes the things must have; one number is drawn.
        follow_up: whether a second turn changes what the first asked for.
        held_out_by: why its tasks are held out of training, if they are.
        extras_first: phrased with the extras before the things: `shortest first: three red fruits.`
    """

    num_extras: int = 0
    extras: tuple[str, ...] = ("order", "avoid")
    num_attributes: tuple[int, ...] = (0, 1, 1)
    follow_up: bool = False
    held_out_by: tuple[Reason, ...] = ()
    extras_first: bool = False


FAMILIES: Mapping[str, Family] = {
    "list": Family(),
    "order": Family(1, ("order",)),
    "avoid": Family(1, ("avoid",)),
    "follow_up": Family(follow_up=True),
}
"""The families of train, val and test by name."""

OOD_FAMILIES: Mapping[str, Family] = {
    "ood_attributes": Family(num_attributes=(2,), held_out_by=("attributes",)),
    "ood_combination": Family(2, held_out_by=("combination",)),
    "ood_category": Family(1, held_out_by=("category",)),
    "ood_phrasing": Family(1, extras_first=True),
}
"""The families of the split `ood` by name."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A task in words.

    Args:
        task: what the last turn asks for, all turns taken together.
        messages: the conversation up to the response.
        family: a key of `FAMILIES` or `OOD_FAMILIES`.
        id: names the prompt: a digest of its messages.
    """

    task: Task
    messages: tuple[Message, ...]
    family: str
    id: str


def held_out_by(task: Task) -> tuple[Reason, ...]:
    """Say why no training task may be like this; empty if one may.

    - `attributes`: training asks for a colour or a size, never for both.
    - `combination`: training asks for one extra (order, exception) at most; courtesy is none.
    - `category`: training asks for no extra with `HELD_OUT_CATEGORY`.
    """
    num_extras = sum((task.order is not None, bool(task.avoid or task.letter)))
    reasons: dict[Reason, bool] = {
        "attributes": len(task.attributes) > 1,
        "combination": num_extras > 1,
        "category": task.category == HELD_OUT_CATEGORY and num_extras > 0,
    }
    return tuple(reason for reason, holds in reasons.items() if holds)


def split_of(task: Task) -> Split:
    """Return the one split a task may stand in: `ood` if it is held out, else .7 train and .1 each of val, test and
    ood.
    """
    tenth = 9 if held_out_by(task) else int(key_digest(repr(task)), 16) % 10
    return "train" if tenth < 7 else ("val", "test", "ood")[tenth - 7]


def sample_prompt(split: Split, draws: Draws) -> Prompt:
    """Return a prompt of a split, its family drawn evenly from those of the split.

    Args:
        split: `train`, `val` and `test` share their families but no task; `ood` has families of its own.
        draws: where its randomness comes from.
    """
    families = OOD_FAMILIES if split == "ood" else FAMILIES
    name = draws.choice(list(families))
    family = families[name]
    while True:
        first = _base(family, draws)
        task = _changed(first, draws) if family.follow_up else _with_extras(first, family, draws)
        solvable = len(task.right_answers()) >= task.count
        if solvable and held_out_by(task) == family.held_out_by and split_of(task) == split:
            break
    messages = _follow_up(first, task, draws) if family.follow_up else (_user(_request(task, family, draws)),)
    return Prompt(task, messages, name, key_digest(*(message["content"] for message in messages))[:16])


def _base(family: Family, draws: Draws) -> Task:
    attributes = draws.shuffle((draws.weighted(SIZE_WEIGHTS), draws.weighted(COLOUR_WEIGHTS)))
    num_attributes = draws.choice(family.num_attributes)
    return Task(draws.weighted(CATEGORY_WEIGHTS), draws.weighted(COUNT_WEIGHTS), tuple(attributes[:num_attributes]))


def _with_extras(task: Task, family: Family, draws: Draws) -> Task:
    for extra in draws.sample(family.extras, family.num_extras):
        task = _with_extra(task, extra, draws)
    return _with_extra(task, "courtesy", draws) if draws.chance(0.5) else task


def _with_extra(task: Task, extra: str, draws: Draws) -> Task:
    if extra == "order":
        orders: Sequence[Order] = ("shortest", "longest")
        return replace(task, order=draws.choice(orders))
    if extra == "courtesy":
        return replace(task, polite=True)
    if draws.chance(0.3):
        return replace(task, letter=draws.choice(LETTERS))
    tempting = [thing.word for thing in THINGS.values() if task.fits(thing)]
    return replace(task, avoid=(draws.choice(tempting),))


def _changed(task: Task, draws: Draws) -> Task:
    """Return the task after a second turn that changes its count or attribute, or asks for an extra."""
    change = draws.choice(("count", "attribute", "order", "avoid", "courtesy"))
    if change == "count":
        return replace(task, count=draws.choice([count for count in COUNT_WEIGHTS if count != task.count]))
    if change == "attribute":
        kind = next((kind for kind in (COLOURS, SIZES) if set(kind) & set(task.attributes)), ATTRIBUTES)
        return replace(task, attributes=(draws.choice([word for word in kind if word not in task.attributes]),))
    return _with_extra(task, change, draws)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _request(task: Task, family: Family, draws: Draws) -> str:
    what = " ".join((NUMBERS[task.count], *task.attributes, task.category))
    extras = draws.shuffle(_extra_phrases(task, draws))
    if family.extras_first:
        return f"{' and '.join(extras)}: {what}."
    request = ", ".join([draws.choice(REQUESTS).format(what=what), *extras])
    return f"{draws.choice(GREETINGS)} {request}." if draws.chance(0.2) else f"{request}."


def _extra_phrases(task: Task, draws: Draws) -> list[str]:
    phrases: list[str] = []
    if task.order:
        phrases.append(draws.choice(ORDER_PHRASES[task.order]))
    if task.avoid:
        phrases.append(draws.choice(AVOID_PHRASES).format(words=" or ".join(task.avoid)))
    if task.letter:
        phrases.append(draws.choice(LETTER_PHRASES).format(letter=task.letter))
    if task.polite:
        phrases.append(draws.choice(COURTESY_PHRASES))
    return phrases


def _follow_up(first: Task, task: Task, draws: Draws) -> tuple[Message, ...]:
    """Return three turns: a request, a perfect answer to it, and the change that makes it the task."""
    if task.count != first.count:
        change = draws.choice(COUNT_CHANGES).format(count=NUMBERS[task.count])
    elif task.attributes != first.attributes:
        change = draws.choice(ATTRIBUTE_CHANGES).format(attribute=task.attributes[0])
    else:
        change = draws.choice(FURTHER_CHANGES).format(rest=", ".join(_extra_phrases(task, draws)))
    answer: Message = {"role": "assistant", "content": sample_response(first, 0.0, sample_style(draws), draws)}
    return (_user(_request(first, FAMILIES["list"], draws)), answer, _user(f"{change}."))
