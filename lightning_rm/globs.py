"""Paths as a user names them: a path that is there, whatever signs its name has, or a glob. It knows no contents."""

from __future__ import annotations

import glob
import re
from pathlib import Path

NUMBER = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)")


def is_glob(named: str | Path) -> bool:
    """Tell whether a name is to be matched: it has `*`, `?` or `[`, and nothing of that very name is there."""
    path = Path(named).expanduser()
    return glob.has_magic(str(path)) and not path.exists()


def named_paths(named: str | Path, recursive: bool = False) -> list[Path]:
    """Return the paths of a name, sorted: `runs/a[1]` is that folder if it is there, and `runs/[ab]` may be two.

    Args:
        named: the name.
        recursive: whether `**` goes through folders of any depth.
    """
    path = Path(named).expanduser()
    return [path] if path.exists() else [Path(found) for found in sorted(glob.glob(str(path), recursive=recursive))]


def named_folders(named: str | Path) -> list[Path]:
    """Return the folders of a name, such as those of runs: in the order of the numbers in their names, `2` before `10`.

    Files are in the order of `named_paths`, for rows are.
    """
    return sorted((path for path in named_paths(named) if path.is_dir()), key=lambda path: by_numbers(str(path)))


def by_numbers(text: str) -> tuple[list[str | float], str]:
    """Return a sort key by which numbers within texts count as such: `seed=2` before `seed=10`, `0.05` before `0.1`."""
    # Texts and numbers take turns, so that like meets like.
    return [float(part) if place % 2 else part for place, part in enumerate(NUMBER.split(text))], text
