"""One run's NLL after a temperature: by its own validation pairs, or without any by one half of the prompts for the
other.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_rm.analysis.evidence import Records
from lightning_rm.losses.temperature import best_temperature, tempered_nll


class Tempered(NamedTuple):
    """NLL of a set, in nats, as it is and after a temperature.

    Args:
        nll: as it is.
        temperature: by which rewards are divided, the mean of two where each half has its own; NaN without any.
        after: NLL after it; NaN without any.
        lacks: why there is none, in words.
    """

    nll: float
    temperature: float = math.nan
    after: float = math.nan
    lacks: str = ""


def tempered(records: Records, validation: Sequence[Records]) -> Tempered:
    """Return the NLL after the temperature that validation pairs have.

    Args:
        records: of the set that is measured.
        validation: other pairs of the same run, at least one.
    """
    margin, label = _tensors([records])
    temperature, lacks = best_temperature(*_tensors(validation))
    nll = tempered_nll(margin, label, 1.0)
    if temperature is None:
        return Tempered(nll, lacks=lacks)
    return Tempered(nll, temperature, tempered_nll(margin, label, temperature))


def cross_tempered(records: Records) -> Tempered:
    """Return the NLL where each half of the prompts has the temperature that the other half gives it, a mean over all
    pairs. A prompt's half is in its name, the same in every run.
    """
    margin, label = _tensors([records])
    nll = tempered_nll(margin, label, 1.0)
    is_first = torch.tensor([hashlib.sha1(name.encode()).digest()[0] % 2 == 0 for name in records.prompt])
    temperatures: list[float] = []
    after = 0.0
    for here in (is_first, ~is_first):
        if not here.any() or here.all():
            return Tempered(nll, lacks="too few prompts for two halves")
        temperature, lacks = best_temperature(margin[~here], label[~here])
        if temperature is None:
            return Tempered(nll, lacks=lacks)
        temperatures.append(temperature)
        after += tempered_nll(margin[here], label[here], temperature) * int(here.sum()) / len(margin)
    return Tempered(nll, sum(temperatures) / 2, after)


def _tensors(records: Sequence[Records]) -> tuple[Tensor, Tensor]:
    """Return margins and labels of all records, (N,) each."""
    margin = np.concatenate([one.margin for one in records])
    return torch.from_numpy(margin), torch.from_numpy(np.concatenate([one.label for one in records]))
