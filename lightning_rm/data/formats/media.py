"""Refuse rows that need images, sound or video: a reward model of texts cannot see them.

This file knows the fields of a row that hold media, and the marks that stand for them in a text; `messages` refuses
parts of a message that are not text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from lightning_rm.data.formats.fields import Raw, RowError
from lightning_rm.data.formats.messages import NOT_TEXT, texts_of
from lightning_rm.data.rows import Message

MEDIA_FIELDS = ("image", "images", "video", "videos", "audio", "audios")

MARK = re.compile(r"<(image|video|audio)>(?!.*</\1>)", re.DOTALL)
"""A mark that stands for an image in a text. With a closing tag later on it is markup, and therefore text."""


def check_media(row: Raw, columns: Mapping[str, str | None], prompt: Sequence[Message]) -> None:
    """Raise `RowError` for a row with images or other media, in a field of their own or as a mark in the prompt.

    Args:
        row: with the plain field names.
        columns: `{images: null}` in it has the images of the row ignored.
        prompt: the turns before the responses.
    """
    if found := next((name for name in MEDIA_FIELDS if _holds(row.get(name))), None):
        raise RowError(
            NOT_TEXT,
            f"the row has {found!r}, and a reward model of texts sees none; columns={{{found}: null}} trains on the "
            "text alone",
        )
    if not any(name in columns for name in MEDIA_FIELDS):
        check_marks(prompt)


def check_marks(prompt: Sequence[Message]) -> None:
    """Raise `RowError` where a turn before the responses holds a mark that stands for an image or other media."""
    for place, turn in enumerate(prompt):
        if mark := next((mark for said in texts_of(turn).values() if (mark := MARK.search(said))), None):
            raise RowError(
                NOT_TEXT,
                f"prompt, turn {place} holds {mark[0]}, which stands for what a reward model of texts cannot see; if "
                f"it is text, say so of a file with columns={{{mark[1]}: null}}, or write &lt;{mark[1]}&gt;",
            )


def _holds(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_holds(item) for item in cast(Raw, value).values())
    if isinstance(value, list | tuple):
        return any(_holds(item) for item in cast(Sequence[object], value))
    return bool(value) and not isinstance(value, bool | int | float)
