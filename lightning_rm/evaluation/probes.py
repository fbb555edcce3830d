"""Robustness probes: edits of responses, made without a language model, that should not change which one is better.

In the manner of reWordBench (Wu et al., arXiv 2503.11751): every response of a pair is edited alike, and a reward model
that has understood them keeps their order. Edits are pure functions of a text and a random generator.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lightning_rm.evaluation.items import Floats, Item, Items

Edit = Callable[[str, random.Random], str]

TYPO_RATE = 0.03
"""The share of words with a typo."""

SENTENCE = "I hope this is what you were looking for."

LOOK_ALIKE = str.maketrans("aceopx", "асеорх")
"""Latin letters to Cyrillic ones that look the same."""


def spaces(text: str, draw: random.Random) -> str:
    """Put a second space after every sentence and comma."""
    return re.sub(r"([.,;:!?]) (?=\S)", r"\1  ", text)


def quotes(text: str, draw: random.Random) -> str:
    """Put quotation marks around the whole."""
    return f'"{text}"'


def typos(text: str, draw: random.Random) -> str:
    """Exchange two neighbouring letters inside some words of five letters or more."""

    def exchanged(found: re.Match[str]) -> str:
        word = found[0]
        if draw.random() >= TYPO_RATE:
            return word
        place = draw.randrange(1, len(word) - 2)
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    return re.sub(r"[A-Za-z]{5,}", exchanged, text)


def no_markdown(text: str, draw: random.Random) -> str:
    """Take headings, bold, emphasis, code marks and bullets away, and leave their words."""
    text = re.sub(r"^ {0,3}#{1,6} +", "", text, flags=re.MULTILINE)
    text = re.sub(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", r"\2", text)
    text = re.sub(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])", r"\1", text)
    text = re.sub(r"^```.*\n?", "", text, flags=re.MULTILINE).replace("`", "")
    return re.sub(r"^(\s*)[*+-] +", r"\1", text, flags=re.MULTILINE)


def sentence(text: str, draw: random.Random) -> str:
    """Append a sentence that says nothing."""
    return f"{text.rstrip()}\n\n{SENTENCE}"


def reordered(text: str, draw: random.Random) -> str:
    """Reverse the order of the bullets of every list; numbered lists stay, for their order may matter."""

    def reversed_list(found: re.Match[str]) -> str:
        lines = found[0].splitlines()
        return "\n".join(lines[::-1]) + ("\n" if found[0].endswith("\n") else "")

    return re.sub(r"(?:^[*+-] +\S.*(?:\n|\Z)){2,}", reversed_list, text, flags=re.MULTILINE)


def newline(text: str, draw: random.Random) -> str:
    """Append a line break."""
    return f"{text}\n"


def look_alikes(text: str, draw: random.Random) -> str:
    """Replace the letters a, c, e, o, p and x of one word in thirty by look-alikes of another alphabet."""
    return re.sub(r"\w+", lambda found: found[0].translate(LOOK_ALIKE) if draw.random() < 1 / 30 else found[0], text)


EDITS: dict[str, Edit] = {
    "spaces": spaces,
    "quotes": quotes,
    "typos": typos,
    "no markdown": no_markdown,
    "sentence": sentence,
    "list reordered": reordered,
    "newline": newline,
    "look-alikes": look_alikes,
}
"""Name -> edit."""


def edited(items: Items, edit: Edit, seed: int) -> Items:
    """Return the same items with every turn of every response edited; a response's edit depends on its text and seed
    alone.
    """

    def of_text(text: str) -> str:
        return edit(text, random.Random(f"{seed} {text}"))

    def of_item(item: Item) -> Item:
        responses = tuple(
            tuple({**turn, "content": of_text(turn["content"])} for turn in response) for response in item.responses
        )
        return replace(item, responses=responses)

    return Items(of_item(item) for item in items)


def probe(
    items: Items, rewards: Floats, score: Callable[[Items], Floats], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Return what every edit does to a model's preferences.

    Args:
        items: those that are probed.
        rewards: (N, K) of the items as they are.
        score: items to (N, K) rewards, K the most responses of those that are asked; NaN for items that are too long.
        seed: of the edits.

    Returns:
        Edit -> `pairs`, the comparisons with a response that it changed; `right`, those of them that were right, and
        `flips`, the share of these that are no longer right; `accuracy before` and `after`; and `shift`, the mean size
        of a changed response's change of reward over the standard deviation of all margins. Comparisons with a response
        that became too long to read are counted as `too long`, and nowhere else.
    """
    comparisons = items.comparisons
    before = comparisons.margins(rewards)
    scale = float(before.std()) or 1.0
    found: dict[str, dict[str, float]] = {}
    for name, edit in EDITS.items():
        other = edited(items, edit, seed)
        changed = items.grid(
            [float(new != old) for new, old in zip(after.responses, was.responses, strict=True)]
            for after, was in zip(other, items, strict=True)
        )
        places = comparisons.item, comparisons.better, comparisons.worse
        touched = (changed[places[0], places[1]] + changed[places[0], places[2]]) > 0
        again = np.full_like(rewards, np.nan)
        if touched.any():
            concerned = np.unique(comparisons.item[touched])
            scored = score(other.take(concerned))
            again[concerned, : scored.shape[1]] = scored
        after = comparisons.margins(again)
        read = touched & np.isfinite(after)
        too_long = {"too long": num} if (num := int((touched & ~read).sum())) else {}
        if not read.any():
            found[name] = {"pairs": 0, **too_long}
            continue
        right, still = before[read] > 0, after[read] > 0
        found[name] = {
            "pairs": int(read.sum()),
            "right": int(right.sum()),
            "flips": float((right & ~still).sum() / right.sum()) if right.any() else math.nan,
            "accuracy before": float(right.mean()),
            "accuracy after": float(still.mean()),
            "shift": float(np.nanmean(np.abs(again - rewards)[changed == 1]) / scale),
            **too_long,
        }
    return found
