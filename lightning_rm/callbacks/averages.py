"""Averaged weights, where a callback of Lightning's keeps them: what is measured is the average, and so is what is
exported.

It knows Lightning's callbacks; no metric and no file.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy, Strategy


def check_averages(callbacks: Sequence[L.Callback], strategy: Strategy) -> None:
    """Check that an average of the weights is one that validations measure, of weights that are whole.

    Raises:
        ValueError: if it is not.
    """
    if any(isinstance(callback, StochasticWeightAveraging) for callback in callbacks):
        raise ValueError(
            "StochasticWeightAveraging takes its average when training ends, after the last validation: neither the "
            "best weights nor what is measured would be of it; set lightning.pytorch.callbacks.EMAWeightAveraging or "
            "WeightAveraging, whose average every validation measures"
        )
    sharded = isinstance(strategy, ModelParallelStrategy | FSDPStrategy | DeepSpeedStrategy)
    if sharded and any(isinstance(callback, WeightAveraging) for callback in callbacks):
        raise ValueError(
            "Lightning's WeightAveraging copies whole weights, and these are sharded: leave the callback out, or set "
            "trainer=ddp"
        )


@contextmanager
def averaged(module: L.LightningModule, put_back_before: L.Callback | None = None) -> Generator[None]:
    """Put the average in the place of the trained weights; nothing where nobody keeps one.

    Args:
        module: whose weights are averaged, while a trainer trains it.
        put_back_before: a callback that asks in a hook in which Lightning puts the trained weights back, as at the end
            of a validation: averages that come after it have not been put back yet.
    """
    callbacks = _callbacks(module.trainer)
    until = len(callbacks) if put_back_before is None else callbacks.index(put_back_before)
    with ExitStack() as stack:
        for callback in callbacks[:until]:
            if isinstance(callback, WeightAveraging):
                average: Any = callback  # what it keeps is its own
                if average._average_model is not None:
                    average._swap_models(module)
                    stack.callback(average._swap_models, module)
        yield


def forget_averages(trainer: L.Trainer) -> None:
    """Leave averages out once training has ended: Lightning would validate its latest one in the place of a
    checkpoint's.
    """
    callbacks = _callbacks(trainer)
    callbacks[:] = [callback for callback in callbacks if not isinstance(callback, WeightAveraging)]


def _callbacks(trainer: L.Trainer) -> list[L.Callback]:
    """Return a trainer's callbacks, which it sets and does not declare."""
    return cast(Any, trainer).callbacks
