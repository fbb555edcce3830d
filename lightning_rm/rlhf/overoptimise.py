"""`overoptimise`: how far reward models can be optimised before gold falls, for a command and for a notebook alike.

Every model scores the same samples once; rewards are kept in the folder of results, so that a stopped call goes on.
This file knows folders and names; no configuration and no figure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from lightning_rm.counts import check_counts
from lightning_rm.data.rows import BadRow, GroupRow
from lightning_rm.data.sets import AnyGroupSource, as_group_source
from lightning_rm.devices import known_device
from lightning_rm.digests import file_name
from lightning_rm.drafts import check_place
from lightning_rm.evaluation.asked import Models, find_models
from lightning_rm.evaluation.evaluator import Evaluator, Options, Progress
from lightning_rm.evaluation.items import Floats, Item, Items
from lightning_rm.evaluation.kept import KeptRewards
from lightning_rm.evaluation.rewards import Reading
from lightning_rm.rlhf.curves import curves
from lightning_rm.rlhf.over_optimisation import OverOptimisation
from lightning_rm.rlhf.policy_files import PolicyFiles, write_policies
from lightning_rm.scoring.engine import BATCH_TOKENS
from lightning_rm.scoring.load import LoadedModel

GOLD = "gold"
SAMPLES = "samples"
"""The name under which the samples' rewards are kept."""


def overoptimise(
    models: Models,
    samples: AnyGroupSource,
    *,
    gold: str | Path | LoadedModel | None = None,
    n: Sequence[int] | None = None,
    out: str | Path | None = None,
    policy: PolicyFiles | None = None,
    weights: str = "best",
    on_bad_row: str = "error",
    batch_tokens: int = BATCH_TOKENS,
    device: str | torch.device | None = None,
    dtype: str = "float32",
    num_draws: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> OverOptimisation:
    """Choose the best of n by reward models, and report the gold of what was chosen (arXiv 2210.10760, 2310.02743)::

        overoptimise("runs/*", SyntheticGroups(500, k=64, split="test"), out="runs/overoptimise").rows()

    Args:
        models: runs, folders of runs or models, ensembles or members, hub names: a glob or a list; or name -> such.
        samples: groups of N responses of one policy, N the same for all prompts: a source, a file, or rows in memory.
        gold: a reward model whose rewards are gold; None for the gold rewards of the samples.
        n: how many responses the best is chosen from; None for powers of two up to N.
        out: a folder for tables, rewards and policy files; None writes nothing.
        policy: which best-of-n policies are written, for each model a folder; they need `out`.
        weights: `best` or `last`, of runs.
        on_bad_row: of the samples: `error`, or `drop`, which counts them.
        batch_tokens: grid tokens of a forward.
        device: of the models; None for a GPU where there is one.
        dtype: of the models' backbones.
        num_draws: of the bootstrap over prompts.
        seed: of the draws.
        progress: called after every batch with model, benchmark, responses scored and all responses.

    Raises:
        ValueError: if there is no model, samples cannot be read or differ in number, or nobody knows what is gold.
    """
    policy = policy or PolicyFiles()
    check_counts(1, num_draws=num_draws)
    if device is not None:
        device = known_device(device)
    named = find_models(models, weights)
    if out is not None:
        check_place(Path(out), folder=True)
    rows, left_out = read_samples(as_group_source(samples, "samples"), on_bad_row)
    if gold is None and (unknown := next((row for row in rows if not row.gold), None)):
        raise ValueError(f"{unknown.place} has no gold rewards; name a reward model whose rewards are gold: gold=MODEL")
    items = Items(_item(row) for row in rows)
    options = Options(diagnostics=False, probe_items=0, num_draws=num_draws, num_random=0, seed=seed)
    reading = Reading(overlong="drop", batch_tokens=batch_tokens)
    kept = None if out is None else KeptRewards(Path(out) / "rewards")

    def scored(name: str, place: str | Path | LoadedModel) -> Floats:
        evaluator = Evaluator(name, place, weights, False, reading, options, device, dtype, progress, kept)
        found = evaluator.rewards(items, SAMPLES, check=False).scored.rewards
        evaluator.close()
        return found

    rewards = {name: scored(name, place) for name, place in named.items()}
    same = next((name for name, place in named.items() if gold is not None and _is_same(place, gold)), None)
    worth = items.gold if gold is None else rewards[same] if same is not None else scored(GOLD, gold)
    # NaN in a sum is NaN: one reward that is missing leaves the prompt out for all models.
    whole = np.isfinite(sum(values.sum(axis=1) for values in (worth, *rewards.values())))
    if not whole.all():
        left_out["with a response that a model cannot read whole"] = int((~whole).sum())
    rows = [row for row, fits in zip(rows, whole.tolist(), strict=True) if fits]
    rewards = {name: values[whole] for name, values in rewards.items()}
    found = OverOptimisation(
        curves=curves(rewards, worth[whole], None if n is None else np.array(n), num_draws=num_draws, seed=seed),
        num_prompts=len(rows),
        num_samples=worth.shape[1],
        gold="that of the samples"
        if gold is None
        else f"the reward of {gold if isinstance(gold, str | Path) else 'gold'}",
        left_out=left_out,
    )
    if out is not None:
        found.files.extend(found.write(Path(out)))
        for name, values in rewards.items() if policy.n else ():
            files, notes = write_policies(Path(out) / "policies" / file_name(name), rows, values, policy)
            found.files.extend(files)
            found.notes.extend(notes)
    return found


def read_samples(samples: Iterable[GroupRow | BadRow], on_bad_row: str) -> tuple[list[GroupRow], dict[str, int]]:
    """Return the groups of samples, and why others were left out.

    Raises:
        ValueError: for a bad row that is an error, groups that differ in size, or none at all.
    """
    rows: list[GroupRow] = []
    left_out: dict[str, int] = {}
    for row in samples:
        if isinstance(row, GroupRow):
            rows.append(row)
        elif on_bad_row == "error":
            raise ValueError(f"{row.origin}: {row.detail}; on_bad_row=drop leaves such rows out and counts them")
        else:
            left_out[row.reason] = left_out.get(row.reason, 0) + 1
    if not rows:
        raise ValueError("there are no samples to choose among")
    size = len(rows[0].responses)
    if other := next((row for row in rows if len(row.responses) != size), None):
        raise ValueError(
            f"{other.place} has {len(other.responses)} responses and {rows[0].place} {size}; the best of n is "
            "estimated from the same number of samples of every prompt"
        )
    return rows, left_out


def _is_same(place: str | Path | LoadedModel, other: str | Path | LoadedModel) -> bool:
    """Tell whether two names are of one model."""
    if isinstance(place, LoadedModel) or isinstance(other, LoadedModel):
        return place is other
    return Path(place).expanduser().resolve() == Path(other).expanduser().resolve()


def _item(row: GroupRow) -> Item:
    return Item(
        id=row.id,
        prompt=row.prompt,
        responses=row.responses,
        gold=row.gold or (0.0,) * len(row.responses),
        cluster=row.prompt_id,
        origin=row.origin,
        tools=row.tools,
        chat_template_kwargs=row.chat_template_kwargs,
    )
