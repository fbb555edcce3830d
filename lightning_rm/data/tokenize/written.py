"""The file of tokenised pairs as it grows: chunks put together, and what is needed to go on after a kill.

Every Arrow batch carries the state of the whole file up to it, and a checksum. A process that was killed leaves a draft
whose whole batches the next one takes over: only the rows after them are tokenised again. Nothing here grows with the
number of rows. It knows no row and no tokenizer.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from lightning_rm.data.store.pair_file import SCHEMA
from lightning_rm.data.store.report import DataReport
from lightning_rm.data.tokenize.chunks import Made
from lightning_rm.data.tokenize.groups import responses_kept
from lightning_rm.data.tokenize.tally import Tally

MAGIC_BYTES = 8
"""What an Arrow file begins with; a stream of batches follows, and at the end a table of their places."""


@dataclass
class Written:
    """What is said of all chunks of a file that are written.

    Args:
        tally: counts of their rows.
        places: what the source's rows stand in.
        next_row: the place after the last row of them.
        subsets: names of subsets, in order of appearance.
        attributes: the same of the attributes of scores.
        num_responses: scored responses that are kept.
        lost: reason -> scored responses that are left out.
    """

    tally: Tally
    places: Sequence[str]
    next_row: int = 0
    subsets: dict[str, int] = field(default_factory=dict[str, int])
    attributes: dict[str, int] = field(default_factory=dict[str, int])
    num_responses: int = 0
    lost: Counter[str] = field(default_factory=Counter[str])

    def write(self, made: Made, writer: Any) -> None:
        """Write a chunk behind the others, its subsets and attributes numbered as they are."""
        self.tally.add(made.tally)
        self.next_row = made.next_row
        self.num_responses += made.num_responses
        self.lost.update(made.lost)
        subset = [self.subsets.setdefault(name, len(self.subsets)) for name in made.subsets]
        attribute = [self.attributes.setdefault(name, len(self.attributes)) for name in made.attributes]
        if made.batch is None:
            return
        batch = made.batch
        if subset != list(range(len(subset))):
            numbers = pa.array(subset, pa.int64()).take(batch["subset"])
            batch = _with_column(batch, "subset", numbers)
        if attribute != list(range(len(attribute))):
            batch = _with_column(batch, "scores", _moved(batch["scores"], attribute))
        said = {} if self.tally.errors else self._state(batch)  # errors are of the whole source, which is read again
        writer.write_batch(batch, custom_metadata=said)

    def finish(self, writer: Any) -> None:
        """Write what there is to say of all rows.

        Raises:
            ValueError: for rows that the policy calls errors, and when no pair is left.
        """
        report = self.tally.report
        if self.num_responses:
            report.notes.append(f"{report.name}: {responses_kept(self.num_responses, self.lost)}")
        self.tally.check(self.places)
        metadata = {
            "report": report.to_json(),
            "subset_names": json.dumps(list(self.subsets)),
            "attributes": json.dumps(list(self.attributes)),
            "places": json.dumps(list(self.places)),
        }
        writer.write_batch(pa.RecordBatch.from_pylist([], schema=SCHEMA), custom_metadata=metadata)

    def take_over(self, begun: Path, writer: Any) -> None:
        """Write again what a killed process had written of the same file, as far as it is whole.

        Args:
            begun: its draft, which may end anywhere.
            writer: of the new one.
        """
        with begun.open("rb") as file:
            file.seek(MAGIC_BYTES)
            try:
                reader = pa.ipc.open_stream(file)
                while True:
                    found: Any = reader.read_next_batch_with_custom_metadata()
                    said = {key.decode(): value.decode() for key, value in (found.custom_metadata or {}).items()}
                    if not self._takes(found.batch, said):
                        return
                    writer.write_batch(found.batch, custom_metadata=said)
            except (pa.ArrowException, OSError, StopIteration, UnicodeDecodeError):
                return  # here it was killed

    def _state(self, batch: Any) -> dict[str, str]:
        state = {
            "next_row": self.next_row,
            "report": self.tally.report.to_json(),
            "subsets": list(self.subsets),
            "attributes": list(self.attributes),
            "num_responses": self.num_responses,
            "lost": self.lost,
            "places": list(self.places),
        }
        return {"state": json.dumps(state), "crc": str(_crc(batch))}

    def _takes(self, batch: Any, said: dict[str, str]) -> bool:
        """Take up the state of a batch; False for one that is damaged, of files elsewhere, or says nothing."""
        if batch.schema != SCHEMA or said.get("crc") != str(_crc(batch)):
            return False
        state = json.loads(said["state"])
        if state["places"] != list(self.places):
            return False
        report = DataReport.from_json(state["report"])
        self.tally.report = replace(report, name=self.tally.report.name, notes=self.tally.report.notes)
        self.next_row, self.num_responses = state["next_row"], state["num_responses"]
        self.subsets = {name: number for number, name in enumerate(state["subsets"])}
        self.attributes = {name: number for number, name in enumerate(state["attributes"])}
        self.lost = Counter(state["lost"])
        return True


def _crc(batch: Any) -> int:
    return zlib.crc32(batch.serialize())


def _with_column(batch: Any, name: str, values: Any) -> Any:
    columns = [values if field.name == name else batch[field.name] for field in SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _moved(scores: Any, places: Sequence[int]) -> Any:
    """Return scores whose attribute `i` stands at `places[i]`; gaps are NaN."""
    moved: list[list[list[float]]] = []
    for row in scores.to_pylist():
        moved.append([])
        for given in row:
            values = [float("nan")] * (max(places[: len(given)], default=-1) + 1)
            for place, value in zip(places, given, strict=False):
                values[place] = value
            moved[-1].append(values)
    return pa.array(moved, SCHEMA.field("scores").type)
