"""Which pairs a folder was curated from: other pairs do not replace them. It knows file names and digests."""

from __future__ import annotations

from pathlib import Path

from lightning_rm.curation.clean import CleanFiles
from lightning_rm.data.rows import Source
from lightning_rm.drafts import write_json
from lightning_rm.told import read_object

MADE_OF = "curated_from.json"
"""The file beside what was curated that has the digest of its pairs."""


def check_made_of(out: Path, source: Source) -> None:
    """Check that nothing in a folder would be replaced by what is curated from other pairs, before any work is done.

    The same pairs may be curated again, by another policy or with further reviews.

    Raises:
        ValueError: if there are files of other pairs, or some that were not curated.
    """
    mark = out / MADE_OF
    there = [file.name for file in (*CleanFiles.within(out), out / "report.md", out / "report.json") if file.exists()]
    if mark.is_file():
        if read_object(mark).get("pairs") != source.fingerprint():
            raise ValueError(
                f"out={str(out)!r} holds what was curated from other pairs; name another folder, or remove it"
            )
    elif there:
        raise ValueError(
            f"out={str(out)!r} holds {there[0]}, which was not curated from these pairs and would be replaced; name "
            "another folder"
        )


def note_made_of(out: Path, source: Source) -> None:
    """Write down from which pairs a folder is curated, before the first file of it is written."""
    write_json(out / MADE_OF, {"pairs": source.fingerprint()}, indent=None)
