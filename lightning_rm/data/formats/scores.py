"""Read the scores of responses from a row: numbers, ranks or several named attributes.

It also rewrites the published shapes of scored responses with the plain field names: HelpSteer2, whose attributes are
columns, UltraFeedback, whose completions carry them, and unpaired preferences, a response that was liked or not. This
file knows one row at a time, and no file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from lightning_rm.data.formats.asked import with_prompt
from lightning_rm.data.formats.fields import (
    BAD_VALUE,
    WRONG_TYPE,
    Raw,
    RowError,
    check_one_each,
    has,
    items_of,
    lookup,
    number,
    required,
    shown,
    text,
)
from lightning_rm.data.formats.published import helpsteer2_turns

SCORE = "score"
"""The attribute name of a score that is given without one."""

HELPSTEER_ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
ULTRAFEEDBACK_ATTRIBUTES = ("instruction_following", "honesty", "truthfulness", "helpfulness")
UNPAIRED_FIELDS = frozenset({"completion", "messages", "label"})
"""The fields of unpaired preferences, which are read where a row says no scores (`is_unpaired`)."""
SCORE_FIELDS = UNPAIRED_FIELDS | frozenset(
    {"response", "score", "scores", "ranks", *HELPSTEER_ATTRIBUTES, "instruction", "completions"}
)
"""The fields that are read here in addition to those of a group of responses."""


def plain_scored(raw: Raw) -> Raw:
    """Return a row of scored responses rewritten with the plain field names; any other row as it is.

    A single `response` becomes a list of one, and the `label` of a response that was liked or not its score, 1 or 0.
    HelpSteer2 (arXiv 2406.08673) has its five attributes in columns;
    UltraFeedback (arXiv 2310.01377) has `completions`, each with `annotations.<attribute>.Rating`, `N/A` for a gap.
    """
    if has(raw, "instruction", "completions") and not has(raw, "responses"):
        return _ultrafeedback(raw)
    if is_unpaired(raw):
        raw = _unpaired(raw)
    if not has(raw, "response") or has(raw, "responses"):
        return raw
    row: dict[str, object] = {**raw, "responses": [raw["response"]], "response": None}
    if has(raw, "score"):
        row["scores"] = [raw["score"]]
    elif any(has(raw, name) for name in HELPSTEER_ATTRIBUTES):
        row["scores"] = [{name: raw.get(name) for name in HELPSTEER_ATTRIBUTES}]
        prompt = raw.get("prompt")
        if isinstance(prompt, str) and "<extra_id_1>" in prompt:
            row["prompt"] = helpsteer2_turns(prompt)
    return row


def is_unpaired(raw: Raw) -> bool:
    """Tell whether a row is one response with a label in place of scores: TRL's unpaired preference, KTO's rows (arXiv
    2402.01306), a thumb up or down.
    """
    scored = ("responses", "score", "scores", "ranks", *HELPSTEER_ATTRIBUTES)
    named = any(has(raw, name) for name in ("response", "completion", "messages"))
    return named and has(raw, "label") and not any(has(raw, name) for name in scored)


def read_scores(row: Raw, num_responses: int) -> tuple[Mapping[str, float], ...]:
    """Return the scores of each response by attribute, higher is better; empty where the row has none.

    `scores` holds for each response a number, or an object of attribute -> number or null; `ranks` a number each, 1
    for the best: a rank r is the score -r.

    Raises:
        RowError: if they cannot be read, a response has none, or a row has both.
    """
    if has(row, "scores") and has(row, "ranks"):
        raise RowError(BAD_VALUE, "the row has 'scores' and 'ranks'; hide one of them with columns={ranks: null}")
    name = "scores" if has(row, "scores") else "ranks"
    if not has(row, name):
        return ()
    items = items_of(row[name], f"field {name!r}", ", one item a response")
    check_one_each(name, len(items), num_responses)
    if name == "ranks":
        return tuple({SCORE: -_given(item, f"field 'ranks', item {place}")} for place, item in enumerate(items))
    return tuple(_attributes(item, f"field 'scores', item {place}") for place, item in enumerate(items))


def _unpaired(raw: Raw) -> Raw:
    """A prompt and its completion, or a conversation that ends with it; the label is true or false, or a share of
    those who liked it.
    """
    label = raw["label"]
    liked = number(float(label) if isinstance(label, bool) else label, "field 'label'", 0.0, 1.0)
    row: dict[str, object] = {**raw, "label": None, "score": liked}
    if has(raw, "response"):
        return row
    if has(raw, "completion"):
        return {**row, "response": raw["completion"]}
    turns = raw["messages"]
    if not isinstance(turns, list | tuple) or len(cast(Sequence[object], turns)) < 2:
        raise RowError(WRONG_TYPE, f"field 'messages' must be a list of turns, two at least, found {shown(turns)}")
    *prompt, response = cast(Sequence[object], turns)
    return {**with_prompt(row, prompt, "messages"), "response": [response]}


def _attributes(item: object, name: str) -> Mapping[str, float]:
    """Return the scores of one response without those that are null."""
    if not isinstance(item, Mapping):
        return {SCORE: _given(item, name)}
    given = cast("Mapping[object, object]", item)
    scores = {
        text(str(key), f"{name}, the name of a score"): number(value, f"{name}, {key}")
        for key, value in given.items()
        if value is not None
    }
    if not scores:
        raise RowError(BAD_VALUE, f"{name} has no score at all; leave the response out")
    return scores


def _given(item: object, name: str) -> float:
    """Return the score of a response that has one alone."""
    if item is None:
        raise RowError(BAD_VALUE, f"{name} is null; leave the response out of the row")
    return number(item, name)


def _ultrafeedback(raw: Raw) -> Raw:
    completions = required(raw, "completions")
    if not isinstance(completions, list):
        raise RowError(WRONG_TYPE, f"field 'completions' must be a list of completions, found {shown(completions)}")
    items = cast("list[object]", completions)
    rows = [cast(Raw, item) if isinstance(item, Mapping) else {} for item in items]
    return {
        **{name: value for name, value in raw.items() if name not in ("instruction", "completions")},
        "prompt": raw["instruction"],
        "responses": [required(row, "response") for row in rows],
        "scores": [{name: _rating(row, name) for name in ULTRAFEEDBACK_ATTRIBUTES} for row in rows],
    }


def _rating(completion: Raw, attribute: str) -> object:
    """Return a rating, which UltraFeedback writes as text, as a number; None for `N/A`."""
    value = lookup(completion, f"annotations.{attribute}.Rating")
    if not isinstance(value, str):
        return value
    return None if value.strip().upper() == "N/A" else _number(value)


def _number(value: str) -> object:
    try:
        return float(value)
    except ValueError:
        return value  # the reader of scores says what is wrong
