"""The answers of a judge model on disk, a line each as they come, and what they cost. It knows no endpoint."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Literal

from lightning_rm.drafts import naming
from lightning_rm.rlhf.lines import whole_lines
from lightning_rm.told import object_of

Said = Literal["A", "B", "C"]


@dataclass(frozen=True, slots=True)
class JudgeAnswer:
    """One answer.

    Args:
        question: names what was asked.
        said: the verdict; None where it cannot be read.
        answer: the text.
        num_requests: to the server, those that it was too busy for among them.
        prompt_tokens: as the server counts them; None where it does not.
        completion_tokens: likewise.
    """

    question: str
    said: Said | None
    answer: str
    num_requests: int
    prompt_tokens: int | None
    completion_tokens: int | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What all answers on disk cost, those of earlier starts among them.

    Args:
        num_answers: Q questions that were answered.
        num_unreadable: of them, without a verdict.
        num_requests: to the server, those among them that it was too busy for.
        prompt_tokens: as the server counts them.
        completion_tokens: likewise.
        num_uncounted: answers whose tokens the server has not counted.
        cost: of the counted tokens, in the currency of the prices; None without prices.
    """

    num_answers: int
    num_unreadable: int
    num_requests: int
    prompt_tokens: int
    completion_tokens: int
    num_uncounted: int
    cost: float | None

    def __str__(self) -> str:
        tokens = f"{self.prompt_tokens:,} tokens of questions and {self.completion_tokens:,} of answers"
        parts = [f"{self.num_answers:,} answers of the judge so far, {self.num_unreadable:,} of them unreadable"]
        parts += [f"{self.num_requests:,} requests", tokens]
        if self.num_uncounted:
            parts.append(f"{self.num_uncounted:,} answers whose tokens were not counted")
        if self.cost is not None:
            parts.append(f"cost {self.cost:.4f}")
        return "; ".join(parts)


class JudgeAnswers:
    """The answers in a file, which threads add to.

    Args:
        path: a JSONL file; it is made with the first answer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    @cached_property
    def known(self) -> dict[str, JudgeAnswer]:
        """The answers by their question; a line that a crash cut off is removed, and asked again.

        Raises:
            ValueError: if a line is not an answer.
        """
        names = [field.name for field in fields(JudgeAnswer)]
        found: dict[str, JudgeAnswer] = {}
        for number, line in enumerate(whole_lines(self.path), 1):
            try:
                told = object_of(line, self.path)
                answer = JudgeAnswer(**{name: told[name] for name in names})
                found[answer.question] = answer
            except (ValueError, KeyError, TypeError) as error:
                wrong = f"{self.path}, line {number} is not an answer of a judge; remove it to ask again"
                raise ValueError(wrong) from error
        return found

    def add(self, answer: JudgeAnswer) -> None:
        """Write an answer at the end of the file."""
        with self._lock, naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(answer)) + "\n")
            self.known[answer.question] = answer

    def usage(self, prices: tuple[float, float] | None) -> Usage:
        """Return what all answers cost.

        Args:
            prices: of a million tokens of questions, and of answers; None where nobody counts.
        """
        answers = list(self.known.values())
        counted = [
            (answer.prompt_tokens, answer.completion_tokens)
            for answer in answers
            if answer.prompt_tokens is not None and answer.completion_tokens is not None
        ]
        tokens = [sum(each) for each in zip((0, 0), *counted, strict=True)]
        return Usage(
            num_answers=len(answers),
            num_unreadable=sum(answer.said is None for answer in answers),
            num_requests=sum(answer.num_requests for answer in answers),
            prompt_tokens=tokens[0],
            completion_tokens=tokens[1],
            num_uncounted=len(answers) - len(counted),
            cost=None if prices is None else _cost(prices, tokens),
        )


def _cost(prices: Sequence[float], tokens: Sequence[int]) -> float:
    return sum(price * number for price, number in zip(prices, tokens, strict=True)) / 1e6
