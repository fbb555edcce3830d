"""All that only a GPU can show, in eight minutes: equality, waiting, the speed of training and of scoring.

    python benchmarks/gpu.py --out results.json
    python benchmarks/gpu.py --tiny --out results.json      every part on a CPU, small, in under two minutes

Each part is a process of its own with a share of the minutes, so that a failure costs that part alone: `machine`,
`equality`, `no_sync`, `training_speed`, `scoring_speed`, in this order, or those that `--only` names. What a part does
not use of its share goes to those after it; a part that outstays it is ended, and what it has measured is kept. After
every case the file is written anew. A part that runs takes the place of its results in the file; parts that do not run
keep theirs, and every part says when, on what machine and with what versions it ran. A table of all of it comes last.

Nothing is read from a network. Needed are this checkout, torch with CUDA, transformers, lightning, torchmetrics,
datasets, peft and numpy; TRL is the other side of the comparison, and Liger, bitsandbytes and flash-attn are used where
they are installed. What is missing is a case that says so. `--wheels DIR` installs every wheel of a folder for this run
alone (`docs/gpu.md` has the lines that fill it).

The exit code is 1 if a part failed, was ended or stopped, or a case failed or is not equal; a target that is missed is
in the table and no failure.

This file starts the parts and knows nothing of what they measure; it runs without torch.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from gpu_parts.results import PARTS, Results, verdict

HERE = Path(__file__).resolve().parent
COMMAND = [sys.executable, "-m", "gpu_parts"]
RESERVE = 10.0
"""Seconds that a part is told less than it gets, to end by itself."""


class Stopped(Exception):  # noqa: N818  # not an error of this program's
    """Ctrl-C, or whoever ends this program."""


def main() -> int:
    arguments = parse()
    results = Results(arguments.out)
    if arguments.table:
        print(results.table())
        return 0
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    deadline = time.monotonic() + 60 * arguments.minutes
    names = [name for name in PARTS if name in arguments.only]
    stopped = False
    with tempfile.TemporaryDirectory(prefix="lightning-rm-gpu-") as folder:
        try:
            site = install(arguments.wheels, Path(folder)) if arguments.wheels else None
            for place, name in enumerate(names):
                left = deadline - time.monotonic()
                seconds = left * PARTS[name] / sum(PARTS[later] for later in names[place:])
                state = run(name, seconds, arguments, results, Path(folder), site)
                if name == "machine" and state != "finished":  # no other part would do better
                    break
        except Stopped:
            stopped = True
    print(results.table())
    print(f"\nwritten: {arguments.out}")
    return 1 if stopped or not verdict(results.parts, names) else 0


def run(
    name: str, seconds: float, arguments: argparse.Namespace, results: Results, folder: Path, site: Path | None
) -> str:
    """One part, until it ends or its time is over. Returns its state, which is in the results too."""
    cases, log = folder / f"{name}.jsonl", folder / f"{name}.log"
    command = [*COMMAND, name, "--cases", str(cases), "--seconds", str(max(seconds - RESERVE, 1.0))]
    if arguments.tiny:
        command.append("--tiny")
    paths = [str(HERE), str(HERE.parent), *([str(site)] if site else []), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "LIGHTNING_RM_CACHE": str(folder / "cache"),
    }
    print(f"== {name}: at most {seconds:.0f} s", flush=True)
    start, state, position = time.monotonic(), "running", 0
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            while state == "running":
                if (code := process.poll()) is not None:
                    state = "finished" if code == 0 else f"failed: {last_words(log, code)}"
                elif time.monotonic() - start > seconds:
                    state = f"ended after {seconds:.0f} s"
                else:
                    time.sleep(0.1)
                position = take(name, cases, position, results)
        except Stopped:
            state = "stopped"
            raise
        finally:
            end(process)
            take(name, cases, position, results)
            results.end(name, state, time.monotonic() - start)
    if state != "finished":
        print(tail(log), file=sys.stderr)
        print(f"== {name} {state}", flush=True)
    return state


def take(name: str, cases: Path, position: int, results: Results) -> int:
    """Hand over the whole lines that a part has written since; returns where they end."""
    if not cases.exists():
        return position
    with cases.open("rb") as file:
        file.seek(position)
        for line in file:
            if not line.endswith(b"\n"):
                break
            position += len(line)
            record: dict[str, Any] = json.loads(line)
            results.add(name, record)
            print(f"   {record.get('case', 'origin')}: {record.get('state', '')}", flush=True)
    return position


def end(process: subprocess.Popen[bytes]) -> None:
    """End a part and whatever it has started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                continue


def install(wheels: Path, folder: Path) -> Path:
    """Put every wheel of a folder into one of our own, which the parts look into first."""
    found = sorted(str(wheel) for wheel in wheels.glob("*.whl"))
    if not found:
        raise SystemExit(f"--wheels {wheels}: there is no wheel in it; docs/gpu.md has the line that fills it")
    site = folder / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"]
    if subprocess.run([*command, "--target", str(site), *found]).returncode:
        raise SystemExit(f"--wheels {wheels}: pip could not install them; what it says stands above")
    return site


def last_words(log: Path, code: int) -> str:
    """The last line that a part said, which of a Python error is the error."""
    lines = log.read_text(errors="replace", encoding="utf-8").strip().splitlines()
    return lines[-1] if lines and code > 0 else f"exit code {code}"


def tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace", encoding="utf-8").splitlines()[-lines:])


def stop(number: int, frame: FrameType | None) -> None:
    """Once: what comes after it writes the results."""
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise Stopped


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu.json")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all parts together")
    parser.add_argument("--tiny", action="store_true", help="small models on a CPU: whether it works, not how fast")
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="a folder of wheels to install for this run")
    parser.add_argument("--table", action="store_true", help="print the table of --out and measure nothing")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
