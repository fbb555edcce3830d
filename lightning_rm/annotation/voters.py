"""Voters: reward models in folders, and whether they belong together. It knows folders and tokenizers; no pairs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedTokenizerBase

from lightning_rm.data.cache import files_digest, fingerprint
from lightning_rm.data.loading import definition, load_tokenizer
from lightning_rm.data.resampling import Fold
from lightning_rm.models.heads import architecture_of
from lightning_rm.models.members import MemberRewardModel, is_members
from lightning_rm.models.reward_model import RewardModel


@dataclass(frozen=True)
class Voter:
    """One reward model on disk, or M members of one backbone.

    Args:
        name: how it is called in messages and in the result.
        folder: its Hugging Face folder.
        fold: the fold that it was not trained on, if it is cross-fitted: it votes on that fold alone.
    """

    name: str
    folder: Path
    fold: Fold | None = None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer."""
        return load_tokenizer(self.folder)

    def load(self, tokenizer: PreTrainedTokenizerBase) -> RewardModel:
        """The model, ready to score."""
        load = MemberRewardModel.load if is_members(self.folder) else RewardModel.from_pretrained
        return load(self.folder, tokenizer=tokenizer).eval()

    def read_ahead(self) -> None:
        """Have Linux read its weights into the cache of files in the background, while another voter scores."""
        if sys.platform == "linux":
            for path in self._weights():
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)

    @cached_property
    def digest(self) -> str:
        """16 hex digits that change with the weights: of their files' bytes, in order of name."""
        return files_digest(self._weights())

    def _weights(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def kind(self) -> dict[str, Any]:
        """What voters must have in common, by the names that an error calls it."""
        tokenizer = self.tokenizer()
        config = AutoConfig.from_pretrained(self.folder)
        return {
            "tokenizer": fingerprint(definition=definition(tokenizer))[:12],
            "padding token": tokenizer.pad_token,
            "chat template": fingerprint(template=tokenizer.chat_template)[:12],
            "head": f"{config.model_type} {', '.join(architecture_of(config.model_type).head)}",
        }


def find_folder(run: Path, weights: str = "best") -> Path | None:
    """The Hugging Face folder of a run (`RUN/model/best`), or of a path that is one itself; None where there is none.

    Args:
        run: a run's folder, or a Hugging Face folder.
        weights: `best` or `last`.

    Raises:
        ValueError: for other weights.
    """
    if weights not in ("best", "last"):
        raise ValueError(f"weights={weights!r}: a run has 'best' and 'last'")
    for folder in (run / "model" / weights, run):
        if (folder / "config.json").is_file():
            return folder
    return None


def check_voters(voters: Sequence[Voter]) -> None:
    """Check that voters may be asked together.

    Raises:
        ValueError: if there are none, one stands twice, or one has another tokenizer, chat template or head than the
            first; the message names both.
    """
    if not voters:
        raise ValueError("there are no voters; name runs or model folders, such as voters='runs/vote/*'")
    digests: dict[str, str] = {}
    for voter in voters:
        if (before := digests.setdefault(voter.digest, voter.name)) != voter.name:
            raise ValueError(f"voters {before} and {voter.name} have the same weights: one model has one vote")
    first = voters[0].kind()
    for voter in voters[1:]:
        for name, value in voter.kind().items():
            if value != first[name]:
                raise ValueError(
                    f"voter {voter.name} has another {name} than {voters[0].name} ({value}, not {first[name]}): their "
                    "votes do not belong together; leave one of them out"
                )
