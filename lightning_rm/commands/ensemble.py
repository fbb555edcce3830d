"""`lightning-rm ensemble`: what the same voters give for free: ensembles as reward, and WARM's average as one model."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import hydra
import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from lightning_rm.analysis.tables import results_table
from lightning_rm.annotation.voters import Voter, check_voters
from lightning_rm.annotation.votes import Votes, collect_votes, remove_parts
from lightning_rm.commands._config import conf_dir, plain_errors, require_all
from lightning_rm.commands.annotate import find_policy, find_voters
from lightning_rm.data.rows import Source
from lightning_rm.metrics import Sums, pair_statistics, summarize
from lightning_rm.models.aggregate import Aggregate, aggregate
from lightning_rm.models.warm import average_weights, check_average, weight_cosine

AGGREGATES: tuple[Aggregate, ...] = ("mean", "median", "worst", "mean_minus_variance")


def ensemble(cfg: DictConfig) -> dict[str, dict[str, float]]:
    """Measure voters alone, their ensembles and their weight average on test sets; export the average.

    Args:
        cfg: `conf/ensemble.yaml`, composed.

    Returns:
        `SET/NAME` -> metric -> value.
    """
    require_all(cfg)
    out = Path(cfg.out)
    voters = find_voters(cfg.voters, cfg.weights)
    check_voters(voters)
    tokenizer = voters[0].tokenizer()
    members = [voter.load(tokenizer) for voter in voters]
    cosine = weight_cosine(members)
    average_weights(members).save_pretrained(out / "warm", tokenizer)
    warm = Voter("WARM", out / "warm")
    policy = find_policy(cfg)
    fabric = L.Fabric(accelerator=cfg.accelerator, devices=1)
    results: dict[str, dict[str, float]] = {}
    names: set[str] = set()
    console = Console()
    for name, source in _sets(cfg).items():
        votes = collect_votes(
            source,
            [*voters, warm],
            out / "parts",
            policy,
            fabric=fabric,
            cache_dir=cfg.data.cache_dir,
            layout=cfg.layout.layout,
        )
        rows = measured(votes, len(voters), cfg.lam)
        results |= {f"{name}/{row}": metrics for row, metrics in rows.items()}
        names |= set(votes.voters) - {warm.name}
        alone = [rows[voter]["accuracy"] for voter in votes.voters if voter != warm.name]
        check = check_average(rows[warm.name]["accuracy"], alone)
        verdict = "at least" if check.holds else "BELOW"
        console.print(
            f"{name}: voters alone {check.mean:.3f} ({check.lowest:.3f} to {check.highest:.3f}), WARM "
            f"{check.average:.3f}, {verdict} their mean",
            highlight=False,
        )
        if not check.holds:
            console.print("these voters are not linearly connected (one head? one start?): do not use the average")
    remove_parts(out / "parts")
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    shown = {key: metrics for key, metrics in results.items() if key.partition("/")[2] not in names}
    console.print(results_table(shown, f"{len(names)} voters as one: ensembles, and the average of their weights"))
    console.print(f"mean cosine between voters' weights: backbone {cosine.backbone:.3f}, head {cosine.head:.3f}")
    console.print(f"  {out / 'warm'}\n  {out / 'results.json'}", highlight=False, soft_wrap=True)
    return results


def measured(votes: Votes, num_voters: int, lam: float) -> dict[str, dict[str, float]]:
    """Metrics of every voter, of the ensembles of the first `num_voters`, and of whatever else voted.

    A voter's rewards are centred on its own mean first: Bradley-Terry rewards have no zero, and between voters worst
    case and variance would measure their offsets.
    """
    rewards = torch.from_numpy(np.stack([votes.chosen, votes.rejected])).transpose(1, 2)  # (2, M, P)
    rewards = rewards - rewards.mean((0, 2), keepdim=True)
    named = {name: rewards[:, place] for place, name in enumerate(votes.voters)}
    named |= {how.replace("_", " "): aggregate(rewards[:, :num_voters], how, lam) for how in AGGREGATES}
    columns = votes.pairs.columns(range(len(votes.pairs)))

    def metrics(reward: Tensor) -> dict[str, float]:
        sums = pair_statistics(reward[0], reward[1], columns["label"], columns["clean"], columns["length"])
        return {name: float(value) for name, value in summarize(Sums(*(field.sum(0) for field in sums))).items()}

    return {name: metrics(reward) for name, reward in named.items()}


def _sets(cfg: DictConfig) -> dict[str, Source]:
    """The data's test sets by name, or its validation sets where it has none."""
    for stage in ("test", "val"):
        if cfg.data.module.get(stage) is not None:
            found = instantiate(cfg.data.module[stage], _convert_="all")
            if found is not None:
                return found if isinstance(found, dict) else {stage: found}
    raise ValueError("the data has no test and no val set to measure on; give data.test_file")


@hydra.main(version_base="1.3", config_path=conf_dir(), config_name="ensemble")
def main(cfg: DictConfig) -> None:
    """The Hydra entry point."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with plain_errors():
        ensemble(cfg)


if __name__ == "__main__":
    main()
