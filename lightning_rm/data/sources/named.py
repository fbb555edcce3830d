"""Sources under names, as a configuration writes them: `{easy: easy.jsonl, hard: {path: hard.jsonl, where: ...}}`.

It knows no kind of source: who asks for them says what makes one, and which options it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar, cast

S = TypeVar("S")


def named_sources(
    make: Callable[..., S], key: str, given: object, options: Mapping[str, object]
) -> S | dict[str, S] | None:
    """Return the source that is given, or those that have names.

    Args:
        make: makes a source of `key` and options, by their names.
        key: what says where a source is: path, name.
        given: such for one source; name -> such, or name -> {key: such, ...} with options of its own, for several; None
            for none.
        options: of every source that has none of its own.

    Raises:
        ValueError: for a source without `key`, or with an option that there is not; as `make` does.
    """
    if given is None:
        return None
    one = partial(make, **options)
    if not isinstance(given, Mapping):
        return one(**{key: given})
    if key in given:
        raise ValueError(f"a set with options of its own has a name: {{NAME: {{{key}: ..., ...}}}}")
    sets = {str(name): what for name, what in cast(Mapping[object, object], given).items()}
    return {name: one(**_own(name, what, key, options)) for name, what in sets.items()}


def _own(name: str, what: object, key: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return what a named source says of itself: where it is, and options."""
    own = dict(cast(Mapping[str, object], what)) if isinstance(what, Mapping) else {key: what}
    wrong = sorted(own.keys() - {key, *options}, key=str)
    if wrong or own.get(key) is None:
        found = f"has {wrong[0]!r}" if wrong and key in own else f"has no {key}"
        raise ValueError(f"{name} {found}; it is a {key}, or {{{key}: ..., ...}} with any of {', '.join(options)}")
    return own
