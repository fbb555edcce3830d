"""Text of data as it may stand on a page: every character shown, none obeyed. And tables and fences of Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Sequence

_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]")
_MARKUP = re.compile(r"[\\`*\[\]|$~!]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.")
_BEGINS = re.compile(r"^(\d*)([#+=.)-])")


def visible(text: str) -> str:
    """Return text without control characters, lone surrogates and signs that turn the reading direction of what
    follows.

    Each becomes U+FFFD, the sign of a character that cannot be shown, so that nothing is left out unseen. New lines and
    tabs stay; a carriage return is a new line.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _UNSHOWN.sub("\ufffd", text)


def escaped(text: str) -> str:
    """Return text for HTML, as content and within quotes alike."""
    return html.escape(visible(text), quote=True)


def escaped_markdown(text: str) -> str:
    """Return text within one line of Markdown, such as a cell of a table: no markup, no link, no image, no HTML.

    An address becomes no link either, which many readers make of `https://` and `www.` alone.
    """
    line = html.escape(" ".join(visible(text).split()), quote=False)
    return _MARKUP.sub(lambda sign: f"\\{sign[0]}", line)


def markdown_line(text: str) -> str:
    """Return text for a line of Markdown that it begins: no heading, no list, no rule."""
    return _BEGINS.sub(r"\1\\\2", escaped_markdown(text))


def fenced(text: str, language: str = "text") -> str:
    """Return lines as a block of Markdown in which nothing is markup: its fence is longer than any in it."""
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{fence}{language}\n{text}\n{fence}"


def markdown_table(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Return a table in Markdown.

    Args:
        lines: cells, those of the first line its headings; text of data in them is escaped already.
        right: the places of the columns that stand at the right, as numbers do.
    """
    rules = ["---:" if place in right else "---" for place in range(len(lines[0]))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rules, *lines[1:]))
