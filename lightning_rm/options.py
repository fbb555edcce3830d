"""Options that go together as one object, as a notebook gives them.

It knows no option.
"""

from __future__ import annotations


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
