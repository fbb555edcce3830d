"""Part 4: responses a second of scoring, and what a step of each method costs beside the baseline's.

Best of 16: prompts of 500 tokens with sixteen responses each of HH-RLHF's lengths, weights in bfloat16; `transformers`
is its own classifier with SDPA on padded rows of neighbours in length. Ten members: HH-RLHF's pairs at 1,024 tokens,
votes of ten on one backbone beside one model alone, whose ten runs would take ten times as long. Timed is a pass from
token ids to rewards on the host, laying out and copying with it; of each contender the median of five, in turns.

Steps of MetaRM, SimCSE and SwAV are Lightning's, as in part 3, on `shared_prefix`; MetaRM's groups are as many
sequences as the pairs. The baseline comes first and last, and is the mean of both.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import lightning as L
import numpy as np
import torch
import transformers
from common import rotated
from torch import Tensor
from torch.utils.data import DataLoader
from training import LightningMeter, Meter, lightning_trainer

from gpu_parts.models import (
    PAD,
    RESPONSE_TOKENS,
    SEED,
    SHARES,
    batch_of,
    classifier,
    hh_lengths,
    made_samples,
    methods,
    reward_model,
    shape_of,
)
from gpu_parts.run import Run, begun
from lightning_rm.batch import LayoutName, PreferenceBatch, Sample
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel

MODELS = ("Qwen3-0.6B", "Llama-3.2-1B")
K, PROMPT, MEMBERS, ROUNDS, ROWS = 16, 500, 10, 5, 128
METHODS = ("baseline", "meta", "simcse", "swav", "baseline")
ADAMW = partial(torch.optim.AdamW, lr=1e-5, fused=True)

Score = Callable[[], Tensor]
"""A pass over all responses: rewards on the host."""


def main(cases: Path, seconds: float, tiny: bool) -> None:
    measure(begun("scoring_speed", cases, seconds, tiny, transformers, L))


def measure(run: Run) -> None:
    for model in MODELS[:1] if run.tiny else MODELS:
        best_of_n(run, model)
    members(run, MODELS[0])
    steps(run, MODELS[0])


def best_of_n(run: Run, name: str) -> None:
    """Every layout, and transformers."""
    config = shape_of(name, run.tiny)
    draw = random.Random(SEED)
    num_prompts, prompt, most, dtype = (1, 30, 20, "float32") if run.tiny else (8, PROMPT, 2**10, "bfloat16")

    def response() -> int:
        return min(round(float(np.interp(draw.random(), SHARES, RESPONSE_TOKENS))), most)

    lengths = [(prompt, *(response() for _ in range(K))) for _ in range(num_prompts)]
    samples = made_samples(lengths, config["vocab_size"])
    model = reward_model(config, run.device, dtype).eval()
    plain = classifier(config, run.device, "sdpa", dtype).eval()
    contenders: dict[str, Score] = {"transformers": partial(by_transformers, plain, samples)}
    contenders |= {layout: partial(by_layout, model, samples, layout) for layout in LAYOUTS}
    in_turns(run, f"best of {K}, {name}", contenders, K * len(samples), beside="transformers", model=name)


def members(run: Run, name: str) -> None:
    """One model, ten heads, and ten with adapters on the last four layers."""
    config = shape_of(name, run.tiny)
    lengths = hh_lengths(4 if run.tiny else 64, 64 if run.tiny else 1024)
    samples = made_samples(lengths, config["vocab_size"])
    num_layers = min(4, len(transformer_layers(reward_model(config, "meta").backbone)))
    made: dict[str, RewardModel] = {"single": reward_model(config, run.device)}
    for title, layers in (("ten heads", 0), ("ten adapters", num_layers)):
        voters = MemberRewardModel.of(reward_model(config, run.device), Members(MEMBERS, lora_layers=layers))
        made[title] = voters.to(run.device)
    contenders = {title: partial(by_layout, model.eval(), samples, "shared_prefix") for title, model in made.items()}
    in_turns(run, f"votes of {MEMBERS}, {name}", contenders, 2 * len(samples), beside="single", model=name)


def in_turns(
    run: Run, title: str, contenders: dict[str, Score], num_responses: int, beside: str, **labels: Any
) -> None:
    """A case for each contender, after all have had their turns."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    rewards: dict[str, Tensor] = {}
    failures: dict[str, BaseException] = {}
    names = list(contenders)
    for turn in range((1 if run.tiny else ROUNDS) + 1):  # the first is not timed
        for name in rotated(names, turn):
            if name in failures or (turn > 1 and run.left < 5):
                continue
            start = time.perf_counter()
            try:
                with torch.inference_mode(), torch.autocast(run.device.type, torch.bfloat16, enabled=run.gpu):
                    rewards[name] = contenders[name]()
            except Exception as error:
                failures[name] = error
                continue
            if turn:
                seconds[name].append(time.perf_counter() - start)

    def found(name: str) -> dict[str, Any]:
        if name in failures:
            raise failures[name]
        values: dict[str, Any] = {"responses_a_second": num_responses / median(seconds[name])}
        if seconds[beside]:
            values[f"to_{beside}"] = median(seconds[beside]) / median(seconds[name])
        if name != beside and rewards[name].shape == rewards[beside].shape:
            values["largest_difference"] = float((rewards[name] - rewards[beside]).abs().max())
        return values

    for name in names:
        run.case(f"{title}, {name}", partial(found, name), contender=name, **labels)


def by_layout(model: RewardModel, samples: Sequence[Sample], layout: LayoutName) -> Tensor:
    """(samples x k, ...) rewards, in batches of as many samples as have `ROWS` sequences."""
    size = max(ROWS // len(samples[0].sequences), 1)
    rewards: list[Tensor] = []
    for start in range(0, len(samples), size):
        tokens = LAYOUTS[layout](samples[start : start + size], model.read_at, PAD)
        rewards.append(model(tokens.to(next(model.parameters()).device)).reward.movedim(-1, 0).flatten(0, 1))
    return torch.cat(rewards).float().cpu()


def by_transformers(model: Any, samples: Sequence[Sample]) -> Tensor:
    """The same rewards of transformers' classifier, on padded rows of neighbours in length."""
    sequences = [list(sequence) for sample in samples for sequence in sample.sequences]
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number]))
    rewards = torch.empty(len(sequences))
    pieces: list[Tensor] = []
    for numbers in chunks(order, ROWS):
        width = len(sequences[numbers[-1]])
        ids = torch.tensor([sequences[number] + [PAD] * (width - len(sequences[number])) for number in numbers])
        mask = torch.tensor(
            [[1] * len(sequences[number]) + [0] * (width - len(sequences[number])) for number in numbers]
        )
        ids, mask = ids.to(model.device), mask.to(model.device)
        pieces.append(model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0])
    rewards[torch.tensor(order)] = torch.cat(pieces).float().cpu()
    return rewards


def chunks(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (order[start : start + size] for start in range(0, len(order), size))


def steps(run: Run, name: str) -> None:
    """A case for each method, after all have run."""
    config = shape_of(name, run.tiny)
    num_pairs, longest, num_steps = (4, 64, 2) if run.tiny else (16, 1024, 6)
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}

    def block(method: str) -> dict[str, Any]:
        make = partial(reward_model, config, run.device)
        module = methods(make, ADAMW, views="embeddings")[method]()
        batches = [prepared(num_pairs, longest, config, seed, module.reads_responses) for seed in range(num_steps)]
        meter = Meter(num_steps, epoch=1)
        trainer = lightning_trainer(run.gpu, [LightningMeter(meter)], max_epochs=2, log_every_n_steps=10**9)
        trainer.fit(module, DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch, pin_memory=run.gpu))
        seconds.setdefault(method, []).append(meter.seconds[1] / num_steps)
        peaks[method] = meter.peak
        del module, trainer
        gc.collect()
        return {"step_ms": 1000 * seconds[method][-1], "peak_gb": meter.peak / 1e9}

    for number, method in enumerate(METHODS):
        run.case(f"{name}, a step of {method}, block {number + 1}", partial(block, method), needs=5)
    for method in METHODS[1:-1]:
        if method in seconds and "baseline" in seconds:
            to_baseline = mean(seconds[method]) / mean(seconds["baseline"])
            peak = peaks[method] / peaks["baseline"] if peaks["baseline"] else None
            values = {"to_baseline": to_baseline} | ({} if peak is None else {"peak_to_baseline": peak})
            run.case(f"{name}, a step of {method} to the baseline's", lambda values=values: values, method=method)


def prepared(num_pairs: int, longest: int, config: dict[str, Any], seed: int, responses: bool) -> PreferenceBatch:
    """Pairs, and half as many groups of four responses, of the same lengths and other tokens."""
    lengths = hh_lengths(num_pairs, longest, seed)
    pairs = made_samples(lengths, config["vocab_size"], seed)
    fours = [(one[0], *one[1:], *two[1:]) for one, two in zip(lengths[::2], lengths[1::2], strict=True)]
    groups = made_samples(fours, config["vocab_size"], seed + 1000) if responses else ()
    return batch_of(pairs, "shared_prefix", groups)
