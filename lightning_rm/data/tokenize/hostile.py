"""What a tokenizer from somebody else may cost: its file has a size, its normaliser lets a text grow so far, and its
chat template ends.

It knows a tokenizer's files and definition; not what it is loaded for. A regular expression in it needs no bound of
ours: the library gives up on a search that goes on too long, and `templates` says so.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_FILE_BYTES = 2**28
"""Of a tokenizer's file; the largest known have 35 MB."""
MAX_GROWTH = 100
"""Times that a normaliser may make a text longer. Those of published tokenizers write a mark for a space."""
MAX_STEPS = 200_000
"""Steps of a template on a conversation of two words; those of published models take some thousand."""
MAX_NUMBER = 1_000_000
"""The largest number that stands in a template, and the most characters that it makes of two words."""
MAX_BYTES = 2**27
"""Of memory that a template takes for two words: a text is doubled forty times in few steps without a large number."""


MAX_SECONDS = 5.0
"""Of a processor for two words, looked at before each step: one that wraps a million letters, or squares a number again
and again, takes minutes in few of them."""


class EndlessTemplateError(ValueError):
    """A chat template does not end on two words, or makes gigabytes of them."""


class _TooMuchError(BaseException):
    """Why a template is stopped. Jinja tries constants out while it compiles, and takes every Exception for a reason to
    leave them for later: by then nothing would count any more.
    """


def check_files(path: str) -> None:
    """Check the size of the files of a tokenizer's folder, before anything is read.

    Raises:
        ValueError: if one is too large.
    """
    for file in Path(path).glob("*token*.json"):
        if file.is_file() and file.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(
                f"{file} has {file.stat().st_size:,} bytes, and no tokenizer needs more than {MAX_FILE_BYTES:,}"
            )


def check_growth(path: str, definition: Mapping[str, Any]) -> None:
    """Check how much longer a tokenizer's normaliser makes a text.

    Five replacements of `a` by ten of it make 100,000 of one.

    Args:
        path: of the tokenizer.
        definition: as its file has it.

    Raises:
        ValueError: if it is over `MAX_GROWTH` times.
    """
    if (growth := _growth(definition.get("normalizer"))) > MAX_GROWTH:
        raise ValueError(
            f"{path}: the normalizer of its tokenizer.json makes a text up to {growth:,.0f} times as long, where "
            f"{MAX_GROWTH} is the most that is taken; use another tokenizer"
        )


def check_template(path: str, template: str) -> None:
    """Check that a chat template holds no number with which a few words become gigabytes.

    Args:
        path: of the tokenizer.
        template: its text; one that is not jinja is left to whoever renders it.

    Raises:
        ValueError: if it holds a power, or a number above `MAX_NUMBER`.
    """
    try:
        parsed = ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(template)
    except TemplateSyntaxError:  # it may have statements of transformers' own, which write nothing
        return
    if (power := parsed.find(nodes.Pow)) is not None:
        raise ValueError(f"{path}: line {power.lineno} of its chat template has a power (**); give chat_template=...")
    for number in parsed.find_all(nodes.Const):
        if isinstance(number.value, int | float) and abs(number.value) > MAX_NUMBER:
            raise ValueError(
                f"{path}: line {number.lineno} of its chat template has the number {number.value:,}, where "
                f"{MAX_NUMBER:,} is the most that is taken; give chat_template=..."
            )


@contextmanager
def few_steps() -> Generator[None]:
    """Run a template on few words, within `MAX_STEPS` lines of Python, `MAX_SECONDS` of a processor and, on Linux,
    `MAX_BYTES` of memory.

    Raises:
        EndlessTemplateError: if it takes more.
    """
    left, before, end = MAX_STEPS, sys.gettrace(), time.thread_time() + MAX_SECONDS

    def count(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooMuchError(
                f"the chat template does not end within {MAX_STEPS:,} steps on a conversation of two words; give "
                "another with chat_template=..."
            )
        if time.thread_time() > end:
            raise _TooMuchError(
                f"the chat template takes over {MAX_SECONDS:g} s of a processor for a conversation of two words; give "
                "another with chat_template=..."
            )
        return count

    sys.settrace(count)
    try:
        with _little_memory():
            yield
    except _TooMuchError as stopped:
        raise EndlessTemplateError(str(stopped)) from None
    except MemoryError:
        raise EndlessTemplateError(
            f"the chat template takes over {MAX_BYTES >> 20} MiB of memory for a conversation of two words; give "
            "another with chat_template=..."
        ) from None
    finally:
        sys.settrace(before)


def check_text(text: str) -> None:
    """Check how long a text a template makes of two words.

    Raises:
        EndlessTemplateError: if it has over `MAX_NUMBER` characters.
    """
    if len(text) > MAX_NUMBER:
        raise EndlessTemplateError(
            f"the chat template makes {len(text):,} characters of a conversation of two words, where {MAX_NUMBER:,} is "
            "the most that is taken; give another with chat_template=..."
        )


@contextmanager
def _little_memory() -> Generator[None]:
    """Let this process take `MAX_BYTES` more, on Linux; beyond it is a MemoryError."""
    if sys.platform != "linux":
        yield
        return
    import resource  # which Windows does not have

    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _growth(normalizer: Mapping[str, Any] | None) -> float:
    """Return how many times as long a normaliser, and those in it one after the other, may make a text."""
    if normalizer is None:
        return 1.0
    if normalizer.get("type") == "Replace":
        pattern, content = normalizer["pattern"], len(normalizer["content"])
        # A regular expression may match nothing at all, between any two characters.
        return max(1.0, content / len(pattern["String"])) if pattern.get("String") else 1.0 + content
    growth = 1.0
    for each in normalizer.get("normalizers", ()):
        growth *= _growth(each)
    return growth
