"""Paths as a user names them: a path that is there, whatever signs its name has, or a glob. It knows no contents."""

from __future__ import annotations

import glob
from pathlib import Path


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
