"""`lightning-rm ensemble`: what voters give for free: ensembles as rewards, and WARM's weight average as one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from lightning_rm.annotation.voters import Voter, check_voters
from lightning_rm.annotation.votes import Votes, collect_votes
from lightning_rm.commands._config import plain_console, require_all, say_files
from lightning_rm.commands._data import file_key, find_policy, find_voters, sets_of
from lightning_rm.commands._entry import command
from lightning_rm.commands._folder import check_no_run
from lightning_rm.commands._resume import RESULTS
from lightning_rm.commands._tables import report_table, results_table
from lightning_rm.data.rows import Source
from lightning_rm.data.store.report import DataReport
from lightning_rm.drafts import check_place, write_json
from lightning_rm.metrics.pairs import Sums, pair_statistics, summarize
from lightning_rm.models.backbone.folder import is_members
from lightning_rm.models.ensembles.aggregate import Aggregate, aggregate
from lightning_rm.models.ensembles.warm import average_weights, check_average, weight_cosine
from lightning_rm.modules.measured import EvaluationStage, metric_prefix
from lightning_rm.scoring.parts import remove_parts

AGGREGATES: tuple[Aggregate, ...] = ("mean", "median", "worst", "mean_minus_variance")


def ensemble(cfg: DictConfig) -> dict[str, dict[str, float]]:
    """Measure voters alone, their ensembles and their weight average on test sets; export the average.

    Each member of one backbone counts as a voter; where there are any, there is no average.

    Args:
        cfg: `conf/ensemble.yaml`, composed.

    Returns:
        `SET/NAME` -> metric -> value.

    Raises:
        ValueError: if the voters do not belong together or are one model, there is no set to measure on, or the folder
            holds an ensemble.
    """
    require_all(cfg)
    out = Path(cfg.out)
    check_no_run(cfg.out)
    check_place(out, folder=True)
    if (out / RESULTS).is_file() and not cfg.overwrite:
        raise ValueError(f"out={cfg.out!r} holds an ensemble that was measured; name another, or set overwrite=true")
    # A fold says what a voter may be asked of the data that it was trained on; a test set is new to all of them.
    voters = [replace(voter, fold=None) for voter in find_voters(cfg.voters, cfg.weights)]
    check_voters(voters)
    console = plain_console()
    averages = _averages(voters, out / "warm", console)
    policy = find_policy(cfg)
    fabric = L.Fabric(accelerator=cfg.accelerator, devices=1)
    results: dict[str, dict[str, float]] = {}
    shown: dict[str, dict[str, float]] = {}  # all but single voters, of which there may be many
    alone: Sequence[str] = ()
    reports: dict[str, DataReport] = {}
    for name, source in _sets(cfg).items():
        votes = collect_votes(
            source,
            [*voters, *averages],
            out / "parts",
            policy,
            fabric=fabric,
            cache_dir=cfg.data.cache_dir,
            layout=cfg.layout.layout,
        )
        reports[name] = votes.pairs.report
        alone = votes.voters[: len(votes.voters) - len(averages)]
        rows = measured(votes, len(alone), cfg.lam)
        results |= {f"{name}/{row}": metrics for row, metrics in rows.items()}
        shown |= {f"{name}/{row}": metrics for row, metrics in rows.items() if row not in alone}
        accuracies = [rows[voter]["accuracy"] for voter in alone]
        mean, lowest, highest = float(np.mean(accuracies)), min(accuracies), max(accuracies)
        console.print(f"{name}: voters alone {mean:.3f} ({lowest:.3f} to {highest:.3f})")
        for average in averages:
            check = check_average(rows[average.name]["accuracy"], accuracies)
            verdict = "at least" if check.holds else "BELOW"
            console.print(f"{name}: WARM {check.average:.3f}, {verdict} the mean of the voters")
            if not check.holds:
                console.print("these voters are not linearly connected (one head? one start?): do not use the average")
    remove_parts(out / "parts")
    write_json(out / RESULTS, results)
    console.print(report_table(reports))
    title = f"{len(alone)} voters as one: ensembles" + (", and the average of their weights" if averages else "")
    console.print(results_table(shown, title))
    say_files(console, *(average.folder for average in averages), out / RESULTS)
    return results


def measured(votes: Votes, num_voters: int, lam: float) -> dict[str, dict[str, float]]:
    """Return the metrics of every voter, of ensembles of the first `num_voters`, and of everything else that voted.

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


def _averages(voters: Sequence[Voter], folder: Path, console: Console) -> list[Voter]:
    """Return WARM's average as one more voter, exported; none where voters are members of one backbone, or differ in
    size or settings: ensembles of rewards need nothing of their weights.
    """
    if members := [voter.name for voter in voters if is_members(voter.folder)]:
        console.print(
            f"no WARM: the members of {', '.join(members)} have one backbone and no weights of their own to average; "
            "train voters one by one for it (experiment=vote)",
            soft_wrap=True,
        )
        return []
    if len(voters) < 2:
        raise ValueError(f"voters: {voters[0].name} is one model, and no ensemble; name several, or a run of members")
    tokenizer = voters[0].tokenizer()
    models = [voter.load(tokenizer) for voter in voters]
    try:
        cosine = weight_cosine(models)
    except ValueError as reason:
        console.print(f"no WARM: {reason}", soft_wrap=True)
        return []
    average_weights(models).save_pretrained(folder, tokenizer)
    console.print(f"mean cosine between voters' weights: backbone {cosine.backbone:.3f}, head {cosine.head:.3f}")
    return [Voter("WARM", folder)]


def _sets(cfg: DictConfig) -> dict[str, Source]:
    """Give the data's test sets under the names that they are measured by, or its validation sets where it has none."""
    stages: tuple[EvaluationStage, ...] = ("test", "val")
    for stage in stages:
        if found := sets_of(cfg, stage):
            return {metric_prefix(stage, name): source for name, source in found.items()}
    raise ValueError(f"the data has no test and no val set to measure on; give {file_key(cfg, 'test')}")


@command("ensemble", alone=True)
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    ensemble(cfg)


if __name__ == "__main__":
    main()
