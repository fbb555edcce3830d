"""How a value stands in a word of a command line, so that Hydra reads it whole. It knows Hydra's grammar alone."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

PLAIN_PLACE = r"[a-zA-Z0-9_./-]+"
"""A folder that stands in a word without quotes."""

BEYOND_ASCII = r"[^\s,=:()\[\]{}]*[^\x00-\x7f](?:[^,=:()\[\]{}]*[^\s,=:()\[\]{}])?"
"""What is quoted in a value: from one sign of the grammar to the next, with a letter that is not ASCII."""


def quoted(value: str | Path) -> str:
    """Return a value as Hydra reads it whole, whatever is in it."""
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', str(value))  # a backslash escapes nothing but a quote
    escaped = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f'"{escaped}"'


def at_home(text: str) -> str:
    """Return a text with the home folder in place of ~/ at its beginning: a yaml's would make a folder called ~."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def with_home(word: str) -> str:
    """Return a word with the home folder in place of ~/ where a value begins, as some shells have it and others do not.

    out=~/scored.jsonl  ->  out=/home/me/scored.jsonl
    """
    home = os.path.expanduser("~")
    return re.sub(r"(?<=[=,\[\"'])~(?=/)", home, word) if re.fullmatch(PLAIN_PLACE, home) else word


def quoted_where_needed(word: str) -> str:
    """Return a word with quotes round what Hydra's grammar takes for no text: letters that are not ASCII.

        data.file=[données.jsonl,b.jsonl]  ->  data.file=["données.jsonl",b.jsonl]

    A word that has quotes, or is not understood with them either, stays as it is.
    """
    key, sign, value = word.partition("=")
    if word.isascii() or not sign or any(mark in value for mark in ("'", '"', "\\")):
        return word
    if _is_read(word):
        return word
    with_quotes = f"{key}=" + re.sub(BEYOND_ASCII, r'"\g<0>"', value)
    return with_quotes if _is_read(with_quotes) else word


def _is_read(word: str) -> bool:
    """Tell whether Hydra's grammar knows a word."""
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        return False
    return True
