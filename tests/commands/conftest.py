"""A command as a user types it, in this process: what it says, and its exit code."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands import _entry, main
from tests.figures import draw_nothing, leave_blank


class Said(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture(autouse=True, scope="module")
def _without_ink() -> Iterator[None]:
    """Figures that commands put together are drawn by `tests/analysis`, and once by a command in its own process."""
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        leave_blank(patch)
        yield


@pytest.fixture(scope="session")
def whole() -> DictConfig:
    """A training with callbacks and adapters."""
    from tests.commands.test_conf import composed

    return composed("callbacks=[early_stopping,top_k,progress]", "peft=lora", "hydra.runtime.output_dir=run")


@pytest.fixture
def cfg(whole: DictConfig) -> DictConfig:
    """The same, to be changed: with room for any key."""
    left = whole.copy()
    OmegaConf.set_struct(left, False)
    return left


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`allow_targets=true` sets it, for the processes that are started: it goes with the test."""
    monkeypatch.setenv("LIGHTNING_RM_ALLOW_TARGETS", "0")


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Generator[Cli]:
    """Runs `lightning-rm WORDS` in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    heard = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    handlers = logging.root.handlers[:]

    def run(*words: str) -> Said:
        monkeypatch.setattr(_entry, "_arguments", None)
        monkeypatch.setattr(sys, "argv", ["lightning-rm", *words])
        capfd.readouterr()
        code: object = 0
        try:
            main.main()
        except SystemExit as ended:
            code = ended.code
        said = capfd.readouterr()
        return Said(int(code or 0) if not isinstance(code, str) else 1, said.out, said.err)  # pyright: ignore[reportArgumentType]

    yield run
    for number, handler in heard.items():
        signal.signal(number, handler)
    logging.root.handlers[:] = handlers
