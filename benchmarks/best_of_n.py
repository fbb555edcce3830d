"""Sixteen responses to one prompt of 200 tokens, scored on every layout, in one run.

    OMP_NUM_THREADS=1 python benchmarks/best_of_n.py --out benchmarks/results/best_of_n.json

Layouts take turns, so that a machine busy with other things disturbs all alike. Times are of processor on a CPU and of
the clock on a GPU; ratios are of medians, their quartiles over the rounds. Every layout must give the same rewards.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import backbone, origin, rotated

from lightning_rm.batch import Sample
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.reward_model import RewardModel

SEED, VOCABULARY, TARGET = 0, 8000, 5.0


def build(arguments: argparse.Namespace) -> RewardModel:
    """A folder's model, or a Llama of random weights."""
    if arguments.model:
        model = RewardModel.from_pretrained(arguments.model, gguf_file=arguments.gguf, pad_id=arguments.pad_id)
    else:
        config = backbone(arguments.layers, arguments.width)
        model = RewardModel.from_config(config, vocab_size=VOCABULARY, pad_id=0, seed=SEED)
    return model.to(arguments.device).eval()


def groups(arguments: argparse.Namespace, vocabulary: int) -> list[Sample]:
    """Prompts of random tokens, each with k responses of 10 tokens to twice their mean less 10."""
    draw = random.Random(SEED)

    def tokens(number: int) -> list[int]:
        return [draw.randrange(3, vocabulary) for _ in range(number)]

    made: list[Sample] = []
    for _ in range(arguments.prompts):
        prompt = tokens(arguments.prompt_tokens)
        lengths = [draw.randint(10, 2 * arguments.response_tokens - 10) for _ in range(arguments.k)]
        made.append(Sample([prompt + tokens(length) for length in lengths], len(prompt)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or hub name of a decoder; none for a Llama of random weights")
    parser.add_argument("--gguf", help="a GGUF file in that folder")
    parser.add_argument("--pad-id", type=int)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=4, help="scored in one forward")
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--response-tokens", type=int, default=40, help="on average")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/best_of_n.json"))
    arguments = parser.parse_args()
    model = build(arguments)
    samples = groups(arguments, int(model.backbone.config.vocab_size))
    grids = {name: layout(samples, "last", model.pad_id).to(arguments.device) for name, layout in LAYOUTS.items()}
    clock = time.process_time if arguments.device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in grids}
    rewards: dict[str, torch.Tensor] = {}
    names = list(grids)
    with torch.inference_mode():
        for turn in range(arguments.rounds + 1):  # the first is not timed
            for name in rotated(names, turn):
                start = clock()
                rewards[name] = model(grids[name]).reward.cpu()
                if turn:
                    seconds[name].append(clock() - start)
    table: dict[str, Any] = {}
    for name, taken in seconds.items():
        low, high = np.quantile(np.array(seconds["padded"]) / np.array(taken), (0.25, 0.75))
        table[name] = {
            "tokens": grids[name].num_tokens,
            "seconds": round(float(np.median(taken)), 4),
            "times_padded": round(float(np.median(seconds["padded"]) / np.median(taken)), 2),
            "quartiles": [round(float(low), 2), round(float(high), 2)],
            "largest_difference_of_rewards": float((rewards[name] - rewards["padded"]).abs().max()),
        }
        print("{name:14}{tokens:8} tokens {seconds:9.3f} s {times_padded:6.2f}x".format(name=name, **table[name]))
    print(f"target: shared_prefix {TARGET} times padded")
    results = {
        **origin(torch, transformers, gpu=arguments.device != "cpu"),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "target": TARGET,
        "layouts": table,
    }
    arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
