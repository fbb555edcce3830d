"""Options as a notebook gives them: those that go together as one object, and those that are one of a few words.

It knows no option.
"""

from __future__ import annotations

from collections.abc import Sequence


def check_options(kind: type, **options: object) -> None:
    """Check that options are the object that has them, or None: a dict's names would be checked by nobody.

    Args:
        kind: the class that they are of.
        **options: by the names that they are given by.

    Raises:
        ValueError: for the first that is of another.
    """
    for name, value in options.items():
        if value is None or isinstance(value, kind):
            continue
        fields = f"**{value!r}" if isinstance(value, dict) else "..."
        raise ValueError(f"{name} is a {type(value).__name__}; give {name}={kind.__name__}({fields})")


def check_words(words: Sequence[str], **values: object) -> None:
    """Check that values are among the words that there are.

    Args:
        words: all that are taken, as `typing.get_args` lists those of a Literal.
        **values: by the names that they are given by.

    Raises:
        ValueError: for the first that is another.
    """
    for name, value in values.items():
        if value not in words:
            raise ValueError(f"{name}={value!r}; it must be one of {', '.join(words)}")
