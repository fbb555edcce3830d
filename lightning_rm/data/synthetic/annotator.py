"""Who labels pairs of the made world, and how they err. It knows gold rewards and lengths; no text."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_rm.counts import check_counts, check_positive, is_number, is_positive
from lightning_rm.data.synthetic.draws import Draws


@dataclass(frozen=True)
class Annotator:
    """Prefers response a to b with probability `sigmoid((gold(a) - gold(b)) / temperature + length_bias * (words(a) -
    words(b)))`, the Bradley-Terry model; afterwards a share of the labels is turned round, whatever the pair.

    Args:
        noise: the share of labels that is turned round, in [0, 1].
        length_bias: the taste for length, in logits a word.
        temperature: in points of gold reward: at 0.25 a pair one point apart is labelled rightly 98 times in 100.
        clean_labels: the truly better response is preferred every time; nothing else counts.
        num_levels: K, for annotators who say how far they prefer one, from -K to K; 0 is a tie.
        level_width: the width of a level, in logits: what they feel is divided by it and rounded. At 2, a feeling
            within 1 of 0 is a tie, and one up to 3 a preference of 1.
        level_shift: levels by which every preference is overstated, K at most; ties stay.
        random_levels: the share of pairs whose level is drawn from all of them alike, whatever is felt.

    Raises:
        ValueError: if a value is out of its range.
    """

    noise: float = 0.1
    length_bias: float = 0.02
    temperature: float = 0.25
    clean_labels: bool = False
    num_levels: int = 0
    level_width: float = 2.0
    level_shift: int = 0
    random_levels: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise is {self.noise}; it is a share of the pairs, from 0 to 1")
        if not 0 <= self.random_levels <= 1:
            raise ValueError(f"random_levels is {self.random_levels}; it is a share of the pairs, from 0 to 1")
        check_counts(0, levels=self.num_levels, level_shift=self.level_shift)
        if not is_number(self.length_bias):
            raise ValueError(f"length_bias={self.length_bias!r}; give a number")
        check_positive(level_width=self.level_width)
        if not is_positive(self.temperature):
            raise ValueError(
                f"temperature is {self.temperature!r}; it must be above 0 (clean_labels=True takes no chances)"
            )

    def level(self, margin: float, num_more_words: int, draws: Draws) -> int:
        """Say how far the first response of one pair is preferred, from -K to K.

        What is felt is the Bradley-Terry logit with logistic noise, whose sign is the label of `prefers_first`.

        Args:
            margin: as there.
            num_more_words: as there.
            draws: the pair's own; the first two numbers are those drawn there.
        """
        uniform, turned, at_random = draws.uniform(), draws.chance(self.noise), draws.chance(self.random_levels)
        if at_random:
            return draws.below(2 * self.num_levels + 1) - self.num_levels
        felt = margin / self.temperature + self.length_bias * num_more_words
        if not self.clean_labels:
            felt -= math.log(uniform / (1 - uniform)) if uniform > 0 else -math.inf
            felt = -felt if turned else felt
        size = min(round(min(abs(felt) / self.level_width, self.num_levels)), self.num_levels)
        size = min(size + self.level_shift, self.num_levels) if size else 0
        return size if felt > 0 else -size

    def prefers_first(self, margin: float, num_more_words: int, draws: Draws) -> bool:
        """Return the label of one pair.

        Args:
            margin: gold of the first response minus that of the second.
            num_more_words: words of the first minus those of the second.
            draws: the pair's own; two numbers are drawn, unless labels are clean.
        """
        if self.clean_labels:
            return margin > 0
        probability = _sigmoid(margin / self.temperature + self.length_bias * num_more_words)
        return draws.chance(probability) != draws.chance(self.noise)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
