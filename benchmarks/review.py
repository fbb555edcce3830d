"""What a review of 100,000 pairs costs: memory, the start, the next pair, a page of the list, a search, a decision.

    OMP_NUM_THREADS=1 python benchmarks/review.py --out benchmarks/results/review.json

The pairs are made, each with some kilobytes of text, which is several hundred megabytes of it in all: more than a
server ought to hold. The server runs in a process of its own; times are those of a client on the same machine, one
request after the other, and memory is the most that the server has held, less what it held before it opened the file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import fastapi
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from common import origin, quartiles

from lightning_rm.annotation.files import SCHEMA
from lightning_rm.data.store.pair_rows import CHUNK_ROWS
from lightning_rm.reviewing.app import review_app
from lightning_rm.reviewing.pairs import PairFile
from lightning_rm.reviewing.session import ReviewSession
from lightning_rm.reviewing.store import ReviewStore
from lightning_rm.serving.server import background_server

SEED, TOKEN = 0, "token"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=100, help="requests of a kind")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strength.parquet"
        num_bytes = write_pairs(path, options.pairs)
        here, there = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(path, there))
        server.start()
        url, start_seconds = here.recv()
        times = measure(url, options.times)
        here.send(None)
        mebibytes = here.recv()
        server.join()
    result = {
        **origin(fastapi, uvicorn, pa),
        "pairs": options.pairs,
        "mebibytes_of_text": round(num_bytes / 2**20),
        "mebibytes_of_server": round(mebibytes),
        "seconds_to_start": round(start_seconds, 2),
        "milliseconds": {name: quartiles([1000 * second for second in seconds], 3) for name, seconds in times.items()},
    }
    print(json.dumps(result, indent=2))
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def write_pairs(path: Path, num_pairs: int) -> int:
    """Made pairs with ten votes; the bytes of their texts."""
    rng = np.random.default_rng(SEED)
    words = np.array([f"word{number}" for number in range(5000)])
    total = 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, num_pairs, CHUNK_ROWS):
            rows: list[dict[str, Any]] = []
            for number in range(start, min(start + CHUNK_ROWS, num_pairs)):
                texts = [" ".join(words[rng.integers(0, 5000, rng.integers(50, 500))]) for _ in range(3)]
                total += sum(map(len, texts))
                prompt, chosen, rejected = (
                    [{"role": role, "content": text}]
                    for role, text in zip(("user", "assistant", "assistant"), texts, strict=True)
                )
                votes = rng.normal(0.5, 1, 10)
                rows.append(
                    {
                        "prompt": prompt,
                        "chosen": chosen,
                        "rejected": rejected,
                        "id": f"pair {number}",
                        "subset": f"subset {number % 7}",
                        "strength_mean": votes.mean(),
                        "strength_std": votes.std(),
                        "votes": votes.tolist(),
                    }
                )
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    return total


def serve(path: Path, parent: Connection) -> None:
    """Serve until the parent says so; tell it the address, how long the start took, and the memory."""
    before = _mebibytes()
    start = time.perf_counter()
    session = ReviewSession(PairFile(path), ReviewStore(path.with_suffix(".jsonl")))
    with background_server(review_app(session, TOKEN)) as url:
        parent.send((url, time.perf_counter() - start))
        parent.recv()
    parent.send(_mebibytes() - before)


def measure(url: str, times: int) -> dict[str, list[float]]:
    """Seconds of every request, by kind."""
    found: dict[str, list[float]] = {}

    def asked(kind: str, path: str, body: Any = None, **params: Any) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        start = time.perf_counter()
        request = urllib.request.Request(f"{url}/api/{path}?{urlencode(params)}", data, headers)
        with urllib.request.urlopen(request) as answer:
            told = answer.read()
        found.setdefault(kind, []).append(time.perf_counter() - start)
        return json.loads(told.splitlines()[-1])

    after = -1
    for number in range(times):
        pair = asked("the next pair", "next", reviewer="ada", after=after)["pair"]
        decision = {"reviewer": "ada", "place": pair["place"], "choice": ("keep", "flip")[number % 2], "seen": 0}
        asked("a decision, on the disk", "decide", decision)
        after = pair["place"]
    for number in range(max(times // 20, 1)):
        asked("a page of the list", "list", reviewer="ada", offset=1000 * number, num=20)
        asked("a search, through all texts", "search", query=f"word{4000 + number} word")
    return found


def _mebibytes() -> float:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
