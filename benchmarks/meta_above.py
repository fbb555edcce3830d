"""MetaRM's model after an ascent, as the model that is used: measured on a run's own test sets, with nothing trained.

    python benchmarks/meta_above.py 'runs/meta/up_1/*'

MetaRM trains the model a step up the difference loss and hands out the model before that step. Here the step is taken
once more at the end: along the mean gradient of J over response groups that the run trained on, by each rate times the
norm of the weights. Rate 0 is the run's model as it is.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from functools import partial
from glob import glob
from itertools import chain, islice
from pathlib import Path

import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from lightning_rm.losses import difference_loss
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.ascent import Ascent, gradient_of
from lightning_rm.modules.gradients import squared_norm
from lightning_rm.modules.meta import MetaRM

RATES = (0.0, 0.001, 0.003, 0.01)
METRICS = ("test/accuracy", "test/shift_50/accuracy", "test/shift_100/accuracy", "test/shift_100/nll")
GROUP_METRICS = ("test/responses_shift_100/difference", "test/responses_shift_100/gold_correlation")


def measure(run: Path, num_batches: int) -> dict[float, dict[str, float]]:
    """The test metrics by the rate of the step."""
    cfg = OmegaConf.load(run / "config.yaml")
    tokenizer = instantiate(cfg.backbone.tokenizer)
    model = RewardModel.from_pretrained(run / "model" / "last", tokenizer=tokenizer, dropout=0.0)
    data = instantiate(cfg.data.module, _partial_=True)(tokenizer=tokenizer, reading=model.reading)
    data.setup("fit")
    batches = list(islice(chain.from_iterable(batch.responses for batch in data.train_dataloader()), num_batches))
    parameters = list(model.parameters())
    for groups in batches:
        (difference_loss(model(groups.tokens).reward, groups.present) / len(batches)).backward()
    gradients = [gradient_of(parameter) for parameter in parameters]
    model.zero_grad()
    length = squared_norm(parameters).sqrt() / squared_norm(gradients).sqrt()
    module, ascent = MetaRM(model, partial(torch.optim.SGD, lr=0.0)), Ascent(parameters)
    trainer = L.Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    found: dict[float, dict[str, float]] = {}
    for rate in RATES:
        ascent.start(gradients, rate * length)
        trainer.test(module, data, verbose=False)
        found[rate] = {name: float(trainer.callback_metrics[name]) for name in (*METRICS, *GROUP_METRICS)}
        ascent.forget()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of MetaRM's runs, or patterns of them")
    parser.add_argument("--batches", type=int, default=60, help="of response groups, for the gradient of J")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.set_num_threads(arguments.threads)
    runs = sorted(chain.from_iterable(map(glob, arguments.runs)))
    if not runs:
        raise ValueError(f"there is no run at {' '.join(arguments.runs)}")
    measured = [measure(Path(run), arguments.batches) for run in runs]
    for name in (*METRICS, *GROUP_METRICS):
        for rate in RATES:
            values = np.array([found[rate][name] for found in measured])
            spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
            print(f"{name:40} rate {rate:5}  {values.mean():.3f}{spread}")


if __name__ == "__main__":
    main()
