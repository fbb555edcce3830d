"""Find what a user names: voters, a set of the data, and what to do with its bad rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lightning_rm.annotation.voters import Voter, check_strangers
from lightning_rm.checksums import CHECKSUMS_FILE, WEIGHTS
from lightning_rm.commands._config import config_of, plain
from lightning_rm.data.rows import Source
from lightning_rm.data.sources.contamination import Decontaminated
from lightning_rm.data.sources.resampling import Fold, WithoutFold
from lightning_rm.data.tokenize.pairs import TokenizePolicy
from lightning_rm.digests import check_unchanged, fingerprint
from lightning_rm.globs import is_glob, named_folders
from lightning_rm.scoring.load import find_folder, models_at
from lightning_rm.told import read_object


def start_of(cfg: DictConfig) -> dict[str, str]:
    """Return what changes with the weights that a training begins with, which may have been trained anew under the same
    name; nothing where no checksums lie beside them.
    """
    path = cfg.backbone.get("path")
    folder = None if path is None else find_folder(Path(path))
    if folder is None or not (exported := folder / CHECKSUMS_FILE).is_file():
        return {}
    checksums = {name: told for name, told in read_object(exported).items() if name.endswith(WEIGHTS)}
    return {"weights of backbone.path": fingerprint(checksums=checksums)[:12]}


def keep_if_unchanged(run: Path, source: Source, before: str) -> None:
    """Remove a run whose pairs have changed since it began: nobody knows which of them it has seen.

    Args:
        run: its folder.
        source: of its pairs.
        before: their fingerprint when it began.

    Raises:
        ValueError: if they have changed.
    """
    if (now := source.fingerprint()) != before:
        shutil.rmtree(run)
        check_unchanged("the data", now, before, "trained on")


def find_voters(voters: str | Sequence[str], weights: str) -> list[Voter]:
    """Return the voters that globs, runs or folders name, in the order of the numbers in their names, each with the
    fold that its run left out.

    A folder that is no model stands for the runs in it: `runs/vote` is `runs/vote/*`.

    Raises:
        ValueError: if there are none, a path in full is not a voter, or a glob names runs that do not belong together.
    """
    found: dict[Path, Voter] = {}
    for pattern in [voters] if isinstance(voters, str) else voters:
        named = named_folders(pattern)
        paths = [run for path in named for run in models_at(path, weights)]
        folders = [(path, find_folder(path, weights)) for path in paths]
        usable = [Voter(str(path), folder, _fold(path)) for path, folder in folders if folder is not None]
        if not usable:
            above = Path(pattern).expanduser().parent
            way_out = (
                f"{above} is one itself: voters={above}"  # members of one backbone are a single run
                if find_folder(above, weights) is not None
                else "train voters with: lightning-rm train -m experiment=vote 'seed=range(0,10)'"
            )
            raise ValueError(
                f"voters={pattern!r} names no run with weights in model/{weights} and no Hugging Face folder; {way_out}"
            )
        if is_glob(pattern) or paths != named:
            check_strangers(pattern, [path for path, folder in folders if folder is not None])
        found |= {Path(voter.folder).resolve(): voter for voter in usable}  # each once
    return list(found.values())


def find_source(cfg: DictConfig) -> Source:
    """Return the source of the set that `cfg.set` names, whole: nothing held out, nothing resampled."""
    stages = [stage for stage in ("train", "val", "test") if cfg.data.module.get(stage) is not None]
    stage, _, name = str(cfg.set).partition(".")
    if stage not in stages:
        raise ValueError(f"set={cfg.set!r}: the data has {', '.join(stages)}")
    named = sets_of(cfg, stage)
    if not named:
        key = file_key(cfg, stage)
        raise ValueError(f"set={cfg.set!r}: the data names no file for it; give {key}, or another set")
    if name and name not in named:
        raise ValueError(f"set={cfg.set!r}: {stage} has {', '.join(f'{stage}.{known}' for known in named)}")
    if not name and len(named) > 1:
        raise ValueError(f"set={cfg.set!r} has several; name one: {', '.join(f'{stage}.{known}' for known in named)}")
    found = named[name or next(iter(named))]
    return decontaminated(found, cfg) if stage == "train" else found


def decontaminated(source: Source, cfg: DictConfig) -> Source:
    """Return what `data.decontaminate` leaves of a source of training pairs."""
    benchmarks = plain(cfg.data.module.get("decontaminate"))
    return Decontaminated(source, benchmarks) if benchmarks else source


def sets_of(cfg: DictConfig, stage: str) -> dict[str, Source]:
    """Return the sets of a stage by name, one alone by that of the stage; none where the data names no file."""
    node = cfg.data.module.get(stage)
    found: Any = None if node is None else instantiate(node, _convert_="all")
    return found if isinstance(found, dict) else {} if found is None else {stage: found}


def file_key(cfg: DictConfig, stage: str) -> str:
    """Return the key that names what a stage reads: data.file, data.test_file; of data sets of the hub, data.name,
    data.test_split.
    """
    own, other = ("name", "split") if "name" in cfg.data else ("file", "file")
    return f"data.{own}" if stage == "train" else f"data.{stage}_{other}"


def find_policy(cfg: DictConfig) -> TokenizePolicy:
    """Return what `cfg.data` says of rows that are too long, the same twice or bad."""
    return TokenizePolicy(cfg.data.max_tokens, cfg.data.overlong, cfg.data.identical, cfg.data.on_bad_row)


def _fold(run: Path) -> Fold | None:
    """Return the fold that a run left out, as its configuration says."""
    config = config_of(run)
    resample: Any = None if config is None else OmegaConf.select(config, "resample")
    if resample is None or not resample.get("_target_", "").endswith(WithoutFold.__name__):
        return None
    return Fold(resample.fold, resample.num_folds)
