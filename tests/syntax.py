"""Syntax trees, parsed once for all tests that look at what the source says."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import lightning_rm

PACKAGE = Path(lightning_rm.__file__).parent


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """All nodes of a file's tree, the tree itself before the others."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def package() -> dict[Path, list[ast.AST]]:
    """The nodes of every file of the package."""
    return {path: nodes_of(path) for path in PACKAGE.rglob("*.py")}
