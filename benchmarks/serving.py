"""How many rewards a second the server gives to many clients, beside scoring the same texts offline.

    OMP_NUM_THREADS=1 python benchmarks/serving.py --out benchmarks/results/serving.json

One process has the model. It scores all texts in one call of `score_sequences`, tokenising them first, and it serves
them over HTTP to clients in another process, each of which sends one text a request and waits for its answer before the
next. Both take turns, a round each, so that a machine busy with other things disturbs both alike; a round of either is
not counted first. The ratio is of the medians over rounds, its quartiles are of the ratios of each round. Every answer
is compared with the reward that its text has offline: one that is lost or another's would end the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fastapi
import numpy as np
import torch
import transformers
import uvicorn
from common import backbone, origin

from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.encoding import encode_texts
from lightning_rm.data.tokenize.templates import render
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.serving.serve import ServeOptions, reward_app
from lightning_rm.serving.server import background_server

SEED, TARGET, TOLERANCE = 0, 0.8, 1e-4


def texts_of(num: int, turns: int) -> list[str]:
    """Distinct conversations of so many questions and answers each, as the chat template writes them."""
    tokenizer = world_tokenizer()
    rows = [row for row in SyntheticSource(3 * num * turns, split="test") if len(row.prompt) == 1]
    draw = random.Random(SEED)
    texts: dict[str, None] = {}
    while len(texts) < num:
        picked = draw.sample(rows, draw.randint(1, 2 * turns - 1))
        texts[render(tokenizer, [turn for row in picked for turn in (*row.prompt, *row.chosen)])] = None
    return list(texts)


def child(pipe: Connection, texts: list[str], config: dict[str, Any], batch_tokens: int) -> None:
    """The process with the model: answers `offline` with seconds and rewards, and serves meanwhile."""
    tokenizer = world_tokenizer()
    model = RewardModel.from_config(config, tokenizer=tokenizer).eval()
    app = reward_app(model, tokenizer, ServeOptions(batch_tokens=batch_tokens, max_items=len(texts)))
    with background_server(app) as url:
        pipe.send((url, sum(map(len, encode_texts(tokenizer, texts)))))
        while pipe.recv() == "offline":
            begun = time.perf_counter()
            rewards = score_sequences(model, encode_texts(tokenizer, texts), batch_tokens=batch_tokens)
            pipe.send((time.perf_counter() - begun, rewards[:, 0].tolist()))


async def client(url: str, texts: list[tuple[int, str]], rewards: dict[int, float]) -> None:
    """One client on one connection: asks for the reward of each text in turn."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for number, text in texts:
        body = json.dumps({"input": text, "use_activation": False}).encode()
        head = f"POST /classify HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(answer.partition("content-length:")[2].partition("\r\n")[0])
        told = json.loads(await reader.readexactly(length))
        if " 200 " not in answer.partition("\r\n")[0]:
            raise RuntimeError(f"text {number}: {told}")
        rewards[number] = told["data"][0]["probs"][0]
    writer.close()


def served(url: str, texts: list[str], num_clients: int) -> tuple[float, list[float]]:
    """Seconds until every text has its reward, and the rewards."""
    rewards: dict[int, float] = {}
    numbered = list(enumerate(texts))

    async def all_clients() -> None:
        await asyncio.gather(*(client(url, numbered[place::num_clients], rewards) for place in range(num_clients)))

    begun = time.perf_counter()
    asyncio.run(all_clients())
    return time.perf_counter() - begun, [rewards[place] for place in range(len(texts))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 32, 200])
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--turns", type=int, default=3, help="questions and answers of a text, in the mean")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--encoder", action="store_true")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    texts = texts_of(options.texts, options.turns)
    config = backbone(options.layers, options.width, encoder=options.encoder)
    context = multiprocessing.get_context("spawn")
    pipe, end = context.Pipe()
    process = context.Process(target=child, args=(end, texts, config, options.batch_tokens))
    process.start()
    url, num_tokens = pipe.recv()
    seconds: dict[str, list[float]] = {}
    differences: list[float] = []
    for round_number in range(options.rounds + 1):
        pipe.send("offline")
        taken, expected = pipe.recv()
        times = {"offline": taken}
        for num_clients in options.clients:
            times[f"{num_clients} clients"], rewards = served(url, texts, num_clients)
            differences.append(float(np.abs(np.array(rewards) - np.array(expected)).max()))
            if differences[-1] > TOLERANCE:
                raise RuntimeError(f"a reward differs by {differences[-1]} from its text's: answers are mixed up")
        if round_number:
            for name, value in times.items():
                seconds.setdefault(name, []).append(value)
        print(round_number, {name: round(value, 2) for name, value in times.items()}, flush=True)
    pipe.send("end")
    process.join()
    rows = {
        name: {
            "texts_per_second": options.texts / float(np.median(values)),
            "of_offline": float(np.median(seconds["offline"]) / np.median(values)),
            "of_offline_quartiles": np.quantile(np.array(seconds["offline"]) / np.array(values), [0.25, 0.75]).tolist(),
        }
        for name, values in seconds.items()
    }
    result = {
        **origin(torch, transformers, fastapi, uvicorn),
        "model": config,
        "texts": options.texts,
        "tokens_per_text": num_tokens / options.texts,
        "batch_tokens": options.batch_tokens,
        "rounds": options.rounds,
        "throughput": rows,
        "largest_difference_of_a_reward": max(differences),
        "target": {"32 clients of offline": TARGET, "met": rows.get("32 clients", {}).get("of_offline", 0) >= TARGET},
    }
    print(json.dumps(result["throughput"], indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
