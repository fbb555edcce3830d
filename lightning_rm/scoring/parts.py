"""Parts: rewards on disk while the rest is still to come, one file a shard. It knows arrays and folders; no model.

A part is there whole or not at all, so a killed run goes on after the last one, and any number of processes write into
one folder. A folder of parts carries a mark, so that what others put beside our output is neither read nor removed. It
is made with its first part: an error before that leaves nothing behind.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_rm.drafts import check_place, draft_of

log = logging.getLogger(__name__)

Rewards = NDArray[np.floating[Any]]

MARK = "parts-of-lightning-rm"
"""The empty file that tells a folder of parts from others."""

PART = re.compile(r"\d{6}\.npz(\..+\.tmp)?")
"""The name of a part, and that of the draft of one."""


class Refusal(NamedTuple):
    """Why a conversation has no reward: a kind that can be counted, and what was found."""

    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Part(NamedTuple):
    """What was scored of a shard.

    Args:
        rewards: (n, M), NaN for a conversation that was refused.
        refusals: by place in the shard.
    """

    rewards: Rewards
    refusals: Mapping[int, Refusal]


@dataclass(frozen=True)
class Parts:
    """A folder of parts, each under its shard's number.

    Args:
        folder: named by whatever the rewards depend on, in one that `check_parts` has let pass.
    """

    folder: Path

    def has(self, number: int) -> bool:
        """Tell whether a shard is done; a part that cannot be read, as of a damaged disk, is not, and is told."""
        path = self._path(number)
        if not path.is_file():
            return False
        try:
            self.read(number)  # the archive has a checksum of each array
        except OSError:
            raise
        except Exception as error:  # a damaged archive makes zipfile and numpy raise a dozen kinds
            log.warning("%s is damaged (%s); it is scored again", path, type(error).__name__)
            return False
        return True

    def write(self, number: int, part: Part) -> None:
        """Write a shard's part in one step; the first one makes the folder."""
        if not self.folder.is_dir():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            (self.folder.parent / MARK).touch()
        places = np.array(list(part.refusals), dtype=np.int64)
        reasons = np.array([list(refusal) for refusal in part.refusals.values()], dtype=np.str_).reshape(-1, 2)
        with draft_of(self._path(number)) as draft, draft.open("wb") as file:
            np.savez(file, rewards=part.rewards, places=places, reasons=reasons)

    def read(self, number: int) -> Part:
        """Read a shard's part."""
        with np.load(self._path(number), allow_pickle=False) as held:
            refusals = zip(held["places"].tolist(), held["reasons"].tolist(), strict=True)
            return Part(held["rewards"], {place: Refusal(*texts) for place, texts in refusals})

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def parts_of(out: Path) -> Path:
    """Return where what is scored for a file lies until that is written: `OUT.parts`, beside it."""
    return out.with_name(f"{out.name}.parts")


def check_parts(root: Path) -> None:
    """Check that folders of parts can lie in a folder, which need not be there yet.

    Raises:
        ValueError: if there is such a folder, and it holds what this package did not put there.
        OSError: if it cannot be written, or made.
    """
    if root.exists() and not (root / MARK).is_file() and (root.is_file() or any(root.iterdir())):
        raise ValueError(
            f"{root} is there already, and what it holds is not of an interrupted run; what is scored would lie there "
            "until all is done: move it, or write to another out"
        )
    check_place(root, folder=True)


def remove_parts(root: Path) -> None:
    """Remove a folder of parts when its output is written; what others have put into it meanwhile stays."""
    if not (root / MARK).is_file():
        return
    for path in root.rglob("*"):
        if PART.fullmatch(path.name):
            path.unlink(missing_ok=True)
    (root / MARK).unlink(missing_ok=True)
    for folder in (*(path for path in root.iterdir() if path.is_dir()), root):
        with suppress(OSError):  # it holds what is not ours
            folder.rmdir()


def remove_left(root: Path, out: Path) -> None:
    """Remove a folder of parts that a kill left beside an output which was written just before.

    Parts that are newer than the output are those of a run that makes it anew, and stay.

    Args:
        root: the folder of parts.
        out: the output, which is there.
    """
    written = out.stat().st_mtime_ns
    if all(path.stat().st_mtime_ns <= written for path in root.rglob("*") if path.is_file()):
        remove_parts(root)
        with suppress(OSError):  # it is not there any more, or others have put something into it
            root.rmdir()
