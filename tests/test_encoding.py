"""Whatever is read or written as text says that it is UTF-8: a locale has no say in what a file holds."""

from __future__ import annotations

import ast
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lightning_rm.loggers import ResumableCSVLogger, Utf8Files
from tests.syntax import package

OPENERS = {"NamedTemporaryFile", "TemporaryFile", "fdopen"}
OF_PATHS = {"read_text", "write_text"}


def of_the_locale(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The calls that open a file as text and name no encoding."""
    for node in nodes:
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        is_method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        of_module = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in ("gzip", "os")
        values = node.args[:1] if is_method and not of_module else node.args[1:2]
        values = values + [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
        modes = [value.value for value in values if isinstance(value, ast.Constant)]
        is_mode = all(isinstance(mode, str) and set(mode) <= set("rwxabt+") for mode in modes)
        is_binary = bool(modes) and is_mode and any("b" in mode for mode in modes)
        # What is opened by another object's method of that name is not a file: `pairs.open(name)`.
        opens = name == "open" and not of_module and is_mode and (bool(modes) or not values)
        if (opens or name in OPENERS or (is_method and name in OF_PATHS)) and not is_binary:
            yield f"{node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    ("line", "is_found"),
    [
        ("path.open()", True),
        ("path.open('w')", True),
        ("path.open(mode='a')", True),
        ("open(path)", True),
        ("open(path, 'r')", True),
        ("path.write_text(text)", True),
        ("write_text(path, text)", False),  # `drafts.write_text`, which names one
        ("path.open('rb')", False),
        ("open(path, 'xb')", False),
        ("path.open('w', encoding='utf-8')", False),
        ("path.read_text(encoding='utf-8')", False),
        ("gzip.open(path)", False),
        ("pairs.open(name)", False),
    ],
)
def test_such_a_call_is_found(line: str, is_found: bool) -> None:
    assert bool(list(of_the_locale(ast.walk(ast.parse(line))))) == is_found


def test_no_call_leaves_the_encoding_to_the_locale() -> None:
    found = {path.name: list(of_the_locale(nodes)) for path, nodes in package().items()}
    assert len(found) > 200
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_nothing_imports_at_its_top_what_another_system_lacks() -> None:
    found: set[str] = set()
    for module, *_ in package().values():
        for node in module.body if isinstance(module, ast.Module) else ():
            found |= {name.name for name in node.names} if isinstance(node, ast.Import) else set()
    assert {"os", "json"} < found
    assert not found & {"fcntl", "grp", "msvcrt", "pwd", "resource", "termios", "winreg"}


def test_lightnings_writer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`_fs`, a private name of Lightning's CSV writer: all that it opens goes through it, and in UTF-8."""
    opened: list[str] = []

    @contextmanager
    def remembered(self: Utf8Files, path: str, mode: str = "rb", **options: Any) -> Generator[Any]:
        with plain(self, path, mode, **options) as file:
            opened.append(file.encoding)
            yield file

    plain = Utf8Files.open
    monkeypatch.setattr(Utf8Files, "open", remembered)
    logger = ResumableCSVLogger(tmp_path, "", "")
    for step, name in enumerate(("test/日本語/accuracy", "test/ñ/accuracy")):
        logger.log_metrics({name: 0.5}, step)
        logger.save()
    assert opened == ["utf-8"] * 4  # written; read, written and gone on with, for a new column
    [file] = tmp_path.rglob("metrics.csv")
    assert "test/日本語/accuracy" in file.read_text(encoding="utf-8")
