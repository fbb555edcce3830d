"""`lightning-rm export`: a run's model as a folder for others, with its card and what its rewards are like."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedTokenizerBase

from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.callbacks.checkpoint_files import check_bytes
from lightning_rm.commands._config import config_of, plain, plain_console, require_all, say_files
from lightning_rm.commands._entry import command
from lightning_rm.commands._progress import Bar
from lightning_rm.commands._targets import check_targets
from lightning_rm.data.sources.files import FileSource
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.publishing.publish import CARD_FILE, PublishOptions, publish


def export_run(cfg: DictConfig) -> Path:
    """Export a run.

    Args:
        cfg: `conf/export.yaml`, composed.

    Returns:
        The folder written.

    Raises:
        ValueError: if there is no run, the folder holds a model already, or the run has no adapters to write alone.
    """
    require_all(cfg)
    run, out = Path(cfg.run), Path(cfg.out)
    _check_out(cfg, run, out)
    seeds = [other.folder for other in find_runs("seeds", plain(cfg.seeds))] if cfg.seeds is not None else []
    options = PublishOptions(cfg.name, cfg.license, cfg.data_license, cfg.dtype)
    console = plain_console()
    with Bar(console) as bar:
        card = publish(
            run,
            out,
            options,
            weights=cfg.weights,
            seeds=seeds,
            reference=None if cfg.reference is None else FileSource(plain(cfg.reference)),
            reference_name=str(cfg.reference),
            adapters=_with_adapters(run, cfg.weights) if cfg.adapter else None,
            progress=partial(bar.show, "reference"),
        )
    if card.reference is None:
        console.print("no validation rewards to take a mean and a spread of: give reference=FILE")
    say_files(console, out, out / CARD_FILE)
    return out


def _check_out(cfg: DictConfig, run: Path, out: Path) -> None:
    """Refuse a folder that is not to be replaced."""
    if any(out.resolve() in (inside.resolve(), *inside.resolve().parents) for inside in (run, Path.cwd())):
        raise ValueError(f"out={cfg.out!r} is replaced as a whole, and you or the run are in it; name another folder")
    if out.is_dir() and any(out.iterdir()) and not cfg.overwrite:
        raise ValueError(
            f"out={cfg.out!r} is not empty; name another folder, or set overwrite=true to replace its model"
        )


def _adapts(config: DictConfig) -> bool:
    """Tell whether a run trained adapters."""
    return any(OmegaConf.select(config, f"backbone.model.{key}") is not None for key in ("lora", "adapter"))


def _with_adapters(run: Path, weights: str) -> tuple[RewardModel, PreTrainedTokenizerBase]:
    """Return the run's model as it was trained, its adapters apart, from its checkpoint."""
    config = config_of(run)
    if config is None or not _adapts(config) or config.members is not None:
        raise ValueError(f"adapter=true: {run} has no adapters of its own to write alone; export it whole")
    paths = sorted((run / "checkpoints").glob(f"{weights}*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not paths:
        # A run without validation has its last weights alone.
        has_last = weights == "best" and (run / "checkpoints/last.ckpt").is_file()
        way = "export its last weights, weights=last, or it whole" if has_last else "export it whole"
        raise ValueError(f"adapter=true reads {run}/checkpoints/{weights}.ckpt, which is not there; {way}")
    check_targets(config, f"{run}/config.yaml")
    tokenizer: Any = instantiate(config.backbone.tokenizer)
    model: RewardModel = instantiate(config.backbone.model, tokenizer=tokenizer)
    check_bytes(paths[-1])
    state: dict[str, Any] = torch.load(paths[-1], map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    )
    return model.eval(), tokenizer


@command("export")
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    export_run(cfg)


if __name__ == "__main__":
    main()
