"""Rewards that are kept: one Parquet file for each model and benchmark, so that a stopped evaluation goes on.

A file is used again only for the same weights, items and way of reading. It also shows which items a model gets wrong.
This file knows arrays and folders.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lightning_rm.digests import file_name, files_digest, fingerprint
from lightning_rm.drafts import draft_of
from lightning_rm.evaluation.items import Items
from lightning_rm.evaluation.rewards import CHUNK, Reading, Scored
from lightning_rm.models.ensembles.files import folders_of, weights_below
from lightning_rm.parquet_files import read_parquet, write_parquet
from lightning_rm.scoring.parts import Parts, check_parts, remove_left, remove_parts
from lightning_rm.told import object_of

FORMAT = 3
"""The version of the files: raise it when their contents change, and old ones are not read."""

CONFIGURATION = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "ensemble.json")
"""Files beside the weights that rewards depend on."""

VOCABULARIES = (
    *("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("special_tokens_map.json", "added_tokens.json"),
)
"""Those of older tokenizers, whose `tokenizer.json` is made of them when they are read."""


class Kept(NamedTuple):
    """The rewards of one model on one benchmark, the check with responses exchanged, and the file that has them."""

    scored: Scored
    swap: dict[str, float]
    file: str | None = None
    is_current: bool = True
    """Whether the file says of the items (ids, subsets, gold) what they say themselves."""


class KeptRewards:
    """The rewards of an evaluation, in a folder with one folder a benchmark.

    Args:
        folder: made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, model: Path | None, items: Items, reading: Reading, dtype: str, new_head: bool) -> str | None:
        """Return what the rewards depend on; None for a model without a folder, whose weights cannot be identified."""
        if model is None:
            return None
        folders = {model, *folders_of(model)}
        told, vocabularies = (
            sorted(folder / name for folder in folders for name in names if (folder / name).is_file())
            for names in (CONFIGURATION, VOCABULARIES)
        )
        return fingerprint(
            version=FORMAT,
            weights=files_digest(weights_below(model)),
            configuration=[_configuration(file) for file in told],
            vocabularies=files_digest(vocabularies),
            items=[
                [item.prompt, item.responses, item.tools, item.chat_template_kwargs, item.cluster] for item in items
            ],
            reading=[reading.max_tokens, reading.overlong],
            dtype=dtype,
            new_head=new_head,
        )

    def read(self, benchmark: str, model: str, key: str | None, items: Items) -> Kept | None:
        """Return what an earlier evaluation kept; None where there is nothing for this key.

        Rewards do not depend on gold, which may have changed since: the check is then without its result, and the file
        not current.
        """
        path = self._path(benchmark, model)
        if not path.is_file():
            return None
        try:
            table = read_parquet(path)
        except (pa.ArrowException, OSError):
            return None
        told = _told(table, path)
        if key is None or told.get("key") != key or len(table) != len(items):
            return None
        remove_left(path.with_suffix(".parts"), path)
        votes = np.full((*items.gold.shape, told["num_members"]), np.nan)
        for number, row in enumerate(table["votes"].to_pylist()):
            votes[number, : len(row)] = [[np.nan if vote is None else vote for vote in member] for member in row]
        scored = Scored(
            rewards=items.grid(
                [np.nan if reward is None else reward for reward in row] for row in table["rewards"].to_pylist()
            ),
            votes=votes if told["num_members"] > 1 else None,
            left_out=np.array(table["left_out"].to_pylist(), bool),
            num_cut=told["num_cut"],
            num_tokens=told["num_tokens"],
            remarks=told.get("remarks", {}),
        )
        described = _described(items)
        return Kept(
            scored,
            told["swap"] if told.get("labels") == _labels(items) else {},
            str(path),
            is_current=table.select(list(described)).to_pydict() == described,
        )

    def write(
        self, benchmark: str, model: str, key: str | None, items: Items, scored: Scored, swap: dict[str, float]
    ) -> Kept:
        """Write a model's rewards of a benchmark: one row per item, with `gold` beside `rewards`."""
        path = self._path(benchmark, model)
        votes = scored.rewards[..., None] if scored.votes is None else scored.votes
        numbers = [len(item.responses) for item in items]
        table = pa.table(
            {
                **_described(items),
                "rewards": [_known(scored.rewards[place, :num]) for place, num in enumerate(numbers)],
                "votes": [[_known(member) for member in votes[place, :num]] for place, num in enumerate(numbers)],
                "left_out": scored.left_out.tolist(),
            }
        )
        told = {
            "key": key,
            "num_members": votes.shape[-1],
            "num_cut": scored.num_cut,
            "num_tokens": scored.num_tokens,
            "remarks": scored.remarks,
            "swap": swap,
            "labels": _labels(items),
        }
        with draft_of(path) as draft:
            write_parquet(table.replace_schema_metadata(_telling(table, told)), draft)
        remove_parts(path.with_suffix(".parts"))
        return Kept(scored, swap, str(path))

    def parts(self, benchmark: str, model: str, key: str | None, num_items: int) -> Parts | None:
        """Return a folder for the rewards of an unfinished evaluation; None where it would not go on from them."""
        if key is None or num_items <= CHUNK:
            return None
        root = self._path(benchmark, model).with_suffix(".parts")
        check_parts(root)
        return Parts(root / key)

    def _path(self, benchmark: str, model: str) -> Path:
        return self.folder / file_name(benchmark) / f"{file_name(model)}.parquet"


def _telling(table: Any, told: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of a file: pages have checksums, and what it says of itself and of its columns has none."""
    text = json.dumps(told)
    return {"lightning_rm": text, "crc32": f"{zlib.crc32(f'{table.column_names} {text}'.encode()):08x}"}


def _told(table: Any, path: Path) -> dict[str, Any]:
    """Return what a file says of itself; nothing where that, or what it says of its columns, is damaged."""
    metadata: dict[bytes, bytes] = table.schema.metadata or {}
    try:
        told = object_of(metadata.get(b"lightning_rm", b"{}"), path)
        crc32 = _telling(table, told)["crc32"]
    except ValueError:  # a column's name may be no text any more, too
        return {}
    return told if crc32.encode() == metadata.get(b"crc32") else {}


def _described(items: Items) -> dict[str, list[Any]]:
    """Return the columns of a file that tell of items, not of rewards."""
    return {
        "id": [item.id for item in items],
        "where": [item.origin for item in items],
        "subset": [item.subset for item in items],
        "gold": [list(item.gold) for item in items],
    }


def _labels(items: Items) -> str:
    """Return what accuracies depend on beside rewards."""
    return fingerprint(labels=[[item.gold, item.pairs] for item in items])


def _configuration(file: Path) -> str:
    """Return a file's text, without the temperature that this package may have stored in it since."""
    text = file.read_text(encoding="utf-8")
    if file.name not in ("config.json", "ensemble.json"):
        return text
    try:
        settings = object_of(text, file)
    except ValueError as error:
        raise ValueError(f"{error}; export or copy the model again") from error
    settings.pop("lightning_rm", None)
    return json.dumps(settings, sort_keys=True)


def _known(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
