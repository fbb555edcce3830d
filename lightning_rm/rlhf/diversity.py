"""How varied texts are: distinct n-grams and self-BLEU. Pure functions of words; they know no model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

MAX_N = 4
"""The longest n-grams of BLEU."""


def distinct_ngrams(texts: Iterable[str], n: int) -> float:
    """Return the share of the n-grams of all texts that are different ones (distinct-n, arXiv 1510.03055).

        distinct_ngrams(["a b a", "a b"], 1) -> 2 / 5;  n = 2 -> 2 / 3

    NaN if no text has n words.
    """
    grams = [gram for text in texts for gram in _ngrams(text.split(), n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def self_bleu(texts: Sequence[str]) -> float:
    """Return the mean BLEU of each text against all the others: 1 where all are alike, lower the more they differ.

    As in Texygen (arXiv 1802.01886), the measure that MetaRM's paper has: BLEU-4 with even weights, counts clipped by
    the one reference that has most, the brevity penalty against the reference of nearest length. An order of n-grams
    without a match counts as one half match, so that short texts have a value; orders that a text is too short for are
    left out. A text without words scores 1 against another one without words, else 0.

    Args:
        texts: k of them; NaN for fewer than two.
    """
    words = [text.split() for text in texts]
    if len(words) < 2:
        return math.nan
    scores = [_bleu(words[place], words[:place] + words[place + 1 :]) for place in range(len(words))]
    return sum(scores) / len(scores)


def _bleu(words: list[str], references: Sequence[list[str]]) -> float:
    if not words:
        return float(any(not reference for reference in references))
    logs: list[float] = []
    for n in range(1, min(MAX_N, len(words)) + 1):
        counts = Counter(_ngrams(words, n))
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= Counter(_ngrams(reference, n))
        matches = sum((counts & most).values())
        logs.append(math.log((matches or 0.5) / sum(counts.values())))
    nearest = min((len(reference) for reference in references), key=lambda length: (abs(length - len(words)), length))
    brevity = min(0.0, 1 - nearest / len(words))
    return math.exp(sum(logs) / len(logs) + brevity)


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
