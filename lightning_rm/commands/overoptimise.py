"""`lightning-rm overoptimise`: the best of n by reward models, and where gold falls as n grows."""

from __future__ import annotations

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from lightning_rm.analysis.plots.over_optimisation import GoldAndProxy, over_optimisation
from lightning_rm.analysis.plots.style import save_figure
from lightning_rm.commands._config import plain, plain_console, require_all, say_files
from lightning_rm.commands._entry import command
from lightning_rm.commands._progress import Bar, resumable
from lightning_rm.commands._tables import Blocks, words_table
from lightning_rm.devices import device_of
from lightning_rm.rlhf.overoptimise import OverOptimisation, PolicyFiles
from lightning_rm.rlhf.overoptimise import overoptimise as optimise


def overoptimise(cfg: DictConfig) -> OverOptimisation:
    """Score the samples, print the table, write the files.

    Args:
        cfg: `conf/overoptimise.yaml`, composed.

    Returns:
        The curves.
    """
    require_all(cfg)
    samples = instantiate(cfg.responses.train, _convert_="all")
    if samples is None:
        raise ValueError("there are no samples: name a file of them, responses.file=samples.jsonl")
    console = plain_console()
    with resumable("scored"), Bar(console) as bar:

        def show(model: str, benchmark: str, done: int, total: int) -> None:
            bar.show(Path(model).name, done, total, key=model)

        found = optimise(
            plain(cfg.models),
            samples,
            gold=cfg.gold,
            n=plain(cfg.n),
            out=cfg.out,
            policy=PolicyFiles(plain(cfg.policy_n), cfg.policy_k, instantiate(cfg.annotator), cfg.seed),
            weights=cfg.weights,
            on_bad_row=cfg.on_bad_row,
            batch_tokens=cfg.batch_tokens,
            device=device_of(cfg.accelerator),
            dtype=cfg.dtype,
            num_draws=cfg.num_draws,
            seed=cfg.seed,
            progress=show,
        )
    drawn = {
        name: GoldAndProxy(curve.n, curve.kl, curve.gold, curve.low, curve.high, curve.proxy)
        for name, curve in found.curves.items()
    }
    figures = save_figure(over_optimisation(drawn), Path(cfg.out) / "overoptimise")
    console.print(table_of(found))
    for line in (found.about(), *found.notes):
        console.print(line, soft_wrap=True)
    say_files(console, *found.files, *figures)
    return found


def table_of(found: OverOptimisation) -> Blocks:
    """Return the table for a terminal."""
    return words_table(found.rows())


@command("overoptimise")
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    overoptimise(cfg)


if __name__ == "__main__":
    main()
