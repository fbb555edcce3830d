"""Scoring conversations beside a plain loop of transformers, and what `score` costs beyond its forwards, in one run.

    OMP_NUM_THREADS=1 python benchmarks/scoring.py --out benchmarks/results/scoring.json
    OMP_NUM_THREADS=1 python benchmarks/scoring.py --encoder --out benchmarks/results/scoring_encoder.json

Three contenders start from the same weights and conversations. `transformers` renders and tokenises them, sorts them by
length, pads neighbours to a batch and calls its own classifier; the size of its batch is the best of those named here,
found in this run. `score` is ours, as a notebook calls it. `forwards` is what `score` cannot do without: its token
batches, laid out beforehand, through the model. They take turns, so that a machine busy with other things disturbs all
alike; times are of processor, ratios of medians, and quartiles of ratios over the rounds. Rewards must agree.

Tokens are what is computed: cells of the padded grids, and distinct tokens of ours. Lengths of the groups of six are
RM-Bench's (chat): a prompt of about 20 tokens and for each of three styles two responses, of about 41, 410 and 480.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import backbone, origin, quartiles, rotated
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from lightning_rm import score
from lightning_rm.batch import Sample, TokenBatch
from lightning_rm.data.batches.choice import choose_layout
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.rows import Message
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.synthetic.words import VOCABULARY
from lightning_rm.data.tokenize.encoding import encode_texts
from lightning_rm.data.tokenize.templates import render
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring.batches import batches_of
from lightning_rm.scoring.engine import batch_budget

SEED, TOLERANCE = 0, 1e-4
ROWS = (4, 16, 64)
TARGETS = {"time_of_tokens": 0.9, "score_of_forwards": 1.1}
FASTER = {"best of 16": 5.0, "best of 16, short": 5.0, "singles": 1.0}
"""How many times transformers' speed a case must reach at least; of sixteen where a prompt can be shared."""

Conversation = tuple[Message, Message]
Words = Callable[[float, float], str]


def cases(small: int) -> dict[str, list[Conversation]]:
    """Conversations of each case, of words drawn with one seed; `small` divides their number."""
    draw = random.Random(SEED)
    words = [word for word in VOCABULARY if word.isalpha() and len(word) > 1]

    def some(low: float, high: float) -> str:
        return " ".join(draw.choices(words, k=round(draw.uniform(low, high))))

    def groups(num: int, prompt: tuple[float, float], responses: Sequence[tuple[float, float]]) -> list[Conversation]:
        return [
            (Message(role="user", content=question), Message(role="assistant", content=some(*lengths)))
            for _ in range(max(num // small, 1))
            for question in [some(*prompt)]
            for lengths in responses
        ]

    styles = ((28, 60), (310, 460), (400, 470))
    return {
        "groups of six": groups(12, (10, 35), [lengths for lengths in styles for _ in range(2)]),
        "best of 4": groups(24, (30, 100), [(40, 200)] * 4),
        "best of 16": groups(8, (200, 200), [(10, 70)] * 16),
        "best of 16, short": groups(8, (200, 200), [(10, 30)] * 16),
        "singles": groups(96, (20, 120), [(20, 240)]),
    }


def build(arguments: argparse.Namespace) -> tuple[RewardModel, PreTrainedTokenizerBase]:
    """A folder's model, its head drawn if it has none, or one of random weights."""
    if arguments.model:
        tokenizer = load_tokenizer(arguments.model)
        return RewardModel.from_pretrained(arguments.model, tokenizer=tokenizer, new_head=True).eval(), tokenizer
    layers, width = arguments.layers or (6 if arguments.encoder else 4), 384 if arguments.encoder else 256
    config = backbone(layers, arguments.width or width, encoder=arguments.encoder)
    tokenizer = world_tokenizer()
    return RewardModel.from_config(config, tokenizer=tokenizer, seed=SEED).eval(), tokenizer


@torch.inference_mode()
def by_transformers(model: Any, tokenizer: PreTrainedTokenizerBase, told: Sequence[Conversation], rows: int) -> Tensor:
    """Rewards of transformers' classifier, on padded rows of neighbours in length."""
    conversations: Any = [list(messages) for messages in told]
    texts: Any = tokenizer.apply_chat_template(conversations, tokenize=False)
    sequences: Any = tokenizer(texts, add_special_tokens=False)["input_ids"]
    order = sorted(range(len(sequences)), key=lambda number: -len(sequences[number]))
    rewards = torch.empty(len(sequences))
    for start in range(0, len(order), rows):
        numbers = order[start : start + rows]
        batch: Any = tokenizer.pad({"input_ids": [sequences[number] for number in numbers]}, return_tensors="pt")
        rewards[numbers] = model(**batch).logits[:, 0]
    return rewards


@torch.inference_mode()
def forwards(model: RewardModel, batches: Sequence[tuple[list[int], TokenBatch]], num: int) -> Tensor:
    """Rewards of batches that are laid out already."""
    rewards = torch.empty(num)
    for numbers, tokens in batches:
        rewards[numbers] = model(tokens).reward[0]
    return rewards


def encoded(tokenizer: PreTrainedTokenizerBase, told: Sequence[Conversation]) -> list[list[int]]:
    return encode_texts(tokenizer, [render(tokenizer, messages) for messages in told])


def laid_out(model: RewardModel, sequences: Sequence[Sequence[int]]) -> list[tuple[list[int], TokenBatch]]:
    """The token batches that `score` makes of distinct sequences."""
    layout = choose_layout("auto", model.fast_layouts).layout
    tuples = [tuple(sequence) for sequence in sequences]
    assert len(set(tuples)) == len(tuples), "conversations repeat: forwards alone would do more than score"
    return [
        (numbers, LAYOUTS[layout]([Sample([tuples[number]]) for number in numbers], model.read_at, model.pad_id))
        for numbers in batches_of(tuples, layout, batch_budget(model, None))
    ]


def padded_cells(sequences: Sequence[Sequence[int]], rows: int) -> int:
    """Cells of the grids of neighbours in length."""
    lengths = sorted((len(sequence) for sequence in sequences), reverse=True)
    return sum(lengths[start] * len(lengths[start : start + rows]) for start in range(0, len(lengths), rows))


def timed(contenders: dict[str, Callable[[], Tensor]], rounds: int) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """Seconds of processor of each contender in each round, after one that is not timed; and its rewards."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    rewards: dict[str, Tensor] = {}
    for turn in range(rounds + 1):
        for name in rotated(list(contenders), turn):
            start = time.process_time()
            rewards[name] = contenders[name]()
            if turn:
                seconds[name].append(time.process_time() - start)
    return seconds, rewards


def measure(
    model: RewardModel, classifier: Any, tokenizer: PreTrainedTokenizerBase, told: list[Conversation], rounds: int
) -> dict[str, Any]:
    """One case."""
    sequences = encoded(tokenizer, told)
    batches = laid_out(model, sequences)
    conversations: Any = told
    theirs = {rows: (lambda rows=rows: by_transformers(classifier, tokenizer, told, rows)) for rows in ROWS}
    tried, _ = timed({str(rows): call for rows, call in theirs.items()}, 1)
    rows = min(ROWS, key=lambda rows: tried[str(rows)][0])
    seconds, rewards = timed(
        {
            "transformers": theirs[rows],
            "score": lambda: score(model, tokenizer, conversations),
            "forwards": lambda: forwards(model, batches, len(told)),
        },
        rounds,
    )
    largest = max(float((rewards[name] - rewards["transformers"]).abs().max()) for name in rewards)
    if largest > TOLERANCE:
        raise RuntimeError(f"rewards differ by {largest}: not the same model or texts")
    plain, ours, alone = (np.array(seconds[name]) for name in ("transformers", "score", "forwards"))
    cells, tokens = padded_cells(sequences, rows), sum(batch.num_tokens for _, batch in batches)
    ratios = {"tokens": cells / tokens, "time": float(np.median(plain) / np.median(ours))}
    return {
        "conversations": len(told),
        "rows_of_a_padded_batch": rows,
        "tokens": {"transformers": cells, "score": tokens},
        "seconds": {name: quartiles(taken) for name, taken in seconds.items()},
        "times_transformers": {name: round(value, 3) for name, value in ratios.items()},
        "times_transformers_quartiles": quartiles(plain / ours),
        "time_of_tokens": round(ratios["time"] / ratios["tokens"], 3),
        "score_of_forwards": round(float(np.median(ours) / np.median(alone)), 3),
        "score_of_forwards_quartiles": quartiles(ours / alone),
        "largest_difference": largest,
    }


def missed(name: str, found: dict[str, Any], shares: bool) -> list[str]:
    """The targets that a case does not meet."""
    times = found["times_transformers"]["time"]
    faster = FASTER.get(name, 0) if shares or name == "singles" else 0
    checks = {
        f"time at least {TARGETS['time_of_tokens']} of tokens": found["time_of_tokens"] >= TARGETS["time_of_tokens"],
        f"score at most {TARGETS['score_of_forwards']} of its forwards": found["score_of_forwards"]
        <= TARGETS["score_of_forwards"],
        f"at least {faster} times transformers": times >= faster,
    }
    return [check for check, met in checks.items() if not met]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or hub name; none for random weights")
    parser.add_argument("--encoder", action="store_true", help="a BERT of MiniLM's shape; else a Llama")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--cases", nargs="+", help="some of them")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", type=int, default=1, help="divides the number of conversations")
    parser.add_argument("--profile", metavar="CASE", help="print where the time of a case's `score` goes, and end")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model, tokenizer = build(arguments)
    made = cases(arguments.small)
    if arguments.profile:
        profiled(model, tokenizer, made[arguments.profile])
        return
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, tokenizer)
        classifier: Any = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="sdpa").eval()
    table: dict[str, Any] = {}
    for name in arguments.cases or made:
        found = measure(model, classifier, tokenizer, made[name], arguments.rounds)
        table[name] = {**found, "missed": missed(name, found, shares="shared_prefix" in model.fast_layouts)}
        print(
            f"{name:17} {found['times_transformers']['time']:6.2f} times transformers, tokens "
            f"{found['times_transformers']['tokens']:5.2f}; score {found['score_of_forwards']:.3f} of its forwards"
            f"{''.join(f'; missed: {check}' for check in table[name]['missed'])}",
            flush=True,
        )
    results = {
        **origin(torch, transformers),
        "model": str(model.backbone.config.model_type),
        "layers": int(model.backbone.config.num_hidden_layers),
        "width": model.hidden_size,
        "rounds": arguments.rounds,
        "seed": SEED,
        "targets": {**TARGETS, "times_transformers": FASTER},
        "cases": table,
    }
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def profiled(model: RewardModel, tokenizer: PreTrainedTokenizerBase, told: list[Conversation]) -> None:
    """The functions of python that take most time in one call of `score`, its first call aside."""
    import cProfile
    import pstats

    conversations: Any = told
    score(model, tokenizer, conversations)
    with cProfile.Profile() as profile:
        score(model, tokenizer, conversations)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


if __name__ == "__main__":
    main()
