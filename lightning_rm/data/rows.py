"""The canonical rows, in words: a preference pair, and a group of responses to one prompt, whatever their file.

This file knows no file and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired, Protocol, Self, TypedDict


class Message(TypedDict):
    """One turn of a conversation, with all that a chat template may read of it.

    Templates know other keys beside these; whatever a file says of a turn stays in it under its own name.
    """

    role: str
    content: str
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]


@dataclass(frozen=True, slots=True)
class PairRow:
    """One preference pair.

    Args:
        prompt: the conversation up to the responses, oldest turn first; may be empty.
        chosen: the turns of the preferred response, usually one assistant message.
        rejected: the turns of the other response.
        id: names the pair in its data set.
        prompt_id: names the prompt; a split by `prompt_id` never puts one prompt on both sides.
        subset: metrics are also given by subset.
        label: probability that chosen is preferred, in [0, 1]; of a file's rows from 1/2 up, since `exchanged` turns
            the others round as they are read.
        tied: whether its annotators prefer neither response; the label is 1/2 then.
        margin: the target margin, where the data has one.
        weight: the pair's weight in the loss.
        gold_margin: known truth of made data, gold reward of chosen minus that of rejected.
        clean: whether chosen is truly better, where known (made data, a second label).
        strength_mean: mean of the votes, where the data set is annotated.
        strength_std: population standard deviation of the votes.
        votes: one voter's margin each.
        tools: tool definitions handed to the chat template.
        chat_template_kwargs: further arguments handed to the chat template for this row.
        origin: file and line, or data set and row, as in a `BadRow`; empty for made data. Not part of what a row is.
        others: fields of the row that are no part of the pair, as its file gives them: those that nothing here reads,
            and those that say which response is better. Not part of what a row is.
        unread: the names of the former. Not part of what a row is.
        doubts: keys of its tools and calls for which a table cannot tell null from missing, so that a rule decided
            (`sources.arrow`). Not part of what a row is.
        is_turned: whether its file has the two responses the other way round. Not part of what a row is.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    id: str
    prompt_id: str
    subset: str = "all"
    label: float = 1.0
    margin: float | None = None
    weight: float = 1.0
    gold_margin: float | None = None
    clean: bool | None = None
    strength_mean: float | None = None
    strength_std: float | None = None
    votes: tuple[float, ...] = ()
    tied: bool = False
    tools: tuple[Mapping[str, Any], ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    origin: str = field(default="", compare=False)
    others: Mapping[str, Any] = field(default_factory=dict[str, Any], compare=False)
    unread: tuple[str, ...] = field(default=(), compare=False)
    doubts: tuple[str, ...] = field(default=(), compare=False)
    is_turned: bool = field(default=False, compare=False)

    @property
    def place(self) -> str:
        """What to call the pair in an error: where it stands, or its id where nobody knows."""
        return self.origin or f"pair {self.id}"

    def exchanged(self) -> Self:
        """Return the same pair with its responses exchanged, and all that compares chosen to rejected turned round.

        Its losses are those of the pair as it stands; `others` stay under the names that their file has.
        """
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            label=1 - self.label,
            margin=_negated(self.margin),
            gold_margin=_negated(self.gold_margin),
            clean=None if self.clean is None else not self.clean,
            strength_mean=_negated(self.strength_mean),
            votes=tuple(-vote for vote in self.votes),
            is_turned=not self.is_turned,
        )


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group of responses to one prompt: what a policy says when it is asked several times, or what people scored.

    Args:
        prompt: the conversation up to the responses, oldest turn first; may be empty.
        responses: the turns of each response, usually one assistant message.
        id: names the group in its data set.
        prompt_id: names the prompt.
        subset: metrics are also given by subset.
        scores: for each response, attribute -> score; one that was not asked for is missing. Empty where nobody scored.
        gold: the gold reward of each response of made data; empty elsewhere.
        votes: for each response, the reward that each of M voters gives it; empty where no voter was asked.
        weight: of scored responses, the weight of their pairs in the loss.
        tools: tool definitions handed to the chat template.
        chat_template_kwargs: further arguments handed to the chat template for this row.
        origin: file and line, or data set and row, as in a `BadRow`; empty for made data. Not part of what a row is.
        unread: as a `PairRow`'s, of scored responses.
        doubts: as a `PairRow`'s.
    """

    prompt: tuple[Message, ...]
    responses: tuple[tuple[Message, ...], ...]
    id: str
    prompt_id: str
    subset: str = "all"
    scores: tuple[Mapping[str, float], ...] = ()
    gold: tuple[float, ...] = ()
    votes: tuple[tuple[float, ...], ...] = ()
    weight: float = 1.0
    tools: tuple[Mapping[str, Any], ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    origin: str = field(default="", compare=False)
    unread: tuple[str, ...] = field(default=(), compare=False)
    doubts: tuple[str, ...] = field(default=(), compare=False)

    @property
    def place(self) -> str:
        """What to call the group in an error: where it stands, or its id where nobody knows."""
        return self.origin or f"group {self.id}"

    def only(self, places: Sequence[int]) -> Self:
        """Return the group with only some of its responses, in the order of `places`."""
        return replace(
            self,
            responses=tuple(self.responses[place] for place in places),
            scores=tuple(self.scores[place] for place in places) if self.scores else (),
            gold=tuple(self.gold[place] for place in places) if self.gold else (),
            votes=tuple(self.votes[place] for place in places) if self.votes else (),
        )

    def pair(self, chosen: int, rejected: int) -> PairRow:
        """Return two of its responses as a pair of the group's id, the one at the place `chosen` preferred."""
        return PairRow(
            prompt=self.prompt,
            chosen=self.responses[chosen],
            rejected=self.responses[rejected],
            id=self.id,
            prompt_id=self.prompt_id,
            tools=self.tools,
            chat_template_kwargs=self.chat_template_kwargs,
        )


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be used: where it stood, what was found there, and why it was left out.

    Args:
        origin: file and line, or data set and row, in words a user can open: `pairs.jsonl:17`.
        reason: a short kind, the same for all rows of one kind, so that rows can be counted by it: `missing field`.
        detail: what was found, for the error message: `field 'chosen' is missing; found 'prompt', 'response'`.
    """

    origin: str
    reason: str
    detail: str


class Source(Protocol):
    """Where preference pairs come from: an iterable of rows, good and bad, that can tell whether it has changed.

    Iterating twice gives the same rows in the same order.
    """

    def fingerprint(self) -> str:
        """Return a hex digest that changes whenever a row could: of file bytes and options, not of times or paths."""
        ...

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """Yield the rows in order; a row that cannot be read comes as a `BadRow` in its place."""
        ...


class GroupSource(Protocol):
    """Where groups of responses come from: a `Source` of another kind of row."""

    def fingerprint(self) -> str:
        """Return a hex digest that changes whenever a row could: of file bytes and options, not of times or paths."""
        ...

    def __iter__(self) -> Iterator[GroupRow | BadRow]:
        """Yield the rows in order; a row that cannot be read comes as a `BadRow` in its place."""
        ...


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


BY_WHERE = "left out by where"
BY_WEIGHT = "left out by weight"
BY_FOLD = "left out fold"
BY_BOOTSTRAP = "left out by bootstrap"
BY_SHARE = "left out by share"
BY_BENCHMARK = "asked by a benchmark"
TIE = "tie"
EXPECTED_REASONS: frozenset[str] = frozenset({BY_WHERE, BY_WEIGHT, BY_FOLD, BY_BOOTSTRAP, BY_SHARE, BY_BENCHMARK, TIE})
"""Reasons of a `BadRow` that are not a fault of its row: it was left out because the user asked for that (`where`, a
mixture's weight, a fold or bootstrap sample, `decontaminate`), or because its annotator preferred neither response.
Such rows are counted like any other, but are not an error under `on_bad_row: error`."""
