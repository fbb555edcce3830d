"""The results of `benchmarks/gpu.py`: their file, the table, the targets. It needs nothing but Python.

{"parts": {"equality": {"state": "finished", "seconds": 61.2, "origin": {...}, "cases": [{"case": ..., "state": ...}]}}}
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

Case = dict[str, Any]
Parts = dict[str, dict[str, Any]]

PARTS = {"machine": 3, "equality": 19, "no_sync": 8, "training_speed": 50, "scoring_speed": 20}
"""The parts in their order, and how much of the time each gets."""

WRONG = ("failed", "not equal", "waits")
"""How the state of a case begins that is a failure. A case that is cut, or needs what is not here, is none."""

TWICE = (("Qwen3-0.6B", 1024), ("Llama-3.2-1B", 1024), ("Qwen3-0.6B", 2048), ("Llama-3.2-1B", 2048))
"""Where training is to be twice as fast as TRL's best, in no more memory."""


class Results:
    """What is in the file, written anew at every change; a part's first line replaces what an earlier run left of it.

    Args:
        file: JSON; read first, if it is there.

    Raises:
        SystemExit: if the file is something else: it is not overwritten.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.parts: Parts = {}
        self._of_this_run: set[str] = set()
        if file.exists():
            try:
                self.parts = json.loads(file.read_text(encoding="utf-8"))["parts"]
            except (ValueError, KeyError, TypeError) as error:
                raise SystemExit(f"--out {file} is there and is not a result of this command: name another") from error
        if not file.absolute().parent.is_dir():
            raise SystemExit(f"--out {file}: there is no folder {file.absolute().parent}")

    def add(self, name: str, record: Case) -> None:
        """Take a line of a part: a case, or where it comes from."""
        part = self._part(name)
        if "case" in record:
            part["cases"].append(record)
        else:
            part["origin"] = record
        self._write()

    def end(self, name: str, state: str, seconds: float) -> None:
        """Say how a part ended."""
        self._part(name).update(state=state, seconds=round(seconds, 1))
        self._write()

    def table(self) -> str:
        """Everything, as Markdown."""
        lines: list[str] = []
        for name, part in sorted(self.parts.items(), key=lambda item: list(PARTS).index(item[0])):
            origin = part.get("origin", {})
            origin = ", ".join(str(origin[key]) for key in ("machine", "versions", "date") if key in origin)
            lines += ["", f"**{name}**: {part['state']}, {part['seconds']} s; {origin}", "", *rows(part["cases"])]
        lines += ["", "**targets**", "", *rows([target.row() for target in targets(self.parts)])]
        return "\n".join(lines).strip()

    def _part(self, name: str) -> dict[str, Any]:
        if name not in self._of_this_run:
            self._of_this_run.add(name)
            self.parts[name] = {"state": "running", "seconds": 0.0, "origin": {}, "cases": []}
        return self.parts[name]

    def _write(self) -> None:
        write_json(self.file, {"parts": self.parts, "targets": [target.row() for target in targets(self.parts)]})


def write_json(file: Path, results: object) -> None:
    """Write a draft beside the file and put it in the file's place: whoever stops this leaves the file as it was."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(results, indent=1) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(file)


def verdict(parts: Parts, names: Collection[str]) -> bool:
    """Whether parts of these names have all ended as they should, and none of their cases is wrong."""
    ran = [parts[name] for name in names if name in parts]
    cases = [case for part in ran for case in part["cases"]]
    finished = len(ran) == len(names) and all(part["state"] == "finished" for part in ran)
    return finished and not any(case["state"].startswith(WRONG) for case in cases)


def rows(cases: Iterable[Case]) -> list[str]:
    """A Markdown table of cases, with a column for each thing that one of them has."""
    listed = list(cases)
    columns = list(dict.fromkeys(key for case in listed for key in case))
    if not listed:
        return ["nothing was measured"]
    head = [column.replace("_", " ") for column in columns]
    body = [[shown(case.get(column, "")) for column in columns] for case in listed]
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(columns), *body)]


def shown(value: object) -> str:
    """A cell: numbers to four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "/").replace("\n", " ")


@dataclass(frozen=True)
class Target:
    """What was to be reached.

    Args:
        name: of what.
        wanted: the bound.
        found: the number; None where it was not measured.
        least: whether the number is to be at least the bound, or at most.
        judged: whether it was measured on a GPU, with the models that it is of.
    """

    name: str
    wanted: float
    found: float | None
    least: bool
    judged: bool = True

    def row(self) -> Case:
        """As a case of the table."""
        if self.found is None:
            state = "not measured"
        elif not self.judged:
            state = "not judged: no GPU"
        else:
            state = "met" if (self.found >= self.wanted if self.least else self.found <= self.wanted) else "missed"
        found = "" if self.found is None else self.found
        return {
            "case": self.name,
            "wanted": f"{'>=' if self.least else '<='} {self.wanted}",
            "found": found,
            "state": state,
        }


def targets(parts: Parts) -> list[Target]:
    """Every target, and what was found."""
    training, scoring = (parts.get(name, {"origin": {}, "cases": []}) for name in ("training_speed", "scoring_speed"))
    judged = not training["origin"].get("tiny", False)
    found: list[Target] = []
    for model, length in TWICE:
        cases = [
            case for case in measured(training["cases"]) if (case.get("model"), case.get("length")) == (model, length)
        ]
        ours, theirs = best(cases, trl=False), best(cases, trl=True)
        origin = f"{model} at {length} tokens"
        found.append(
            Target(f"pairs/s to TRL's best, {origin}", 2.0, ratio(ours, theirs, "pairs_a_second"), True, judged)
        )
        found.append(Target(f"peak memory to TRL's best, {origin}", 1.0, ratio(ours, theirs, "peak_gb"), False, judged))
    shares = [
        case["mfu_computed"]
        for case in measured(training["cases"])
        if case.get("model") == "Llama-3.2-1B" and "mfu_computed" in case and not is_trl(case)
    ]
    found.append(Target("MFU of Llama-3.2-1B on tokens computed", 0.5, max(shares, default=None), True, judged))
    judged = not scoring["origin"].get("tiny", False)
    for method, most in (("meta", 2.3), ("simcse", 2.1), ("swav", 2.1)):
        steps = [case["to_baseline"] for case in measured(scoring["cases"]) if case.get("method") == method]
        found.append(Target(f"a step of {method} to the baseline's", most, max(steps, default=None), False, judged))
    return found


def measured(cases: Iterable[Case]) -> list[Case]:
    return [case for case in cases if case["state"] == "measured"]


def is_trl(case: Mapping[str, Any]) -> bool:
    return case["contender"].startswith("trl")


def best(cases: Iterable[Case], trl: bool) -> Case | None:
    """Of one side the contender with the most pairs a second, by the median over its blocks; numbers are medians."""
    blocks: dict[str, list[Case]] = {}
    for case in cases:
        if is_trl(case) == trl and "pairs_a_second" in case:
            blocks.setdefault(case["contender"], []).append(case)
    middles = [
        {key: median(block[key] for block in of_one) for key in ("pairs_a_second", "peak_gb") if key in of_one[0]}
        for of_one in blocks.values()
    ]
    return max(middles, key=lambda case: case["pairs_a_second"], default=None)


def ratio(ours: Case | None, theirs: Case | None, key: str) -> float | None:
    """Ours to theirs."""
    return ours[key] / theirs[key] if ours and theirs and key in ours and theirs.get(key) else None
