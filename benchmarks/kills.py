"""Kills commands with SIGKILL at random moments and starts them again: what is there at the end must be what a run that
nobody killed leaves, byte for byte, with nothing beside it.

    python benchmarks/kills.py --kills 6 --out benchmarks/results/kills.json
    python benchmarks/kills.py train --signal TERM

Each command runs twice unharmed first. Files that differ between the two have the time of day in them: they have to be
there after a kill and are not compared. A trial is as many kills as it takes: the command is killed, started again and
killed again with even odds, and started a last time. `--signal TERM` asks it to stop instead, as a cluster does before
it kills. Caches lie in the folder of the trial and are compared too. What
Hydra notes of the command line has the checkpoint that a second start goes on from; checkpoints are compared number by
number, for what a pickle says twice depends on which object it was. A command is killed with the commands that it
runs, as by a machine that goes down.

`review` has no end: it is sent decisions until it is killed, and each one that it has answered has to be in its file,
once and in order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import matplotlib.pyplot  # noqa: F401  # imported once, and not by every fork
import torch
from common import origin
from hydra.core.global_hydra import GlobalHydra

from lightning_rm.commands import (  # noqa: F401  # imported once, and not by every fork
    _entry,
    _process,
    annotate,
    curate,
    ensemble,
    evaluate,
    export,
    main,
    review,
    rlhf,
    sample,
    score,
    train,
    weigh,
)

SMALL = ["data.num_pairs=240", "data.num_val=60", "data.num_test=60", "trainer.accelerator=cpu"]
SETUP = {
    "vote/0": ["train", *SMALL, "logger=none", "seed=0"],
    "vote/1": ["train", *SMALL, "logger=none", "seed=1"],
    "sft": ["train", "experiment=sft", *SMALL, "logger=none"],
}
VOTERS = "voters=[../base/vote/0,../base/vote/1]"
COMMANDS = {
    "train": ["train", *SMALL, "logger=csv", "checkpoint.every_n_train_steps=4", "hydra.run.dir=run", "resume=auto"],
    "annotate": ["annotate", VOTERS, "data=synthetic", "data.num_pairs=240", "out=strength.parquet", "shard_size=40"],
    "sample": [
        *("sample", "policy=../base/sft/model/last", VOTERS, "data=synthetic", "data.num_pairs=60", "out=said.jsonl"),
        *("num_prompts=24", "k=3", "max_new_tokens=16", "batch_prompts=4"),
    ],
    "ensemble": ["ensemble", VOTERS, "data=synthetic", "data.num_val=60", "data.num_test=60", "out=ensemble"],
    "score": ["score", "model=../base/vote/0", "in=../base/pairs.jsonl", "out=scored.jsonl", "shard_rows=30"],
    "evaluate": [
        *("evaluate", "models=[../base/vote/0,../base/vote/1]", "data=jsonl", "data.file=../base/pairs.jsonl"),
        *("out=evaluation", "diagnostics=true"),
    ],
    "weigh": [
        *("weigh", "policy=../base/sft/model/best", "reference=../base/sft/model/last", "data=jsonl"),
        *("data.file=../base/pairs.jsonl", "out=weighed.parquet", "shard_pairs=20", "accelerator=cpu"),
    ],
    "curate": [
        *("curate", "data=synthetic", "data.num_pairs=240", "out=curated", "num_voters=2", "trainer.accelerator=cpu"),
        *("accelerator=cpu", "shard_size=40"),
    ],
    "export": ["export", "run=../base/vote/0", "out=exported"],
    "rlhf": [
        *("rlhf", "policy=../base/sft/model/last", "data=synthetic", *SMALL, "out=rounds", "rounds=1"),
        *("accelerator=cpu", "num_prompts=24", "k=3", "max_new_tokens=16", "batch_prompts=4", "num_eval_prompts=8"),
    ],
}


REVIEW = ["review", "strength=../base/strength.parquet", "reviews=reviews.jsonl", "port=0", "token=t"]


def start(words: list[str], folder: Path) -> int:
    """A command in a process of its own, in a folder; the process."""
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ["LIGHTNING_RM_CACHE"] = str(folder / "cache")
    log = os.open(folder.parent / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _process.as_a_process = inner
    become(words)


def inner(words: Sequence[str]) -> None:
    """A command that a command runs, as a fork of it."""
    sys.stdout.flush()
    process = os.fork()
    if not process:
        _entry._arguments = None
        GlobalHydra.instance().clear()
        become(words)
    try:
        _, status = os.waitpid(process, 0)
    except KeyboardInterrupt:  # the group was asked to stop: the other one saves first, as in `run_inner`
        os.waitpid(process, 0)
        raise
    if code := os.waitstatus_to_exitcode(status):
        raise ValueError(f"{words[0]} ended with {code}")


def become(words: Sequence[str]) -> NoReturn:
    """Run a command in this fork, and end with it."""
    sys.argv = ["lightning-rm", *words]
    code = 0
    try:
        main.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def finish(words: list[str], folder: Path) -> float:
    """Run a command to its end; the seconds that it took."""
    begin = time.monotonic()
    _, status = os.waitpid(start(words, folder), 0)
    said = (folder.parent / "log.txt").read_text(encoding="utf-8")
    # Where the kill came between the last write and the end, there is nothing left to do: it does not write over that.
    is_done = re.search("^error: .*set overwrite=true", said, re.MULTILINE)
    if (code := os.waitstatus_to_exitcode(status)) and not is_done:
        raise SystemExit(f"{' '.join(words)} ended with {code}:\n{said[-3000:]}")
    return time.monotonic() - begin


def killed(words: list[str], folder: Path, seconds: float, number: signal.Signals) -> bool:
    """Send a command a signal after some seconds; whether it was still running then, and ended by it."""
    process = start(words, folder)
    time.sleep(seconds)
    os.killpg(process, number)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status) in (-number, 128 + number)


def digests(folder: Path) -> dict[str, str]:
    """Every file below a folder by its name, with a digest of its bytes."""
    return {str(path.relative_to(folder)): digest(path) for path in sorted(folder.rglob("*"))}


def digest(path: Path) -> str:
    """Of a file's bytes, or of a checkpoint's numbers and words."""
    if path.is_dir():
        return "folder"
    if path.parent.name == ".hydra":
        return "noted by Hydra"
    content = path.read_bytes()
    if path.suffix == ".ckpt":
        torch.set_printoptions(profile="full", precision=20)
        content = repr(torch.load(path, weights_only=True, map_location="cpu")).encode()
    return hashlib.sha256(content).hexdigest()


def fresh(root: Path) -> Path:
    """The folder of a trial, empty; always the same, for paths stand in files."""
    folder = root / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def trial(
    words: list[str], root: Path, seconds: float, draw: random.Random, number: signal.Signals
) -> tuple[int, dict[str, str]]:
    """Kill a command until the odds say no, and let it end: the kills that hit it, and what is there."""
    folder, kills = fresh(root), 0
    while True:
        kills += killed(words, folder, draw.uniform(0.02, seconds), number)
        if draw.random() < 0.5:
            break
    finish(words, folder)
    return kills, digests(folder)


def measure(name: str, root: Path, least: int, draw: random.Random, number: signal.Signals) -> dict[str, object]:
    """Trials of one command until it was hit so many times."""
    words = COMMANDS[name]
    clean: list[dict[str, str]] = []
    seconds = 0.0
    for _ in range(2):
        folder = fresh(root)
        seconds = finish(words, folder)
        clean.append(digests(folder))
    timed = {path for path in clean[0] if clean[0][path] != clean[1].get(path)}
    found: dict[str, object] = {"kills": 0, "trials": 0, "same": 0, "differ": [], "litter": [], "missing": []}
    kills = trials = same = 0
    wrong: dict[str, set[str]] = {"differ": set(), "litter": set(), "missing": set()}
    while kills < least:
        hit, end = trial(words, root, seconds, draw, number)
        kills, trials = kills + hit, trials + 1
        now = {
            "differ": {path for path in clean[0] if path in end and path not in timed and end[path] != clean[0][path]},
            "litter": set(end) - set(clean[0]),
            "missing": set(clean[0]) - set(end),
        }
        same += not any(now.values())
        for kind, paths in now.items():
            wrong[kind] |= paths
    found |= {"kills": kills, "trials": trials, "same": same, "not compared": sorted(timed)}
    return found | {kind: sorted(paths) for kind, paths in wrong.items()}


def measure_review(root: Path, least: int, draw: random.Random) -> dict[str, object]:
    """Kill servers of one file of reviews while they are sent decisions: what they have answered is there, in order."""
    folder = fresh(root)
    answered: list[int] = []
    found: dict[str, object] = {"kills": least, "trials": 1, "differ": [], "litter": [], "missing": []}
    for _ in range(least):
        process = start(REVIEW, folder)
        address = wait_for(folder.parent / "log.txt")
        killer = threading.Timer(draw.uniform(0.0, 0.5), os.killpg, (process, signal.SIGKILL))
        killer.start()
        written = len((folder / "reviews.jsonl").read_bytes().splitlines())
        while True:
            place = written % 200
            decision = {"reviewer": "me", "place": place, "choice": "keep", "seen": written // 200}
            try:
                ask(address, decision)
            except OSError:
                break
            answered.append(place)
            written += 1
        killer.join()
        os.waitpid(process, 0)
    lines = [json.loads(line) for line in (folder / "reviews.jsonl").read_bytes().splitlines()]
    kept, sent = len(lines), len(answered)
    found["missing"] = [f"{sent - kept} decisions"] if kept < sent else []
    found["differ"] = [f"{kept - sent} decisions that were not answered"] if kept - sent > least else []
    there = {path.name for path in folder.iterdir()} - {"cache"}
    found["litter"] = sorted(there - {"reviews.jsonl", ".reviews.jsonl.lock"})
    return found | {"same": int(not any(found[kind] for kind in ("differ", "litter", "missing"))), "decisions": sent}


def be_in_a_job(root: Path) -> None:
    """Have commands take themselves for a job of Slurm, which notes what its queue is asked and does nothing."""
    scontrol = root / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {root}/asked\n', encoding="utf-8")
    scontrol.chmod(0o755)
    os.environ |= {"SLURM_JOB_ID": "1", "PATH": f"{root}:{os.environ['PATH']}"}


def wait_for(log: Path) -> str:
    """Return the address that a server prints."""
    while not (told := re.search(r"open (http://\S+)/#", log.read_text(encoding="utf-8"))):
        time.sleep(0.05)
    return told[1]


def ask(address: str, decision: dict[str, Any]) -> None:
    """Send a decision, which raises an OSError unless it is answered."""
    headers = {"Authorization": "Bearer t", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/decide", json.dumps(decision).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as reply:
        reply.read()


def run() -> None:
    """Print a line a command; exit with 1 if one ended otherwise than unharmed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", help=f"of {', '.join(COMMANDS)}, review (default all)")
    parser.add_argument("--kills", type=int, default=5, help="the least kills of each command (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    signals = ("KILL", "TERM", "INT", "USR1")
    parser.add_argument("--signal", default="KILL", choices=signals, help="what is sent (default KILL)")
    parser.add_argument("--out", type=Path, help="a JSON file, written after each command")
    given = parser.parse_args()
    draw, sound, number = random.Random(given.seed), True, signal.Signals[f"SIG{given.signal}"]
    results: dict[str, Any] = {**origin(torch), "signal": given.signal, "seed": given.seed, "commands": {}}
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        root = Path(name)
        base = root / "base"
        base.mkdir()
        if given.signal == "USR1":
            be_in_a_job(root)
        for folder, words in SETUP.items():
            finish([*words, f"hydra.run.dir={folder}"], base)
        rows = [{"prompt": f"{number} + 2?", "chosen": f"{number + 2}", "rejected": "no"} for number in range(200)]
        (base / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        annotated = [VOTERS.replace("../base/", ""), "data=jsonl", "data.file=pairs.jsonl", "out=strength.parquet"]
        finish(["annotate", *annotated], base)
        for command in given.commands or [*COMMANDS, "review"]:
            if command == "review":
                found = measure_review(root, given.kills, draw)
            else:
                found = measure(command, root, given.kills, draw, number)
            sound &= found["same"] == found["trials"]
            print(f"{command}: {json.dumps(found)}", flush=True)
            results["commands"][command] = found
            if given.out is not None:
                given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if sound else 1)


if __name__ == "__main__":
    run()
