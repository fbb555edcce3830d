"""`lightning-rm weigh`: importance weights of pairs for the current policy, as a column that every module reads."""

from __future__ import annotations

from pathlib import Path

import lightning as L
import numpy as np
from omegaconf import DictConfig

from lightning_rm.commands._config import plain_console, require_all, say_files, template_arguments
from lightning_rm.commands._data import find_policy, find_source
from lightning_rm.commands._entry import command
from lightning_rm.commands._progress import Bar, resumable
from lightning_rm.commands._tables import report_table
from lightning_rm.drafts import check_place
from lightning_rm.rlhf.importance import Weighing
from lightning_rm.rlhf.weigh import weigh
from lightning_rm.rlhf.weighed_file import Weighed, weighed_by
from lightning_rm.scoring.parts import parts_of, remove_left

FEW = 0.1
"""Share of effective pairs below which a weighing is worth a second look."""


def weigh_pairs(cfg: DictConfig) -> Path:
    """Weigh a data set.

    Args:
        cfg: `conf/weigh.yaml`, composed.

    Returns:
        The file written.
    """
    require_all(cfg)
    out = Path(cfg.out)
    weighing = Weighing(cfg.power, cfg.relative, cfg.per_token, cfg.clip)
    check_place(out)
    if out.exists() and not cfg.overwrite:
        remove_left(parts_of(out), out)
        raise ValueError(f"out={cfg.out!r} is there already{_said_by(out)}; name another, or set overwrite=true")
    fabric = L.Fabric(accelerator=cfg.accelerator, devices=1)
    console = plain_console()
    with resumable("computed"), Bar(console) as bar:
        weighed = weigh(
            find_source(cfg),
            cfg.policy,
            out,
            reference=cfg.reference,
            weighing=weighing,
            tokenize=find_policy(cfg),
            kept=cfg.keep,
            shard_pairs=cfg.shard_pairs,
            device=fabric.device,
            batch_tokens=cfg.batch_tokens,
            progress=bar.show,
            temperature=cfg.temperature,
            dtype=cfg.dtype,
            chat_template=cfg.chat_template,
            chat_template_kwargs=template_arguments(cfg),
            trust_remote_code=cfg.trust_remote_code,
        )
    console.print(report_table({"weighed": weighed.report}))
    for line in summary(weighed):
        console.print(line, soft_wrap=True)
    say_files(console, out)
    return out


def summary(weighed: Weighed) -> list[str]:
    """Return what to say of weights."""
    weight, effective = weighed.importance.weight, weighed.importance.effective
    num_pairs, num_clipped = len(weight), int(weighed.importance.clipped.sum())
    points = np.quantile(weight, [0, 0.25, 0.5, 0.75, 1])
    named = zip(("min", "25%", "median", "75%", "max"), points, strict=True)
    lines = [
        "importance: " + ", ".join(f"{name} {value:.3g}" for name, value in named),
        f"{num_pairs:,} pairs weigh as {effective:,.1f} of equal weight would ({effective / num_pairs:.1%})"
        + (f"; {num_clipped:,} ({num_clipped / num_pairs:.1%}) are bounded by clip" if num_clipped else ""),
    ]
    if weighed.reference is None:
        lines.append(
            "there is no reference: a pair weighs by how likely the policy is to say its responses, which is not an "
            "importance weight"
        )
    else:
        chosen, rejected = (weighed.policy.total - weighed.reference.total).mean(axis=0)
        lines.append(
            f"log-probability of a response under the policy less that under the reference: {chosen:+.2f} nats chosen, "
            f"{rejected:+.2f} rejected"
        )
    if effective < FEW * num_pairs:
        lines.append("few pairs have most of the weight: a smaller power, per_token=true or clip=5 spread it")
    return lines


def _said_by(out: Path) -> str:
    """Return what to say about an existing file, if it holds weighed pairs."""
    told = weighed_by(out) if out.suffix == ".parquet" else {}
    return f", weighed for {told['policy'][0]}" if told else ""


@command("weigh", alone=True)
def main(cfg: DictConfig) -> None:
    """Run as the Hydra entry point."""
    weigh_pairs(cfg)


if __name__ == "__main__":
    main()
