"""`lightning-rm curate`: from raw pairs to clean pairs, by the votes of models trained on them, and where noise is."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig
from rich.console import Console

from lightning_rm.annotation.files import check_rows
from lightning_rm.annotation.voters import Voter
from lightning_rm.commands._config import plain_console, require_all, resolved, say_files
from lightning_rm.commands._data import find_policy, find_source, find_voters, keep_if_unchanged, start_of
from lightning_rm.commands._entry import arguments, command
from lightning_rm.commands._process import Run, as_a_process, chosen_there, with_choices, words_of
from lightning_rm.commands._progress import Bar, resumable
from lightning_rm.commands._quoting import quoted
from lightning_rm.commands._tables import report_table
from lightning_rm.commands._trainings import check_rewards, has_ended, train_in
from lightning_rm.curation.curate import Look, Outside, check_asked, curate
from lightning_rm.curation.endpoint import Judge
from lightning_rm.curation.made_of import check_made_of
from lightning_rm.curation.opinions import Opinion
from lightning_rm.curation.report import no_groups, reviewed_flips, wrong_line
from lightning_rm.curation.result import Curated, Rules
from lightning_rm.data.rows import Source
from lightning_rm.digests import fingerprint
from lightning_rm.drafts import check_place, write_json
from lightning_rm.told import read_object

TRAINED = (
    *("data", "backbone", "layout", "module", "optimizer", "scheduler", "trainer", "members", "seed", "init_seed"),
)
"""The keys, and what lies below them, that are handed to the voters' training as they were given."""

ALIKE = ("data.max_tokens", "data.overlong", "data.epochs", "module.head_lr")
"""The keys of data and module that training on the clean pairs has in common with training the voters."""

TRAINED_BY = "trained_by.json"
"""The file beside the voters that says by which words and on which pairs they were trained."""


def curate_data(cfg: DictConfig, words: Sequence[str] = (), run: Run | None = None) -> Curated | None:
    """Train voters, have them vote, decide and report.

    Args:
        cfg: `conf/curate.yaml`, composed.
        words: the command line that it was composed from; what concerns training is handed on.
        run: runs a command; None for a process of its own.

    Returns:
        What was decided; None on all processes but the first.
    """
    require_all(cfg)
    out = Path(cfg.out)
    check_place(out, folder=True)
    source = find_source(cfg)
    check_made_of(out, source)
    named = resolved(cfg)
    rules = Rules(cfg.policy, cfg.share, cfg.agree, cfg.temperature, cfg.reviews)
    if not isinstance(named["benchmarks"], dict | None):
        raise ValueError(f"benchmarks={cfg.benchmarks}; give {{name: files}}, benchmarks={{rewardbench: FILE}}")
    look = Look(named["groups"], cfg.second_label, named["benchmarks"] or {})
    check_asked(rules, look)
    outside, judges = _named_voters(named["voters"], cfg.weights)
    fabric = L.Fabric(accelerator=cfg.accelerator, devices=cfg.devices, precision=cfg.precision)
    fabric.launch()
    console = plain_console()
    with resumable("trained and scored"):
        if cfg.fit is not None:
            if fabric.global_rank == 0:
                train_voters(cfg, words, source, out / "voters", run or as_a_process, console)
            fabric.barrier()
            voters = find_voters(str(out / "voters" / "[0-9]*"), cfg.weights)
            held_out = cfg.held_out if cfg.fit != "cross_fitted" else 1.0
        elif outside:
            voters, held_out = [outside[0].voter], 1.0
            if outside[0].weight != 1:
                raise ValueError("voters: the first one sets the scale and has weight 1; put another first")
            outside = outside[1:]
        else:
            known = "no reward model among the voters" if judges else "no voters"
            raise ValueError(f"fit=null and {known}: there is nobody to vote; name voters=[...], or leave fit=heads")
        with Bar(console, shown=fabric.global_rank == 0) as bar:
            curated = curate(
                source,
                voters,
                out,
                rules,
                held_out=held_out,
                outside=outside,
                judges=[partial(judge_rows, judge) for judge in judges],
                look=look,
                tokenize=find_policy(cfg),
                fabric=fabric,
                progress=bar.show,
                cache_dir=cfg.data.cache_dir,
                layout=cfg.layout.layout,
                batch_tokens=cfg.batch_tokens,
                shard_size=cfg.shard_size,
            )
    if curated is not None:
        say(curated, out, words, console)
    return curated


def judge_rows(judge: Judge, source: Source, folder: Path) -> Opinion:
    """Return what a judge behind an address says of the rows."""
    return judge.opinion(source, folder)


def train_voters(
    cfg: DictConfig, words: Sequence[str], source: Source, folder: Path, run: Run, console: Console
) -> None:
    """Train the voters that do not exist yet, each with the train command.

    A voter exists once its run has written its results; one that was interrupted goes on from its checkpoint if it has
    one, and begins again if not.

    Raises:
        ValueError: if there are voters of other pairs or other settings, a training fails, or the pairs change
            meanwhile, which costs the voter that was trained then.
    """
    if cfg.fit not in ("heads", "whole", "cross_fitted"):
        raise ValueError(f"fit={cfg.fit!r} is not one of heads, whole, cross_fitted and null")
    check_rewards(cfg, "vote with")
    if not 0 <= cfg.held_out < 1:
        raise ValueError(f"held_out={cfg.held_out} is not a share of the prompts; give a number from 0 to below 1")
    common = [*with_choices("curate", trained_words(words), ("data",)), "name=voters", "logger=csv"]
    common += [f"{'' if name in cfg.data.module else '+'}data.module.{name}=null" for name in ("val", "test")]
    held_out = 0.0 if cfg.fit == "cross_fitted" else float(cfg.held_out)
    common += [f"data.val_fraction={held_out}", f"monitor={'val' if held_out else 'test'}/accuracy"]
    if cfg.fit == "heads":
        runs = [["experiment=vote_members", *common, f"members.num_members={cfg.num_voters}"]]
    else:
        given = [word for word in common if not word.startswith(("members", "seed="))]
        resample, number = ["resample=bootstrap"], cfg.num_voters
        if cfg.fit == "cross_fitted":
            resample, number = ["resample=without_fold", f"resample.num_folds={cfg.num_folds}"], cfg.num_folds
        runs = [["experiment=vote", *given, *resample, f"seed={seed}"] for seed in range(number)]
    trained_by = {
        "runs": fingerprint(runs=runs, **chosen_there(cfg, words, TRAINED), **start_of(cfg)),
        "pairs": source.fingerprint(),
    }
    mark = folder / TRAINED_BY
    if mark.is_file() and (found := read_object(mark)) != trained_by:
        what = "pairs" if found.get("pairs") != trained_by["pairs"] else "settings"
        raise ValueError(
            f"out={cfg.out!r} holds voters that were trained on other {what}; name another folder, or remove {folder}"
        )
    if not mark.is_file():  # voters that were begun have such rows
        check_rows(source)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(mark, trained_by, indent=None)
    for number, one in enumerate(runs):
        place = folder / str(number)
        if has_ended(place, [cfg.weights]):
            continue
        console.print(f"voters {number + 1} of {len(runs)}: lightning-rm train {shlex.join(one)}", soft_wrap=True)
        run(train_in(place, one))
        keep_if_unchanged(place, source, trained_by["pairs"])


def trained_words(words: Sequence[str]) -> list[str]:
    """Return the words of a command line that concern the voters' training."""
    return words_of(words, TRAINED)


def say(curated: Curated, out: Path, words: Sequence[str], console: Console) -> None:
    """Print what came out, and the command that trains on it."""
    console.print(report_table({"curated": curated.votes.pairs.report}))
    counts = ", ".join(f"{name} {count:,}" for name, count in curated.counts.items())
    console.print(f"{len(curated.facts):,} rows: {counts}")
    console.print(wrong_line(curated), soft_wrap=True)
    console.print(curated.by_heart.advice(), soft_wrap=True)
    if curated.verdicts:
        console.print(reviewed_flips(curated)[1], soft_wrap=True)
    if unsaid := no_groups(curated):
        console.print(unsaid, soft_wrap=True)
    say_files(console, *curated.files[:4])
    handed_on = trained_words(words)
    own = [word for word in handed_on if not word.startswith(("members", "module", "data"))]
    own += [word for word in handed_on if word.startswith(ALIKE)]
    line = shlex.join(["train", "data=strength", f"data.file={quoted(out / 'clean.parquet')}", *own])
    console.print(f"to train on it:\n  lightning-rm {line}", soft_wrap=True)
    line = shlex.join(["review", f"strength={quoted(out / 'strength.parquet')}"])
    console.print(f"to look at it:\n  lightning-rm {line}", soft_wrap=True)


def _named_voters(named: Any, weights: str) -> tuple[list[Outside], list[Judge]]:
    """Return what `voters=[...]` names.

    Raises:
        ValueError: for an entry that is neither a path nor an address.
    """
    outside: list[Outside] = []
    judges: list[Judge] = []
    for entry in named if isinstance(named, list) else [named]:
        if not isinstance(entry, str | dict):
            raise ValueError(f"voters: {entry} is neither a path nor {{path: ..., weight: 1}}")
        given: dict[str, Any] = {"path": entry} if isinstance(entry, str) else dict(entry)
        if "endpoint" in given and given.keys() <= {field.name for field in fields(Judge)} and "model" in given:
            judges.append(Judge(**given))
        elif "path" in given and given.keys() <= {"path", "weight"}:
            found: list[Voter] = find_voters(given["path"], weights)
            outside += [Outside(replace(voter, fold=None), given.get("weight", 1)) for voter in found]
        else:
            raise ValueError(f"voters: {given} is neither {{path: ..., weight: 1}} nor {{endpoint: URL, model: NAME}}")
    return outside, judges


@command("curate", alone=True)
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    curate_data(cfg, arguments())


if __name__ == "__main__":
    main()
