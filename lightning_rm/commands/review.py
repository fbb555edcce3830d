"""`lightning-rm review`: pairs to look at and decide about, on a page in the browser, until Ctrl-C."""

from __future__ import annotations

import secrets
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from omegaconf import DictConfig

from lightning_rm.commands._config import plain_console, require_all
from lightning_rm.commands._entry import command
from lightning_rm.counts import number_of


def review_pairs(cfg: DictConfig) -> None:
    """Open the pairs and serve the page.

    Args:
        cfg: `conf/review.yaml`, composed.

    Raises:
        ValueError: if the pairs are not there or not annotated, a setting is wrong, or the server's packages are not
            installed.
    """
    require_all(cfg)
    if missing := [package for package in ("fastapi", "uvicorn") if find_spec(package) is None]:
        raise ValueError(f"a review needs {' and '.join(missing)}; pip install 'lightning-rm[serve]'")
    from lightning_rm.reviewing.app import review_app
    from lightning_rm.reviewing.pairs import PairFile
    from lightning_rm.reviewing.session import ReviewSession
    from lightning_rm.reviewing.store import ReviewStore
    from lightning_rm.serving.server import run_server

    for name in ("blind", "open"):
        if cfg[name] not in (True, False):
            raise ValueError(f"{name}={cfg[name]}; give true or false")
    pairs = PairFile(cfg.strength)
    store = ReviewStore(reviews_beside(pairs.path) if cfg.reviews is None else Path(cfg.reviews))
    session = ReviewSession(pairs, store, cfg.order, cfg.blind, cfg.seed)
    token = secrets.token_urlsafe(16) if cfg.token is None else str(cfg.token)
    console = plain_console()
    repeats = len(pairs) - len(pairs.row_of)
    told = f"; {repeats:,} rows repeat an id, and what is decided of one holds for all" if repeats else ""
    console.print(f"{len(pairs):,} pairs of {pairs.path}{told}", soft_wrap=True)
    console.print(f"decisions are added to {store.path}", soft_wrap=True)
    if lost := {name for reviews in store.standing().values() for name in reviews} - pairs.row_of.keys():
        console.print(
            f"decisions there about {number_of(len(lost), 'pair')} that {pairs.path} does not have are left alone"
        )

    def ready(url: str) -> None:
        page = f"{url}/#token={quote(token, safe='')}"
        console.print(f"open {page}", soft_wrap=True)
        console.print("Ctrl-C ends the review; every decision is on the disk")
        if cfg.open:
            webbrowser.open(page)

    run_server(review_app(session, token, (str(cfg.host),)), cfg.host, cfg.port, ready)
    decided = {name: len(reviews) for name, reviews in store.standing().items() if reviews}
    counts = ", ".join(f"{name} {num:,}" for name, num in decided.items()) or "none"
    console.print(f"stopped; decisions: {counts}\n  {store.path}", soft_wrap=True)


def reviews_beside(path: Path) -> Path:
    """Return where decisions go if nobody says: strength.parquet -> strength_reviews.jsonl."""
    return path.with_name(f"{path.stem}_reviews.jsonl")


@command("review")
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    review_pairs(cfg)


if __name__ == "__main__":
    main()
