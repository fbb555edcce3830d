"""The made preference data: pairs of responses from the made world, labelled by an annotator who errs in known ways.

Texts, gold rewards and labels come from separate streams of randomness: changing the annotator (temperature, noise,
length bias) changes which response is called chosen and nothing else, so runs that differ in noise see the same texts.
Row i depends on the seed, the split and i alone: a larger data set begins with the smaller one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache
from itertools import islice
from typing import get_args

from lightning_rm.counts import check_counts
from lightning_rm.data.rows import Message, PairRow
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.policy import Policy
from lightning_rm.data.synthetic.prompts import Split, sample_prompt
from lightning_rm.data.synthetic.responses import sample_response
from lightning_rm.data.synthetic.tasks import Task, gold_reward
from lightning_rm.digests import key_digest
from lightning_rm.options import check_words

CLEAR_MARGIN = 0.75
"""Points of gold reward that the responses of a clear pair differ by, at least; `(1 - shift)` times that where the
policy has drifted, and never 0."""
AMBIGUOUS_MARGIN = 0.4
"""Points that the responses of an ambiguous pair differ by, at most; never 0."""


@dataclass(frozen=True)
class SyntheticSource:
    """Preference pairs whose truth is known: a `Source`.

    An annotator prefers response a to b with the Bradley-Terry probability `sigmoid((gold(a) - gold(b)) / temperature +
    length_bias * (words(a) - words(b)))`; afterwards a share `noise` of the labels is turned round, whatever the pair.

    Args:
        num_pairs: how many rows.
        split: `train`, `val`, `test` (the same prompt families, no prompt in common) or `ood` (held-out families).
        noise: the share of labels that is turned round, in [0, 1].
        ambiguity: the share of pairs with nearly equal gold rewards, in [0, 1].
        length_bias: the annotator's taste for length, in logits a word.
        temperature: of the Bradley-Terry choice, in points of gold reward: at 0.25 a pair one point apart is labelled
            rightly 98 times in 100.
        clean_labels: chosen is the truly better response in every row; noise, temperature and length bias do nothing.
        flawless: chosen is a perfect answer, a demonstration to fine-tune on; the labels are clean then.
        seed: of everything drawn.
        shift: how far the policy whose responses these are has drifted from that of the training pairs, in [0, 1]; see
            `synthetic_policy`. Prompts do not depend on it.
        levels: K of an annotator who says how far one response is preferred, which is the strength then, ties among
            them; 0 for one who names the better one alone. See `Annotator`, as for the two that follow.
        level_shift: levels by which every preference is overstated.
        random_levels: the share of pairs whose level is drawn at random.

    Raises:
        ValueError: if a value is out of its range.
    """

    num_pairs: int
    split: Split = "train"
    noise: float = 0.1
    ambiguity: float = 0.1
    length_bias: float = 0.02
    temperature: float = 0.25
    clean_labels: bool = False
    flawless: bool = False
    seed: int = 0
    shift: float = 0.0
    levels: int = 0
    level_shift: int = 0
    random_levels: float = 0.0

    def __post_init__(self) -> None:
        Policy(self.shift)  # raises for a shift out of range
        check_words(get_args(Split), split=self.split)
        self._annotator()  # raises for noise or a temperature out of range
        if not 0 <= self.ambiguity <= 1:
            raise ValueError(f"ambiguity is {self.ambiguity}; it is a share of the pairs, from 0 to 1")
        check_counts(0, num_pairs=self.num_pairs, seed=self.seed)

    def fingerprint(self) -> str:
        """Return a digest of the options and of the first rows, so that a change to the world shows as well."""
        return _digest(self)

    def __iter__(self) -> Iterator[PairRow]:
        return (self._row(index) for index in range(self.num_pairs))

    def _row(self, index: int) -> PairRow:
        text = Draws("text", self.seed, self.split, index)
        ambiguous = Draws("ambiguity", self.seed, self.split, index).chance(self.ambiguity)
        prompt = sample_prompt(self.split, text)
        responses = _demonstration if self.flawless else _two_responses
        first, second = responses(prompt.task, ambiguous, Policy(self.shift), text)
        margin = gold_reward(prompt.task, first) - gold_reward(prompt.task, second)
        draws = Draws("label", self.seed, self.split, index)
        num_more_words = len(first.split()) - len(second.split())
        level = self._annotator().level(margin, num_more_words, draws) if self.levels else None
        if level < 0 if level is not None else not self._annotator().prefers_first(margin, num_more_words, draws):
            first, second, margin = second, first, -margin
        return PairRow(
            prompt=prompt.messages,
            chosen=(_assistant(first),),
            rejected=(_assistant(second),),
            id=f"{self.split}-{self.seed}-{index}",
            prompt_id=prompt.id,
            subset=prompt.family,
            gold_margin=round(margin, 6),
            clean=margin > 0,
            label=0.5 if level == 0 else 1.0,
            tied=level == 0,
            strength_mean=None if level is None else float(abs(level)),
        )

    def _annotator(self) -> Annotator:
        return Annotator(
            self.noise,
            self.length_bias,
            self.temperature,
            self.clean_labels or self.flawless,
            self.levels,
            level_shift=self.level_shift,
            random_levels=self.random_levels,
        )


@lru_cache(maxsize=64)  # runs of one process, and stages of one run, ask for it again
def _digest(source: SyntheticSource) -> str:
    return key_digest(astuple(source), [asdict(row) for row in islice(source, 64)])


def _two_responses(task: Task, ambiguous: bool, policy: Policy, draws: Draws) -> tuple[str, str]:
    """Return two responses in random order whose gold rewards are nearly equal or clearly apart, never equal."""
    clear_margin = CLEAR_MARGIN * (1 - policy.shift)
    while True:
        style = policy.style(draws)
        first = policy.response(task, style, draws)
        if draws.chance(0.5):
            style = policy.style(draws)
        second = policy.response(task, style, draws)
        difference = abs(gold_reward(task, first) - gold_reward(task, second))
        if difference > 0 and (difference <= AMBIGUOUS_MARGIN if ambiguous else difference >= clear_margin):
            return first, second


def _demonstration(task: Task, ambiguous: bool, policy: Policy, draws: Draws) -> tuple[str, str]:
    """Return a perfect answer and a worse one."""
    while True:
        first = sample_response(task, 0.0, policy.style(draws), draws)
        second = _two_responses(task, ambiguous, policy, draws)[0]
        if gold_reward(task, first) > gold_reward(task, second):
            return first, second


def _assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}
