"""Decisions of reviewers: one line each in an append-only JSONL file, and which of them count in the end.

    {"pair_id": "17", "decision": "flip", "note": "off topic", "reviewer": "ada", "time": "2026-01-31T12:00:00Z"}

A reviewer's last line on a pair counts; a line with the decision `undo` takes the one before it back. A line that a
crash has cut off in the middle is not yet a decision: it is not read, and the next one starts on a line of its own.
This file knows lines and pair ids; no pair.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightning_rm.digests import fingerprint
from lightning_rm.drafts import naming
from lightning_rm.strength import Treatment
from lightning_rm.strength.policies import reviewed

Verdict = Literal["keep", "flip", "tie", "skip"]
"""The label is right, wrong, neither response is better, or the reviewer cannot tell."""

Decision = Literal[Verdict, "undo"]


@dataclass(frozen=True)
class Review:
    """One line of the file.

    Args:
        pair_id: the `id` that the annotated file has of the pair.
        decision: what the reviewer says of its label, or `undo`.
        note: why, in words.
        reviewer: who.
        time: when, as ISO 8601.
    """

    pair_id: str
    decision: Decision
    note: str = ""
    reviewer: str = ""
    time: str = ""


def append_review(path: Path, review: Review) -> None:
    """Add a decision to the file; it is on the disk when this returns.

    One write to a file that is open for appending: two tabs, or two processes, never mix their lines. They take turns,
    for what could not be written whole is cut off again.

    Raises:
        OSError: if it could not be written whole, or may not be on the disk.
    """
    line = (json.dumps(asdict(review), ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
    with naming(path), path.open("ab+", buffering=0) as file:
        size = file.tell()
        if size:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a crash has cut the last line off
                line = b"\n" + line
        try:
            if (written := file.write(line)) != len(line):
                raise OSError(f"{path}: {written} of {len(line)} bytes of a decision were written; is the disk full?")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


def read_reviews(path: str | Path) -> list[Review]:
    """Return all decisions of a file, in the order they were made.

    Lines that are cut off count for nothing; a line that is there twice, with its time, in files that were put together
    is one decision.

    Raises:
        ValueError: if the file cannot be read, or a whole line is not a decision; it names file, line and field.
    """
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(f"reviews={str(path)!r} is not a file but a folder, a pipe or a device")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"reviews={str(path)!r} cannot be read: {error.strerror}") from error
    reviews = [
        _review(json.loads(line.decode("utf-8", "surrogatepass")), f"{path}:{number}")
        for number, line in enumerate(data.splitlines(keepends=True), 1)
        if line.strip() and not _is_cut_off(line, f"{path}:{number}")
    ]
    return list({review if review.time else place: review for place, review in enumerate(reviews)}.values())


def standing(reviews: Iterable[Review]) -> dict[str, dict[str, Review]]:
    """Return reviewer -> pair id -> the decision that stands: the last one that is not taken back."""
    stacks: dict[str, dict[str, list[Review]]] = {}
    for review in reviews:
        stack = stacks.setdefault(review.reviewer, {}).setdefault(review.pair_id, [])
        if review.decision != "undo":
            stack.append(review)
        elif stack:
            stack.pop()
    return {
        reviewer: {pair_id: stack[-1] for pair_id, stack in of_pairs.items() if stack}
        for reviewer, of_pairs in stacks.items()
    }


def verdicts(reviews: Iterable[Review]) -> dict[str, Verdict]:
    """Return what the reviewers say together: pair id -> the verdict of most of them.

    Whoever skips a pair says nothing of it. Where as many say one thing as another, the pair is a tie: they do not
    agree which response is better. A pair that everyone skips is `skip`.
    """
    by_pair: dict[str, Counter[Verdict]] = {}
    for of_pairs in standing(reviews).values():
        for pair_id, review in of_pairs.items():
            if review.decision != "undo":
                by_pair.setdefault(pair_id, Counter())[review.decision] += 1
    return {pair_id: _of_most(counts) for pair_id, counts in by_pair.items()}


def verdicts_on(ids: Sequence[str], said: Mapping[str, Verdict], file: str) -> NDArray[np.str_]:
    """Return (N,), what people say of the pairs of these ids, empty where they say nothing.

    Args:
        ids: of N pairs.
        said: id -> verdict.
        file: which the verdicts are of, as an error begins: `reviews='reviews.jsonl'`.

    Raises:
        ValueError: if there are verdicts, and none is on one of these pairs.
    """
    verdict = np.array([said.get(one, "") for one in ids], dtype="<U4")
    if said and not (verdict != "").any():
        raise ValueError(
            f"{file}: none of its {len(said):,} pairs is among these {len(ids):,} (the first is {next(iter(said))!r}); "
            "is it a review of other data?"
        )
    return verdict


@dataclass(frozen=True)
class Reviewed:
    """What reviewers have said as a treatment: pairs kept, turned round, or of label 1/2, whatever came before.

    Args:
        file: the decisions; pairs that nobody has decided are left as they are.

    Attributes:
        digest: changes with the verdicts.
    """

    file: str | Path
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", fingerprint(**verdicts(read_reviews(self.file)))[:16])

    def of(self, ids: Sequence[str]) -> Treatment:
        """Return the treatment of pairs of these names.

        Raises:
            ValueError: if no decision is about any of them: the file belongs to other data.
        """
        said = verdicts(read_reviews(self.file))
        return partial(reviewed, verdicts=verdicts_on(ids, said, f"file={str(self.file)!r}"))


def _of_most(counts: Counter[Verdict]) -> Verdict:
    ranked: list[Verdict] = [verdict for verdict, _ in counts.most_common() if verdict != "skip"]
    if not ranked:
        return "skip"
    return "tie" if len(ranked) > 1 and counts[ranked[0]] == counts[ranked[1]] else ranked[0]


def _is_cut_off(line: bytes, origin: str) -> bool:
    """Tell whether a line is the beginning of a decision; another that ends and is not JSON is somebody's mistake."""
    try:
        json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        if not line.endswith((b"\n", b"\r")) or (line.startswith(b"{") and not line.rstrip().endswith(b"}")):
            return True
        raise ValueError(f"{origin}: this is not a line of JSON ({error}); mend or remove it") from error
    return False


def _review(value: Any, origin: str) -> Review:
    """Return the decision that a line holds.

    Raises:
        ValueError: if it does not hold one.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{origin}: a decision is an object such as {{'pair_id': '17', 'decision': 'flip'}}")
    fields: dict[str, Any] = {str(key): field for key, field in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]  # JSON
    for name in ("pair_id", "decision"):
        if name not in fields:
            raise ValueError(f"{origin}: field {name!r} is missing; found {', '.join(map(repr, fields))}")
    known = {name: fields[name] for name in Review.__dataclass_fields__ if name in fields}
    if wrong := [name for name, field in known.items() if not isinstance(field, str)]:
        raise ValueError(f"{origin}: field {wrong[0]!r} is {known[wrong[0]]!r}, not a string")
    if known["decision"] not in (choices := (*get_args(Verdict), "undo")):
        raise ValueError(f"{origin}: decision {known['decision']!r} is not one of {', '.join(choices)}")
    return Review(**known)
