"""`weigh`: from pairs and a policy to the same pairs with their importance to it, in one call.

The command and the notebook call it. It knows sources, files and log-probabilities; how these become weights is
`importance`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lightning_rm.counts import check_counts
from lightning_rm.data.origins import places_of
from lightning_rm.data.rows import GroupRow, PairRow, Source
from lightning_rm.data.sets import AnySource, as_source
from lightning_rm.data.store.pair_rows import OtherColumns
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.data.tokenize.preparing import chunks_of
from lightning_rm.data.tokenize.tally import Tally
from lightning_rm.devices import device_here
from lightning_rm.digests import check_unchanged, fingerprint
from lightning_rm.options import check_options
from lightning_rm.rlhf.importance import LogProbs, Weighing
from lightning_rm.rlhf.pair_log_probs import pair_log_probs
from lightning_rm.rlhf.pair_reader import PairReader, Unreadable
from lightning_rm.rlhf.weighed_file import ADDED, COLUMNS, Weighed, write_weighed
from lightning_rm.scoring.parts import Parts, check_parts, parts_of, remove_parts

Progress = Callable[[str, int, int], None]
"""Called with the policy's name, the number of pairs that it has read, and the number of all."""


def weigh(
    source: AnySource,
    policy: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None,
    weighing: Weighing | None = None,
    tokenize: TokenizePolicy | None = None,
    kept: str | Path | None = None,
    shard_pairs: int = 500,
    device: str | torch.device | None = None,
    batch_tokens: int = 8192,
    progress: Progress | None = None,
    temperature: float = 1.0,
    dtype: str = "float32",
    chat_template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Weighed:
    """Write pairs with their importance to a policy: `weight` is the data's own weight times it.

    Every pair keeps all its fields. The file is a data source as it stands, and every module that trains rewards reads
    the weight.

    Args:
        source: the pairs, given as `PreferenceDataModule` takes them.
        policy: that the reward model is to judge now: a folder, a hub name or a `.gguf` file.
        out: a `.parquet` file. What is computed lies in `OUT.parts` until the file is written: call again after an
            interruption, and it goes on.
        reference: the policy that wrote the responses; None where nobody knows it (`Weighing.of` says what the weight
            means then).
        weighing: how log-probabilities become weights; None for OCRM's.
        tokenize: what to do with rows that are bad, or longer than a policy reads: `overlong` drops these, or calls
            them errors.
        kept: a folder in place of `OUT.parts`, which stays: of pairs and policies that were read before nothing is
            computed again.
        shard_pairs: pairs that are computed together, the most that a killed process does again.
        device: of the policies; None for the accelerator, if there is one.
        batch_tokens: the most tokens of a forward.
        progress: called after every shard.
        temperature: what both policies' logits are divided by: what responses were sampled at.
        dtype: of both policies.
        chat_template: of both, as `load_tokenizer` takes it; None for each one's own.
        chat_template_kwargs: its further arguments; a row's own go first.
        trust_remote_code: whether a policy may run code that it brings.

    Raises:
        ValueError: if a policy cannot be read, a row is not a pair or has a field whose place would be taken, rows are
            errors, or none is left.
    """
    check_options(Weighing, weighing=weighing)
    check_options(TokenizePolicy, tokenize=tokenize)
    pairs, out, weighing = as_source(source), Path(out), weighing or Weighing()
    tokenize = tokenize or TokenizePolicy()
    check_weighing(weighing, reference, tokenize)
    if out.suffix != ".parquet":
        raise ValueError(f"out={str(out)!r}: weighed pairs are a Parquet file; give a name that ends in .parquet")
    check_counts(1, shard_pairs=shard_pairs, batch_tokens=batch_tokens)
    paths = {"policy": policy} | ({} if reference is None else {"reference": reference})
    reader_at = partial(
        PairReader.at,
        max_tokens=tokenize.max_tokens,
        temperature=temperature,
        dtype=dtype,
        chat_template=chat_template,
        chat_template_kwargs=chat_template_kwargs,
        trust_remote_code=trust_remote_code,
    )
    readers = {name: reader_at(path) for name, path in paths.items()}
    used = _Used.of(pairs, list(readers.values()), Tally(tokenize, DataReport("weighed")))
    root = parts_of(out) if kept is None else Path(kept)
    check_parts(root)
    log_probs: dict[str, LogProbs] = {}
    digest = used.digest()
    for name, reader in readers.items():
        folder = fingerprint(policy=reader.digest(), pairs=digest, shard_pairs=shard_pairs)
        log_probs[name] = pair_log_probs(
            reader,
            used.rows(),
            Parts(root / folder),
            used.num_pairs,
            shard_pairs=shard_pairs,
            device=device or device_here(),
            batch_tokens=batch_tokens,
            progress=None if progress is None else lambda done, name=name: progress(name, done, used.num_pairs),
        )
    check_unchanged("the data", used.digest(), digest)
    importance = weighing.of(log_probs["policy"], log_probs.get("reference"))
    weighed = Weighed(out, importance, log_probs["policy"], log_probs.get("reference"), used.report)
    told = {name: [reader.path, reader.version] for name, reader in readers.items()}
    write_weighed(weighed, used.rows(), used.others, told | asdict(weighing))
    if kept is None:
        remove_parts(root)
    return weighed


def check_weighing(weighing: Weighing, reference: object | None, tokenize: TokenizePolicy) -> None:
    """Check what does not go together, before anything is read.

    Args:
        weighing: how log-probabilities become weights.
        reference: the policy that wrote the responses; None where none is named.
        tokenize: what to do with long rows.

    Raises:
        ValueError: for a relative ratio without a reference, and for responses that would be cut.
    """
    if tokenize.overlong not in ("drop", "error"):
        raise ValueError(
            f"overlong={tokenize.overlong}: of a response that is cut nobody knows how likely it is; set overlong=drop "
            "or overlong=error"
        )
    weighing.check_reference(is_known=reference is not None)


@dataclass(frozen=True)
class _Used:
    """The pairs of a source that all policies can read.

    Args:
        source: the rows, good and bad.
        places: (N,) the numbers of the pairs among them.
        others: the pairs' unread fields.
        report: what became of every row.
    """

    source: Source
    places: Sequence[int]
    others: OtherColumns
    report: DataReport

    @classmethod
    def of(cls, source: Source, readers: Sequence[PairReader], tally: Tally) -> _Used:
        """Read every row once, before any policy is loaded.

        Raises:
            ValueError: as `weigh` has it.
        """
        places: list[int] = []
        others = OtherColumns([name for name, _ in COLUMNS])
        for chunk in chunks_of(source):
            pairs = [(number, row) for number, row in chunk if isinstance(row, PairRow)]
            tally.leave_out_bad(row for _, row in chunk)
            if group := next((row for _, row in chunk if isinstance(row, GroupRow)), None):
                raise ValueError(f"{group.place}: rows of responses are not pairs; weigh rows of chosen and rejected")
            read = [reader.read([row for _, row in pairs]) for reader in readers]
            for (number, row), *said in zip(pairs, *read, strict=True):
                if taken := next((name for name in ADDED if name in row.others), None):
                    raise ValueError(
                        f"{row.place}: the row has a field {taken!r}, whose place the weighing's would take; weigh the "
                        "pairs that it was made of, or rename it"
                    )
                if fault := next((found for found in said if isinstance(found, Unreadable)), None):
                    tally.leave_out(row.place, fault.reason, fault.detail)
                    continue
                tally.report.keep({}, row.place, row.unread)
                places.append(number)
                others.note(row)
        tally.check(places_of(source))
        return cls(source, places, others, tally.report)

    @property
    def num_pairs(self) -> int:
        """N."""
        return len(self.places)

    def rows(self) -> Iterator[PairRow]:
        """Yield the pairs in order."""
        places = iter(self.places)
        wanted = next(places, None)
        for number, row in enumerate(self.source):
            if number == wanted and isinstance(row, PairRow):
                yield row
                wanted = next(places, None)

    def digest(self) -> str:
        """Return what changes with the pairs."""
        places = hashlib.sha256(np.array(self.places, np.int64).tobytes()).hexdigest()
        return fingerprint(source=self.source.fingerprint(), places=places)
