"""Take the pictures of docs/howto/review.md: python -m docs._review_picture, from the repository's root.

The pairs are made, a quarter of their labels wrong; the reviewer knows the truth and has decided about sixty of them.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

from lightning_rm.reviewing.app import review_app
from lightning_rm.reviewing.pairs import PairFile
from lightning_rm.reviewing.session import ReviewSession, Show
from lightning_rm.reviewing.store import ReviewStore
from lightning_rm.serving.server import background_server
from tests.browser import browser, chromium
from tests.toy import write_annotated

FIGURES = Path(__file__).parent / "figures"


def main() -> None:
    program = chromium()
    if program is None:
        raise SystemExit("the pictures are taken by chromium, which is not here")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "strength.parquet"
        write_annotated(path, 2000, num_voters=10)
        table = pq.read_table(path, columns=["id", "clean"])
        clean = dict(zip(table["id"].to_pylist(), table["clean"].to_pylist(), strict=True))
        session = ReviewSession(PairFile(path), ReviewStore(Path(folder) / "strength_reviews.jsonl"))
        for _ in range(60):
            pair = session.next("ada", Show(), -1)["pair"]
            session.decide("ada", pair["place"], "keep" if clean[pair["id"]] else "flip", "", pair["seen"])
        with background_server(review_app(session, "token")) as url, browser(program, Path(folder) / "profile") as page:
            page.size(1200, 760)
            page.open(f"{url}/#token=token")
            page.until("document.getElementById('name').open")
            page.write("ada")
            page.press("Enter")
            page.until("pair && !busy")
            page.screenshot(FIGURES / "review.png")
            page.press("p")
            page.until("document.getElementById('tells').open")
            page.screenshot(FIGURES / "review_tells.png")
    print(json.dumps([str(FIGURES / name) for name in ("review.png", "review_tells.png")]))


if __name__ == "__main__":
    main()
