"""What a prompt of the made world asks for, read off its words: the way back from a prompt to its task.

It gives the gold reward of any text that a policy writes to any prompt of the world, even one from a file. It knows
phrases; no reward and no response.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import get_args

from lightning_rm.data.rows import Message
from lightning_rm.data.synthetic.tasks import Order, Task
from lightning_rm.data.synthetic.words import (
    ATTRIBUTES,
    AVOID_PHRASES,
    CATEGORIES,
    COURTESY_PHRASES,
    LETTER_PHRASES,
    NUMBERS,
    ORDER_PHRASES,
    THINGS,
)


def _any_of(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, words))})"


_COUNTS = {word: number for number, word in NUMBERS.items()}
_ORDERS: dict[str, Order] = {phrase: order for order in get_args(Order) for phrase in ORDER_PHRASES[order]}
_WHAT = re.compile(rf"\b({_any_of(_COUNTS)}) ((?:{_any_of(ATTRIBUTES)} )*)({_any_of(CATEGORIES)})\b")
_NUMBER = re.compile(rf"\b{_any_of(_COUNTS)}\b")
_ATTRIBUTE = re.compile(rf"\b{_any_of(ATTRIBUTES)}\b")
_ORDER = re.compile(rf"\b{_any_of(_ORDERS)}\b")
_COURTESY = re.compile(rf"\b{_any_of(COURTESY_PHRASES)}\b")
_LETTER = re.compile("|".join(rf"{phrase.format(letter=r'([a-z])')}\b" for phrase in LETTER_PHRASES))
_THINGS = rf"({_any_of(THINGS)}(?: or {_any_of(THINGS)})*)"
_AVOID = re.compile("|".join(rf"\b{phrase.format(words=_THINGS)}\b" for phrase in AVOID_PHRASES))


def task_of(messages: Sequence[Message]) -> Task:
    """Return the task of a prompt, all of its turns taken together.

    Args:
        messages: the conversation up to the response, oldest turn first; the assistant's turns are not read.

    Raises:
        ValueError: if it is not a prompt of the made world.
    """
    asked = [str(message["content"]) for message in messages if message["role"] == "user"]
    first = _WHAT.search(asked[0]) if asked else None
    if first is None:
        raise ValueError(f"{(asked or ['nothing'])[0][:80]!r} is not a prompt of the made world, whose gold is planted")
    task = _with_extras(Task(first[3], _COUNTS[first[1]], tuple(first[2].split())), asked[0])
    for change in asked[1:]:
        if number := _NUMBER.search(change):
            task = replace(task, count=_COUNTS[number[0]])
        if attribute := _ATTRIBUTE.search(change):
            task = replace(task, attributes=(attribute[0],))
        task = _with_extras(task, change)
    return task


def _with_extras(task: Task, text: str) -> Task:
    """Return the task with the order, exceptions and courtesy that a turn asks for."""
    if order := _ORDER.search(text):
        task = replace(task, order=_ORDERS[order[0]])
    if avoid := _AVOID.search(text):
        task = replace(task, avoid=tuple(_group(avoid).split(" or ")))
    if letter := _LETTER.search(text):
        task = replace(task, letter=_group(letter))
    return replace(task, polite=True) if _COURTESY.search(text) else task


def _group(found: re.Match[str]) -> str:
    """Return the one group that matched."""
    return next(group for group in found.groups() if group is not None)
