"""Topics of prompts: clusters of their words, named by the words that mark them. It knows words; no rows.

A prompt is the sum of its words' random directions, each weighted by how rare the word is (random indexing, Kanerva et
al. 2000), and spherical k-means puts prompts of like words together. Nothing is downloaded and nothing is trained.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_rm.digests import short_key

WORDS = re.compile(r"[^\W\d_]{3,}")
"""What counts as a word: three letters or more."""

WIDTH = 64
"""Numbers that a prompt is described by."""

MAX_WORDS = 60
"""Distinct words of a prompt that are looked at."""

NUM_ROUNDS = 15


class TopicSketch:
    """The distinct words of each prompt, as numbers."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._rows: list[NDArray[np.int32]] = []

    def add(self, words: Sequence[str]) -> None:
        """Note a prompt."""
        distinct = list(dict.fromkeys(words))[:MAX_WORDS]
        self._rows.append(np.array([self._number.setdefault(word, len(self._number)) for word in distinct], np.int32))

    def clusters(self, num_clusters: int = 10, seed: int = 0) -> list[str]:
        """Return the topic of each prompt, by the three words that mark it most; empty for one without words.

        Args:
            num_clusters: at most; no more than one for every twenty prompts.
            seed: of the first centres.
        """
        has_words = np.array([len(row) > 0 for row in self._rows], bool)
        num = min(num_clusters, int(has_words.sum()) // 20)
        if num < 2:
            return [""] * len(self._rows)
        vectors = self._vectors()[has_words]
        cluster = _spherical_means(vectors, num, seed)
        place = np.full(len(self._rows), -1)
        place[has_words] = cluster
        names = self._names(place, num)
        return ["" if one < 0 else names[one] for one in place.tolist()]

    def _vectors(self) -> NDArray[np.float32]:
        """Return (R, WIDTH) vectors of unit length."""
        counts = np.zeros(len(self._number))
        for row in self._rows:
            counts[row] += 1
        # A word of one prompt alone marks no topic.
        weight = np.where(counts > 1, np.log(len(self._rows) / np.maximum(counts, 1)), 0.0)
        directions = np.stack([_direction(word) for word in self._number])
        vectors = np.zeros((len(self._rows), WIDTH), np.float32)
        for place, row in enumerate(self._rows):
            vectors[place] = weight[row] @ directions[row]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def _names(self, place: NDArray[np.int64], num: int) -> list[str]:
        """Return for each cluster the words whose share of prompts in it exceeds that of all prompts most."""
        words = list(self._number)
        overall = Counter[int]()
        inside = [Counter[int]() for _ in range(num)]
        for one, row in zip(place.tolist(), self._rows, strict=True):
            overall.update(row.tolist())
            if one >= 0:
                inside[one].update(row.tolist())
        names: list[str] = []
        for one in range(num):
            size = max(int((place == one).sum()), 1)
            lift = {word: count / size - overall[word] / len(place) for word, count in inside[one].items()}
            best = sorted(lift, key=lambda word: (-lift[word], words[word]))[:3]
            names.append(" ".join(words[word] for word in best) or "other")
        return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names)]


def _direction(word: str) -> NDArray[np.float32]:
    """Return a word's random signs, the same in every run."""
    bits = np.unpackbits(np.frombuffer(short_key(word.encode(), num_bytes=WIDTH // 8), np.uint8))
    return (2.0 * bits - 1).astype(np.float32) / math.sqrt(WIDTH)


def _spherical_means(vectors: NDArray[np.float32], num: int, seed: int) -> NDArray[np.int64]:
    """Return (n,), the cluster of each unit vector; centres begin far from each other (k-means++)."""
    draw = np.random.default_rng(seed)
    centres = vectors[draw.integers(len(vectors), size=1)]
    while len(centres) < num:
        far = np.maximum(1 - (vectors @ centres.T).max(1), 0).astype(np.float64)
        chance = far / far.sum() if far.sum() else None
        centres = np.concatenate([centres, vectors[draw.choice(len(vectors), size=1, p=chance)]])
    for _ in range(NUM_ROUNDS):
        cluster = (vectors @ centres.T).argmax(1)
        sums = np.zeros_like(centres)
        np.add.at(sums, cluster, vectors)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(length > 0, sums / np.maximum(length, 1e-9), centres)
    return (vectors @ centres.T).argmax(1)
