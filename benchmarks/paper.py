"""The paper in one command: every experiment on made worlds, and one page of what holds here.

    python -m benchmarks.paper out=runs/paper size=small

Voters and their strengths (Figs 1 to 3), each decile alone (4, 5), the strongest alone (6), the recipes (7, 8), growing
parts (21, 22), the contrasts (11), MetaRM over rounds and, beyond the paper, the shift that a reward model makes.
Every claim is held against the paper's: what it says, what came out here with its interval over worlds, whether it
holds, does not hold, or cannot be told, the figure beside the paper's numbers. OUT/paper.html and OUT/paper.md are the
page, OUT/paper.json has the numbers. A stopped command goes on where it was when it is given again; the page can be had
at any time.

    size=small|full    small is minutes on two cores, full hours; `paper_parts/sizes.py` has the numbers
    out=FOLDER         where models, figures and the page are kept, runs/paper if it is left out
    start=FOLDER       an SFT model to begin from; without it one is trained
    jobs=2             processes, one world each at a time; at the end they share what is left
    only=page          write the page of what is done, and train nothing

This file starts the processes and knows nothing of what they measure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULTS = {"out": "runs/paper", "size": "small", "start": "", "jobs": "2", "only": ""}
SFT_PAIRS = {"test": 64, "small": 6000, "full": 24000}


def told(words: Sequence[str]) -> dict[str, str]:
    """The settings that a command line names.

    Raises:
        ValueError: for a word that is no setting, or a value that it does not have.
    """
    given = dict(DEFAULTS)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in DEFAULTS:
            raise ValueError(f"{word!r} is not a setting; write {', '.join(f'{name}=...' for name in DEFAULTS)}")
        given[name] = value
    if given["size"] not in SFT_PAIRS:
        raise ValueError(f"size={given['size']}; choose one of {', '.join(SFT_PAIRS)}")
    if not given["jobs"].isdecimal() or int(given["jobs"]) < 1:
        raise ValueError(f"jobs={given['jobs']}; give the number of processes, 1 or more")
    if given["only"] not in ("", "page"):
        raise ValueError(f"only={given['only']}; page is the one part that can be had alone")
    return given


def started(module: str, *words: str) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    settings = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.Popen([sys.executable, "-m", module, *words], env=os.environ | settings)


def ended(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for all; if one fails, or Ctrl-C comes, none is left behind.

    Raises:
        SystemExit: with the exit code of the first that failed.
    """
    try:
        codes = [process.wait() for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if any(codes):
        raise SystemExit(next(code for code in codes if code))


def trained(folder: Path, size: str) -> str:
    """The SFT model of the run, by the train command; one that is there is not trained again."""
    run = folder / "sft"
    start = run / "model" / "last"
    if not (start / "config.json").exists():
        sets = ("data.module.val=null", "data.module.test=null", "data.val_fraction=0")
        where = (f"data.num_pairs={SFT_PAIRS[size]}", f"hydra.run.dir={run}", "logger=none", "resume=auto")
        ended([started("lightning_rm.commands.main", "train", "experiment=sft", *sets, *where)])
    return str(start)


def claimed(folder: Path, size: str) -> None:
    """Write down of which size a folder is, before anything else is in it.

    Raises:
        ValueError: if it is of another: what is done there would be taken for what is asked for.
    """
    file = folder / "size"
    before = file.read_text(encoding="utf-8").strip() if file.exists() else size
    if before != size:
        raise ValueError(f"out={folder} is a run of size={before}; give size={before}, or another folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(size + "\n", encoding="utf-8")


def main(words: Sequence[str]) -> None:
    try:
        given = told(words)
        folder, size = Path(given["out"]), given["size"]
        claimed(folder, size)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    common = ("--out", str(folder), "--size", size)
    if not given["only"]:
        start = given["start"] or trained(folder, size)
        num = int(given["jobs"])
        places = [("--place", str(place), "--num", str(num)) for place in range(num)]
        ended([started("paper_parts", "work", *common, "--start", start, *place) for place in places])
    ended([started("paper_parts", "page", *common)])


if __name__ == "__main__":
    if {"-h", "--help"} & {*sys.argv[1:]}:
        print(__doc__)
        raise SystemExit(0)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # `ended` ends the processes on the way out
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        print("stopped: what is done is kept, and the same command goes on", file=sys.stderr)
        raise SystemExit(130) from None
