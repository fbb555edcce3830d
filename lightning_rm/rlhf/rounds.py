"""Rounds of RLHF as folders of stages: each is made once, goes on after a kill, and is never taken for other settings'.

    OUT/round_0/                         what the start policy says, judged
    OUT/round_1/responses.jsonl          k responses a prompt of the policy of round 0
    OUT/round_1/reward_model/            a run of this round's reward model
    OUT/round_1/policy/                  the policy that was improved by it
    OUT/round_1/judged.jsonl, judged.json

Beside them `stages/NAME.json` says what a stage was made of. This file knows folders and callables; no policy, no
reward and no text.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from lightning_rm.digests import key_digest
from lightning_rm.drafts import write_json
from lightning_rm.told import read_object


@dataclass(frozen=True)
class Round:
    """One round's folder.

    Args:
        out: of all rounds.
        number: from 1 on; 0 is the start policy.
    """

    out: Path
    number: int

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self.out / f"round_{self.number}"

    @property
    def before(self) -> Round:
        """The round before."""
        return Round(self.out, self.number - 1)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def seed(self, seed: int, purpose: str) -> int:
        """Return this round's own seed for a purpose, below 2^31, made from the run's seed."""
        return int(key_digest("round", seed, self.number, purpose)[:15], 16) % 2**31


@dataclass(frozen=True)
class Stage:
    """One step of a round.

    Args:
        name: of the stage.
        make: writes what the stage is for. Called again after a kill: it goes on or begins anew, to the same outcome.
        inputs: plain values, all that the outcome depends on: settings, and digests of what other stages wrote.
        writes: the files and folders that it makes, by name.
        read: of these, or below them, what others read. Where one is gone, the stage is made again.
        first: the first round that has it.
    """

    name: str
    make: Callable[[Round], None]
    inputs: Callable[[Round], Mapping[str, Any]]
    writes: tuple[str, ...]
    read: tuple[str, ...] = ()
    first: int = 1


def settle(stage: Stage, round: Round, *, overwrite: bool = False) -> bool:
    """Have a stage made, unless it is made already and what others read of it is still there.

    Args:
        stage: which.
        round: of which round.
        overwrite: remove what was made of other inputs, and make it anew.

    Returns:
        Whether anything was done.

    Raises:
        ValueError: if it was made, or begun, of other inputs, these change while it is made, or what is noted of them
            cannot be read.
    """
    mark = _mark(stage, round)
    inputs = _inputs(stage, round)
    known = _known(stage, round)
    if known is not None and known["inputs"] != inputs:
        if not overwrite:
            raise _of_other_inputs(stage, round, known["inputs"], inputs)
        _clear(stage, round)
        known = None
    if known is not None and known["finished"]:
        if all((round / name).exists() for name in stage.read):
            return False
        _clear(stage, round)
    write_json(mark, {"inputs": inputs, "finished": False})
    stage.make(round)
    if (now := _inputs(stage, round)) != inputs:
        _clear(stage, round)
        raise ValueError(
            f"{round.folder}: what its {stage.name} is made of has changed meanwhile ({_differences(inputs, now)}); "
            "start again once it stays as it is"
        )
    write_json(mark, {"inputs": inputs, "finished": True})
    return True


def check_made(out: Path, stages: Sequence[Stage], num_rounds: int) -> None:
    """Check that the stages that were made before one after the other are of the same inputs, and make none.

    Args:
        out: a folder.
        stages: of a round, in order.
        num_rounds: the last round.

    Raises:
        ValueError: as `settle` does, for the first that is not.
    """
    for number in range(num_rounds + 1):
        for stage in (stage for stage in stages if number >= stage.first):
            if not is_made(stage, Round(out, number)):
                return


def is_made(stage: Stage, round: Round) -> bool:
    """Tell whether a stage has been made, of the inputs of now, and what others read of it is still there.

    Raises:
        ValueError: if it was made, or begun, of other inputs.
    """
    known = _known(stage, round)
    if known is None:
        return False
    inputs = _inputs(stage, round)
    if known["inputs"] != inputs:
        raise _of_other_inputs(stage, round, known["inputs"], inputs)
    return bool(known["finished"]) and all((round / name).exists() for name in stage.read)


def run_rounds(
    out: Path,
    stages: Sequence[Stage],
    num_rounds: int,
    *,
    worth: Callable[[Round], float],
    patience: int | None = None,
    overwrite: bool = False,
    after_stage: Callable[[Stage, Round, bool], None] = lambda stage, round, is_new: None,
) -> list[Round]:
    """Run round after round, each stage once; a run that was killed goes on at the stage where it was.

    Args:
        out: a folder.
        stages: of a round, in order.
        num_rounds: the last round, beside round 0 of the start policy.
        worth: of a round's policy, once it is judged.
        patience: stop after so many rounds in a row that are each worth less than the one before; None for never.
        overwrite: make anew what was made of other inputs.
        after_stage: told of every stage, and whether anything was done.

    Returns:
        The rounds that were run, round 0 first.

    Raises:
        ValueError: if a number is out of its range, or a stage was made of other inputs.
    """
    check_rounds(num_rounds, patience)
    rounds: list[Round] = []
    for number in range(num_rounds + 1):
        round = Round(out, number)
        for stage in stages:
            if number >= stage.first:
                after_stage(stage, round, settle(stage, round, overwrite=overwrite))
        rounds.append(round)
        if patience is not None and num_falls([worth(each) for each in rounds]) >= patience:
            break
    return rounds


def check_rounds(num_rounds: int, patience: int | None) -> None:
    """Raise ValueError for a number of rounds, or of falls, that is out of its range."""
    if num_rounds < 1:
        raise ValueError(f"rounds={num_rounds}; give 1 or more (stage=judge round=0 judges the start policy alone)")
    if patience is not None and patience < 1:
        raise ValueError(f"patience={patience}; give 1 or more, or null to run all rounds")


def num_falls(worth: Sequence[float]) -> int:
    """Return how many values at the end are each below the one before: 1, 3, 2, 1 -> 2."""
    falls = [later < earlier for earlier, later in pairwise(worth)]
    return len(falls) if all(falls) else falls[::-1].index(False)


def _mark(stage: Stage, round: Round) -> Path:
    return round / f"stages/{stage.name}.json"


def _inputs(stage: Stage, round: Round) -> dict[str, Any]:
    """Return a stage's inputs as they are read again."""
    return json.loads(json.dumps(stage.inputs(round)))


def _known(stage: Stage, round: Round) -> dict[str, Any] | None:
    """Return what is noted of a stage; None if nothing is, or it failed before it made anything."""
    mark = _mark(stage, round)
    known = _read(mark) if mark.is_file() else None
    if known is not None and not known["finished"] and not any((round / name).exists() for name in stage.writes):
        return None
    return known


def _of_other_inputs(stage: Stage, round: Round, before: Mapping[str, Any], now: Mapping[str, Any]) -> ValueError:
    return ValueError(
        f"{round.folder} holds a {stage.name} of other inputs ({_differences(before, now)}); give the same, name "
        "another folder with out=, or set overwrite=true to make it anew"
    )


def _read(mark: Path) -> dict[str, Any]:
    try:
        told = read_object(mark)
        return {name: told[name] for name in ("inputs", "finished")}
    except (ValueError, KeyError) as error:
        raise ValueError(f"{mark} is damaged; delete it, and its stage is made again") from error


def _clear(stage: Stage, round: Round) -> None:
    for path in (round / name for name in stage.writes):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return "; ".join(_difference(name, before.get(name), now.get(name)) for name in names)


def _difference(name: str, before: Any, now: Any) -> str:
    """Say how a value differs; for lists and mappings, what in them differs."""
    if isinstance(before, list) and isinstance(now, list):
        gone, new = ([one for one in own if one not in others] for own, others in ((before, now), (now, before)))
        return f"{name} had {gone}, has {new}"
    if isinstance(before, dict) and isinstance(now, dict):
        return _differences(cast(dict[str, Any], before), cast(dict[str, Any], now))
    return f"{name} was {before!r}, is {now!r}"
