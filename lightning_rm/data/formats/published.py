"""The shapes that data sets of preference pairs are published in, rewritten to the plain field names.

A format says how to recognise its rows and how to rewrite them with the plain names (`prompt`, `chosen`, `rejected`,
...). `pairs.parse_row` then reads all of them alike, so that no format has rules of its own for what a good value is.
`toolkits` has the formats of other toolkits; the list of all formats is here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import cast

from lightning_rm.data.formats.asked import with_prompt
from lightning_rm.data.formats.fields import (
    BAD_VALUE,
    MISSING_FIELD,
    WRONG_TYPE,
    Raw,
    RowError,
    choice,
    found_fields,
    has,
    lookup,
    numbers,
    required,
    shown,
    text,
)
from lightning_rm.data.formats.row_format import RowFormat, ordered, saying
from lightning_rm.data.formats.toolkits import TOOLKIT_FIELDS, TOOLKIT_FORMATS
from lightning_rm.data.formats.turns import hh_turns, is_hh_text

UNKNOWN_FORMAT = "unknown format"

STRENGTH_MEAN = "mean preference difference"
STRENGTH_STD = "std preference difference"
CHOSEN_SCORES = ("chosen_score_list", "chosen score list")
REJECTED_SCORES = ("rejected_score_list", "rejected score list")
SCORED_FIELDS = frozenset({"scores", "score", "ranks", "completions", "helpfulness"})
"""Fields of which one is in every row of scored responses, which is no pair: HelpSteer2 and UltraFeedback as released
have the last two."""
SUMMARIES = ("summaries.0.text", "summaries.1.text")
HELPSTEER2_MARK = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def plain_fields(raw: Raw, name: str, *, as_given: bool = False) -> Raw:
    """Return a row rewritten to the plain field names.

    Args:
        raw: the row as its file gives it.
        name: the format, one of `FORMATS`, or `auto` for the first that matches.
        as_given: take the first response as chosen where another field says which one is better.

    Raises:
        RowError: if the row is not of that format.
    """
    found = (known for known in FORMATS.values() if known.matches(raw))
    row_format = next(found, None) if name == "auto" else FORMATS[name]
    if row_format is not None:
        return row_format.rewrite(row_format.first_better(raw) if as_given else raw)
    scored = "" if SCORED_FIELDS.isdisjoint(raw) else "; data=scored reads responses with their scores"
    if has(raw, "label") and (has(raw, "completion") or has(raw, "messages")):
        scored = "; experiment=unpaired trains on single responses with a label"
    raise RowError(
        UNKNOWN_FORMAT,
        f"{found_fields(raw)}{scored}; a pair needs chosen and rejected, or the fields of one of "
        f"{', '.join(FORMATS)}; name other fields with columns={{chosen: ..., rejected: ...}}",
    )


def label_fields(raw: Raw, name: str) -> frozenset[str]:
    """Return those of `LABEL_FIELDS` that are read of a row.

    Args:
        raw: the row.
        name: its format, as in `plain_fields`.
    """
    if raw.keys().isdisjoint(LABEL_FIELDS):
        return frozenset()
    if name == "auto":
        name = next(known for known, row_format in FORMATS.items() if row_format.matches(raw))
    return FIELDS_OF_LABELS.get(name, frozenset())


def _hh_text(raw: Raw) -> Raw:
    """HH-RLHF as released: two whole conversations in `Human:` and `Assistant:` marks (arXiv 2204.05862)."""
    sides: dict[str, object] = {}
    for name in ("chosen", "rejected"):
        value = required(raw, name)
        if not is_hh_text(value):
            raise RowError(WRONG_TYPE, f"{name} must be text that begins with 'Human:', found {shown(value)}")
        sides[name] = hh_turns(cast(str, value), name)
    return {**raw, **sides}


def _strength_cleaned(raw: Raw) -> Raw:
    """fnlp/hh-rlhf-strength-cleaned (arXiv 2401.06080): ten models' scores, their difference's mean and spread.

    A vote is one model's margin, its score of chosen minus that of rejected. `GPT4 label` says whether GPT-4 prefers
    chosen, 1 or 0; -1 means that it was not asked.
    """
    row: dict[str, object] = {**raw, "strength_mean": raw.get(STRENGTH_MEAN), "strength_std": raw.get(STRENGTH_STD)}
    scores = [
        numbers(next((raw[name] for name in names if has(raw, name)), ()), f"field {names[0]!r}")
        for names in (CHOSEN_SCORES, REJECTED_SCORES)
    ]
    if len(scores[0]) != len(scores[1]):
        raise RowError(BAD_VALUE, f"{len(scores[0])} scores of chosen and {len(scores[1])} of rejected")
    if scores[0]:
        votes = [ours - theirs for ours, theirs in zip(*scores, strict=True)]
        row["votes"] = votes
        row["strength_mean"] = fmean(votes) if row["strength_mean"] is None else row["strength_mean"]
    if has(raw, "GPT4 label"):
        agrees = choice(raw, "GPT4 label", (1, 0, -1))
        row["clean"] = None if agrees == -1 else agrees
    return row


def _safe_rlhf(raw: Raw) -> Raw:
    """PKU-SafeRLHF (arXiv 2406.15513); `columns: {better_response_id: safer_response_id}` reads the other label."""
    return ordered(raw, "response_0", "response_1", choice(raw, "better_response_id", (0, 1)) == 0)


def _shp(raw: Raw) -> Raw:
    """Stanford Human Preferences: two comments on a post; `labels` is 1 where A is preferred."""
    row = ordered(raw, "human_ref_A", "human_ref_B", choice(raw, "labels", (0, 1)) == 1)
    row = with_prompt(row, required(raw, "history"), "history")
    if has(raw, "domain") and not has(raw, "subset"):
        row["subset"] = re.sub(r"_(train|validation|test)$", "", text(raw["domain"], "field 'domain'"))
    return row


def _summaries(raw: Raw) -> Raw:
    """summarize_from_feedback, comparisons (arXiv 2009.01325): two summaries of a post, or of a news article.

    The subset is `tldr` or `news`.
    """
    row = ordered(
        {**raw, **{name: lookup(raw, name) for name in SUMMARIES}}, *SUMMARIES, choice(raw, "choice", (0, 1)) == 0
    )
    parts = (("subreddit", "SUBREDDIT: r/"), ("title", "TITLE: "), ("post", "POST: "), ("article", "ARTICLE: "))
    found = [(heading, lookup(raw, f"info.{name}")) for name, heading in parts]
    written = [heading + text(value, "field 'info'") for heading, value in found if value is not None]
    if not any(value is not None for _, value in found[2:]):
        raise RowError(MISSING_FIELD, f"fields 'info.post' and 'info.article' are missing; {found_fields(raw)}")
    row = with_prompt(row, "\n\n".join([*written, "TL;DR:"]), "info")
    if not has(raw, "subset"):
        row["subset"] = "news" if lookup(raw, "info.post") is None else "tldr"
    return row


def _helpsteer(raw: Raw) -> Raw:
    """HelpSteer2 and HelpSteer3 preference (arXiv 2410.01257, 2505.11475).

    The preference runs from -3, the first response is much better, to 3, the second is; its size is the strength, and
    0 is a tie. The size is not a target margin as well: treatments make one where it is wanted, and scaled
    Bradley-Terry wants none. HelpSteer2 writes the later turns of a prompt in `<extra_id_1>` marks.
    """
    newer = has(raw, "response1") or has(raw, "response2")
    preference = choice(raw, "overall_preference" if newer else "preference_strength", range(-3, 4))
    first, second = ("response1", "response2") if newer else ("response_1", "response_2")
    row = ordered(raw, first, second, preference <= 0)
    row["tied"] = preference == 0
    if row.get("strength_mean") is None:
        row["strength_mean"] = abs(preference)
    name = "context" if has(raw, "context") else "prompt"
    prompt = required(raw, name)
    turns = helpsteer2_turns(prompt) if isinstance(prompt, str) and "<extra_id_1>" in prompt else prompt
    return with_prompt(row, turns, name)


def helpsteer2_turns(prompt: str) -> Sequence[Mapping[str, str]]:
    """Return the turns of a prompt that HelpSteer2 writes in `<extra_id_1>` marks."""
    parts = ["User", *HELPSTEER2_MARK.split(prompt)]
    turns = [{"role": role.lower(), "content": said} for role, said in zip(parts[::2], parts[1::2], strict=True)]
    return turns if turns[-1]["content"].strip() else turns[:-1]  # the last mark asks for the response


def _is_hh_pair(raw: Raw) -> bool:
    return not has(raw, "prompt") and is_hh_text(raw.get("chosen")) and is_hh_text(raw.get("rejected"))


FORMATS: dict[str, RowFormat] = {
    "shp": RowFormat(lambda raw: has(raw, "human_ref_A", "human_ref_B"), _shp, saying(labels=1)),
    "summaries": RowFormat(lambda raw: has(raw, "summaries", "info"), _summaries, saying(choice=0)),
    "safe_rlhf": RowFormat(lambda raw: has(raw, "response_0", "response_1"), _safe_rlhf, saying(better_response_id=0)),
    "helpsteer": RowFormat(
        lambda raw: has(raw, "response1", "response2") or has(raw, "response_1", "response_2"),
        _helpsteer,
        saying(overall_preference=-1, preference_strength=-1),
    ),
    "strength_cleaned": RowFormat(
        lambda raw: any(has(raw, name) for name in (STRENGTH_MEAN, *CHOSEN_SCORES, *REJECTED_SCORES)),
        _strength_cleaned,
    ),
    "hh_text": RowFormat(_is_hh_pair, _hh_text),
    **TOOLKIT_FORMATS,
    "preference": RowFormat(lambda raw: has(raw, "chosen") or has(raw, "rejected"), lambda raw: raw),
}
"""Every row format by its name, in the order they are tried. `preference` is the plain one: TRL's preference format,
with an explicit or an implicit prompt, texts or lists of turns; UltraFeedback and Skywork-Reward-Preference use it."""

FORMAT_FIELDS = TOOLKIT_FIELDS | frozenset(
    {"human_ref_A", "human_ref_B", "labels", "history", "domain", "summaries", "info", "choice"}
    | {"response_0", "response_1", "response_2", "better_response_id", "response1", "response2", "context"}
    | {"overall_preference", "preference_strength", "GPT4 label", STRENGTH_MEAN, STRENGTH_STD}
    | {*CHOSEN_SCORES, *REJECTED_SCORES}
)
"""The fields that the formats read in addition to the plain ones."""

FIELDS_OF_LABELS = {
    "shp": frozenset({"labels", "domain"}),
    "summaries": frozenset({"choice"}),
    "safe_rlhf": frozenset({"better_response_id"}),
    "helpsteer": frozenset({"overall_preference", "preference_strength"}),
    "strength_cleaned": frozenset({"GPT4 label"}),
}
"""Those of them that describe a pair and are not part of it, by the format that reads them: in a row of another one
they change nothing."""

LABEL_FIELDS = frozenset[str]().union(*FIELDS_OF_LABELS.values())
