"""Tokenise a shared beginning once: of texts that begin alike, such as one prompt with sixteen responses.

The ids of a text are in general not those of its parts. At a seam they are: before a special token that is found in the
text as it stands. The tokenizers library first takes such tokens out of a text, and then normalises, splits and encodes
what lies between them, each piece by itself. Where that does not hold, or cannot be known, a text has no seam and is
tokenised whole. It knows texts and tokenizers; no messages.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_rm.data.beginnings import num_shared

MIN_SHARED = 100
"""The fewest shared characters that are worth tokenising separately."""


OWN_WAY = frozenset({"__call__", "_encode_plus"})
"""Methods that a tokenizer class overrides if it does more with texts than the library does."""

MARKS = frozenset(string.punctuation) - {"_"}
"""Characters that are neither blank nor part of a word."""


class Added(NamedTuple):
    """An added token, which a tokenizer looks for in texts before anything else, and how it is matched."""

    content: str
    normalized: bool
    single_word: bool
    lstrip: bool
    rstrip: bool


def library_of(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Return the tokenizers library's own tokenizer if it alone decides on the ids of a text, else None."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or tokenizer.split_special_tokens:
        return None
    classes = type(tokenizer).__mro__
    if any(OWN_WAY & vars(kind).keys() for kind in classes[: classes.index(PreTrainedTokenizerFast)]):
        return None
    return tokenizer.backend_tokenizer


def seams_of(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str] | None:
    """Return a pattern of the tokens before which texts may be cut; None if there are none."""
    backend = library_of(tokenizer)
    if (
        backend is None
        or backend.encode_special_tokens
        or _is_custom(backend.normalizer)
        or _is_custom(backend.pre_tokenizer)
    ):
        return None
    added: dict[int, Any] = backend.get_added_tokens_decoder()
    return seams(
        tuple(
            Added(token.content, token.normalized, token.single_word, token.lstrip, token.rstrip)
            for token in added.values()
        )
    )


@lru_cache(maxsize=16)
def seams(added: tuple[Added, ...]) -> re.Pattern[str] | None:
    """Return a pattern of the tokens that are found wherever they stand, whatever comes before and after them.

    No other token may contain them or reach into them, since of two that overlap in a text the first is taken: of
    `<s>`, `s>` and `</s>` these are the first and the last. And they must begin with a mark, which a neighbour that
    takes blanks with it, or wants to be a word by itself, treats like the end of the text.
    """
    literal = [token for token in added if token.content and not token.normalized]
    names = [token.content for token in literal]
    ends = {name[start:] for name in names for start in range(1, len(name))}
    found = [
        token.content
        for token in literal
        if not (token.single_word or token.lstrip or token.rstrip)
        and token.content[0] in MARKS
        and not token.content[-1].isspace()
        and not any(token.content[:end] in ends for end in range(1, len(token.content) + 1))
        and not any(token.content in name for name in names if name != token.content)
    ]
    return re.compile("|".join(map(re.escape, found))) if found else None


def cut_alike(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Return where to cut each text in two: at the last seam of what it shares with a neighbour; 0 for nowhere.

    Of `<s>[U]hi[A]yes`, `<s>[U]hi[A]no` and `<s>[U]ho[A]no` the first two are cut before `[A]` and the third before
    `[U]`, if these beginnings were long enough to be worth it.
    """
    common = [num_shared(one, other) for one, other in pairwise(texts)]
    shared = [max(before, after) for before, after in zip([0, *common], [*common, 0], strict=True)]
    seam = seams_of(tokenizer) if max(shared, default=0) >= MIN_SHARED else None
    if seam is None:
        return [0] * len(texts)
    cuts: list[int] = []
    for text, length in zip(texts, shared, strict=True):
        last = max((match.start() for match in seam.finditer(text, 0, length)), default=0)
        cuts.append(last if last >= MIN_SHARED else 0)
    return cuts


def _is_custom(part: Any) -> bool:
    """Tell whether a part of a tokenizer is a user's own code, which may look at more than a piece."""
    try:
        return part is not None and part.__getstate__() is None
    except Exception:  # whatever the library raises for what it cannot write
        return True
