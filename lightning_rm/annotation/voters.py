"""Voters: reward models in folders, and whether they belong together. It knows folders and tokenizers; no pairs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from lightning_rm.checksums import check_file
from lightning_rm.data.sources.resampling import Fold
from lightning_rm.data.tokenize.tokenizer import definition, load_tokenizer
from lightning_rm.digests import FileState, check_unchanged, files_digest, fingerprint
from lightning_rm.drafts import write_json
from lightning_rm.models.backbone.checkpoint import Checkpoint
from lightning_rm.models.backbone.families import architecture_of
from lightning_rm.models.ensembles.files import folders_of, weights_below, weights_state
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.scoring.load import load_model
from lightning_rm.told import read_object

TRAINED_ON = "trained_on.json"
"""The file in a run's folder that says what its model was trained on."""


@dataclass(frozen=True)
class Voter:
    """One reward model on disk, M members of one backbone, or an ensemble that answers as one.

    Args:
        name: how it is called in messages and in the result.
        folder: its Hugging Face folder, or the one that `RewardEnsemble.save_pretrained` wrote.
        fold: the fold that it was not trained on, if it is cross-fitted: it votes on that fold alone.
    """

    name: str
    folder: str | Path
    fold: Fold | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return its tokenizer."""
        return load_tokenizer(self._folders[0])

    def load(self, tokenizer: PreTrainedTokenizerBase) -> AnyRewardModel:
        """Return the model, ready to score.

        Raises:
            ValueError: if its files are no longer those that `digest` names.
        """
        before = self._state
        model = load_model(self.folder, tokenizer=tokenizer).model
        check_unchanged(f"voter {self.name}", weights_state(self.folder), before, "in use")
        return model

    def read_ahead(self) -> None:
        """Have Linux read its weights into the cache of files in the background, while another voter scores."""
        if sys.platform == "linux":
            for path in weights_below(self.folder):
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change with the weights: of their files' bytes, in order of name.

        Raises:
            ValueError: if there are none.
        """
        if not self._state:
            of_run = [str(found.parent) for found in sorted(Path(self.folder).glob("model/*/config.json"))]
            way = f"it is a run, whose models are {' and '.join(of_run)}" if of_run else "was it copied whole?"
            raise ValueError(f"voter {self.name}: there are no weights in {self.folder}; {way}")
        return files_digest(weights_below(self.folder))

    @cached_property
    def _state(self) -> list[FileState]:
        """Of its weights, when they were first asked for."""
        return weights_state(self.folder)

    @property
    def _folders(self) -> list[Path]:
        """The Hugging Face folders of its models, an ensemble's members."""
        return folders_of(self.folder)

    def kind(self) -> dict[str, Any]:
        """Return what voters must have in common, under the names that an error calls it by."""
        tokenizer = self.tokenizer()
        config = Checkpoint.at(self._folders[0]).config()
        return {
            "tokenizer": fingerprint(definition=definition(tokenizer))[:12],
            "padding token": tokenizer.pad_token,
            "chat template": fingerprint(template=tokenizer.chat_template)[:12],
            "head": f"{config.model_type} {', '.join(architecture_of(config).head)}",
        }


def write_trained_on(run: Path, data: str, settings: Mapping[str, object]) -> None:
    """Record in a run's folder what it is trained on, so that voters of one sweep can be told from others.

    Args:
        run: the folder.
        data: a fingerprint of the training pairs, before any are held out or drawn.
        settings: dotted key -> value of all that makes a voter what it is, but for its seeds and its fold.
    """
    write_json(run / TRAINED_ON, {"data": data, "settings": dict(settings)}, indent=1)


def check_strangers(named: str, runs: Sequence[Path]) -> None:
    """Check that the runs which one glob names were trained on the same data with the same settings.

    A sweep that was run into a folder of older runs leaves those that it does not write over.

    Args:
        named: the glob.
        runs: their folders; those that do not say what they were trained on, such as models of others, are strangers
            where others say it.

    Raises:
        ValueError: if one is a stranger; it says which, and why.
    """
    told = {run: _trained_on(run) for run in runs}
    if not any(told.values()):
        return
    first = next(run for run in runs if told[run])
    for run in runs:
        own, expected = told[run], told[first]
        if own is None or expected is None:
            why = f"does not say what it was trained on, and {first} does"
        elif own["data"] != expected["data"]:
            why = f"was trained on other pairs than {first}"
        elif keys := _differing(own["settings"], expected["settings"]):
            here, there = own["settings"], expected["settings"]
            shown = ", ".join(f"{key}={here.get(key)}, not {there.get(key)}" for key in keys[:3])
            why = f"was trained with other settings than {first} ({shown})"
        else:
            continue
        raise ValueError(
            f"voters={named!r}: {run} {why}: is it left from an older sweep? Remove it, or name the voters that you "
            "mean one by one, voters=[RUN,RUN]"
        )


def _differing(here: Mapping[str, object], there: Mapping[str, object]) -> list[str]:
    """Return the settings in which two runs differ. An option that only one of them knows, for the other is of an older
    version, and leaves off (null, false, 0) is no difference.
    """
    both = here.keys() & there.keys()
    return sorted(
        key for key, value in {**there, **here}.items() if (here[key] != there[key] if key in both else bool(value))
    )


def _trained_on(run: Path) -> dict[str, Any] | None:
    check_file(run / TRAINED_ON)
    try:
        told = read_object(run / TRAINED_ON)
    except (OSError, ValueError):
        return None
    return told if {"data", "settings"} <= told.keys() else None


def check_voters(voters: Sequence[Voter]) -> None:
    """Check that voters may be asked together.

    Raises:
        ValueError: if there are none, one stands twice, or one has another tokenizer, chat template or head than the
            first; the message names both.
    """
    if not voters:
        raise ValueError("there are no voters; name runs or model folders, such as voters='runs/vote/*'")
    names: dict[str, str] = {}
    if strange := [voter for voter in cast("Sequence[object]", voters) if not isinstance(voter, Voter)]:
        raise ValueError(f"{strange[0]!r:.60} is not a voter; give Voter(NAME, FOLDER)")
    for voter in voters:
        if voter.digest in names:
            raise ValueError(
                f"voters {names[voter.digest]} and {voter.name} have the same weights: one model has one vote"
            )
        names[voter.digest] = voter.name
    first = voters[0].kind()
    for voter in voters[1:]:
        for name, value in voter.kind().items():
            if value != first[name]:
                raise ValueError(
                    f"voter {voter.name} has another {name} than {voters[0].name} ({value}, not {first[name]}): their "
                    "votes do not belong together; leave one of them out"
                )
