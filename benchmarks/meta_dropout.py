"""Whose differences MetaRM's J rewards under dropout: the share of pairs whose order the masks leave as it is without.

    python benchmarks/meta_dropout.py 'runs/meta/drop_false/*'

J is a sum over pairs of responses to one prompt of sigmoid(|r_i - r_j|): the sign of r_i - r_j decides which of the two
rewards the ascent raises. Here it is compared with the sign in evaluation mode, over response groups that the run
trained on, in two ways: every response under masks of its own, as a batch has them, and one mask for a whole group,
each response computed alone from the same random numbers. Without dropout the share is 1.
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable
from glob import glob
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from common import origin
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from lightning_rm.batch import GroupBatch, TokenBatch
from lightning_rm.models.dropout import DropoutAt, add_dropout
from lightning_rm.models.reward_model import RewardModel

PLACES: dict[str, tuple[float, DropoutAt | None, float]] = {
    "attention, .1": (0.1, None, 0.0),
    "embeddings, .05": (0.0, "embeddings", 0.05),
    "embeddings, .1": (0.0, "embeddings", 0.1),
    "features, .1": (0.0, "features", 0.1),
}
"""Where something is dropped: the backbone's own probability, the place of ours, and its probability."""


def under_own_masks(model: RewardModel, groups: GroupBatch) -> Tensor:
    """(k, G) rewards in training mode, all in one forward."""
    return model(groups.tokens).reward


def under_one_mask(model: RewardModel, groups: GroupBatch) -> Tensor:
    """(k, G) rewards in training mode, a row of the padded grid at a time, all from the same random numbers."""
    tokens, state = groups.tokens, torch.get_rng_state()
    width = tokens.input_ids.shape[1]
    rewards: list[Tensor] = []
    for place in tokens.reward_index.flatten().tolist():
        row, index = place // width, torch.tensor([[place % width]])
        grid = [part[row : row + 1] for part in (tokens.input_ids, tokens.position_ids, tokens.mask)]
        torch.set_rng_state(state)
        rewards.append(model(TokenBatch(*grid, index, torch.zeros_like(grid[2]))).reward.flatten())
    return torch.cat(rewards).view_as(tokens.reward_index)


WAYS: dict[str, Callable[[RewardModel, GroupBatch], Tensor]] = {
    "masks of their own": under_own_masks,
    "one mask a group": under_one_mask,
}


@torch.no_grad()
def measure(run: Path, num_batches: int, num_draws: int) -> dict[str, dict[str, float]]:
    """Place of the dropout -> way -> the share of pairs of responses whose sign is that of evaluation."""
    cfg = OmegaConf.load(run / "config.yaml")
    tokenizer = instantiate(cfg.backbone.tokenizer)
    found: dict[str, dict[str, float]] = {}
    for place, (dropout, at, probability) in PLACES.items():
        model = RewardModel.from_pretrained(run / "model" / "last", tokenizer=tokenizer, dropout=dropout)
        add_dropout(model, at, probability)
        data = instantiate(cfg.data.module, _partial_=True)(tokenizer=tokenizer, reading=model.reading, layout="padded")
        data.setup("fit")
        batches = list(islice(chain.from_iterable(batch.responses for batch in data.train_dataloader()), num_batches))
        torch.manual_seed(0)
        shares: dict[str, list[Tensor]] = {way: [] for way in WAYS}
        for groups in batches:
            signs = _signs(model.eval()(groups.tokens).reward)
            counted = (groups.present[:, None] & groups.present[None, :])[*np.triu_indices(len(signs), 1)]
            signs = _upper(signs)
            counted &= signs != 0
            model.train()
            for way, rewards in WAYS.items():
                for _ in range(num_draws):
                    shares[way].append((_upper(_signs(rewards(model, groups))) == signs)[counted].double())
        found[place] = {way: float(torch.cat(values).mean()) for way, values in shares.items()}
    return found


def _signs(reward: Tensor) -> Tensor:
    return (reward[:, None] - reward[None, :]).sign()


def _upper(pairs: Tensor) -> Tensor:
    return pairs[*np.triu_indices(len(pairs), 1)]


def main() -> None:
    """Print a table over the runs, and write it where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", help="a glob of runs with a MetaRM")
    parser.add_argument("--batches", type=int, default=40, help="batches of groups of each run (default 40)")
    parser.add_argument("--draws", type=int, default=4, help="draws of masks for each (default 4)")
    parser.add_argument("--out", help="a JSON file")
    given = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    runs = sorted(glob(given.runs))
    found = {run: measure(Path(run), given.batches, given.draws) for run in runs}
    shares = {place: {way: [found[run][place][way] for run in runs] for way in WAYS} for place in PLACES}
    for place, ways in shares.items():
        cells = (f"{way} {np.mean(values):.3f} ± {np.std(values):.3f}" for way, values in ways.items())
        print(f"{place}: {'; '.join(cells)} ({len(runs)} runs)")
    if given.out:
        Path(given.out).write_text(
            json.dumps({**origin(torch), "sign kept": shares}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
