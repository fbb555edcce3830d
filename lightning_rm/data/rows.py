"""The canonical row: one preference pair in words, whatever file it came from. It knows no file and no tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NotRequired, Protocol, TypedDict


class Message(TypedDict):
    """One turn of a conversation. Tool turns carry what a chat template may read of a call and its answer."""

    role: str
    content: str
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
        label: probability that chosen is preferred, in [0, 1].
        margin: the target margin, where the data has one.
        weight: the pair's weight in the loss.
        gold_margin: planted truth of made data, gold reward of chosen minus that of rejected.
        clean: whether chosen is truly better, where known (made data, a second label).
        strength_mean: mean of the votes, where the data set is annotated.
        strength_std: population standard deviation of the votes.
        votes: one voter's margin each.
        tools: tool definitions handed to the chat template.
        chat_template_kwargs: further arguments handed to the chat template for this row.
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
    tools: tuple[Mapping[str, Any], ...] = ()
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that could not be used: where it stood, what was found there, and why it was left out.

    Args:
        where: file and line, or data set and row, in words a user can open: `pairs.jsonl:17`.
        reason: a short kind, the same for all rows of one kind, so that rows can be counted by it: `missing field`.
        detail: what was found, for the error message: `field 'chosen' is missing; found 'prompt', 'response'`.
    """

    where: str
    reason: str
    detail: str


class Source(Protocol):
    """Where preference pairs come from: an iterable of rows, good and bad, that can tell whether it has changed.

    Iterating twice gives the same rows in the same order.
    """

    def fingerprint(self) -> str:
        """A hex digest that changes whenever a row could: of file bytes and options, not of times or paths."""
        ...

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        """The rows in order; a row that cannot be read comes as a `BadRow` in its place."""
        ...


EXPECTED_REASONS: frozenset[str] = frozenset(
    {"left out by where", "left out by weight", "left out fold", "left out by bootstrap", "tie"}
)
"""Reasons of a `BadRow` that are no fault of its row: it was left out because the user asked for that (`where`, a
mixture's weight, a fold or bootstrap sample), or because its annotator preferred neither response. Such rows are
counted like any other, but are no error under `on_bad_row: error`."""
