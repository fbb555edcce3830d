"""Float64 all the way: where transformers rounds to float32 whatever it is given, it does not here.

Two computations that must be the same are compared in float64, to 1e-12: a bound of float32 is met on one processor and
missed on the next. That takes models which round nowhere to float32 on their way.
"""

from __future__ import annotations

from functools import wraps
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from lightning_rm.models.reward_model import RewardModel

BOUND = 1e-12
"""What two float64 computations of one thing may differ by: some thousand times the last digit of numbers around 1."""


LOOSE = {"length_correlation": 1e-9}
"""Rewards that hardly differ: of sums of squares less the square of a sum five digits are left over, of sixteen."""


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Two float64 tensors are the same but for the order in which numbers were added."""
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=BOUND, atol=BOUND)


def same(expected: Any) -> Any:
    """What `==` takes for the same numbers, computed in float64 in another order; NaN is NaN."""
    return pytest.approx(expected, rel=BOUND, abs=BOUND, nan_ok=True)


def roughly(expected: Any) -> Any:
    """What `==` takes for rewards of models in float32, which is what models are trained and exported in.

    For tests of which reward goes where: rewards of the tests' models differ by more than 1e-2, and float32 adds some
    hundred numbers up to within 1e-5. That the numbers are right is said in float64 elsewhere.
    """
    return pytest.approx(expected, abs=1e-4, nan_ok=True)


def in_float64(model: RewardModel) -> RewardModel:
    """A model of that dtype, also DeBERTa, whose biases are made in float32 whatever they are asked to be in."""
    for parameter in model.parameters():
        parameter.data = parameter.data.double()
    return model


ROUNDING = ("Norm", "Router", "TopkRouter", "Gate", "DeltaNet", "Gating", "Mixer", "Attention", "Indexer")
"""Ends of the names of modules that compute in float32 whatever they are given."""


_forwards = 0
"""How many forwards that keep float64 are running, one within another."""


def _keeping(function: Any) -> Any:
    """A cast that leaves a float64 tensor as it is, and a sum or softmax that rounds none, within such a forward.

    Python's wrapper around five functions costs a tenth of what a `TorchFunctionMode` does, which sees every operation.
    """
    casts = function in (Tensor.float, Tensor.to, Tensor.type)

    @wraps(function)
    def keeping(values: Any, *args: Any, **options: Any) -> Any:
        if _forwards and isinstance(values, Tensor) and values.dtype == torch.float64:
            if casts and (function is plain_float or torch.float32 in (*args, *options.values())):
                return values
            if options.get("dtype") is torch.float32:
                options["dtype"] = torch.float64
        return function(values, *args, **options)

    return keeping


plain_float = Tensor.float


def keep_float64() -> None:
    """From here on, transformers' models keep float64 in norms, routers, states, softmax and attentions of their own.

    Other dtypes see nothing of it. Classes are patched when the first model that has them is built.
    """
    if hasattr(PreTrainedModel.post_init, "keeps_float64"):
        return
    # Up to transformers 5.17 at least it has torch compile functions of softmax, which must be torch's own then.
    import_module("transformers.models.gpt_bigcode.modeling_gpt_bigcode")
    post_init, softmax = PreTrainedModel.post_init, functional.softmax

    widened: set[type] = set()

    def wide_post_init(model: PreTrainedModel) -> None:
        for kind in {type(module) for module in model.modules()} - widened:
            widened.add(kind)
            for base in kind.__mro__:
                _widen(base)
        post_init(model)

    def wide_softmax(
        values: Tensor, dim: int | None = None, dtype: torch.dtype | None = None, **options: Any
    ) -> Tensor:
        wide = values.dtype if values.dtype == torch.float64 else dtype
        return softmax(values, dim=dim, dtype=wide, **options)

    for name in ("float", "to", "type", "softmax"):
        setattr(Tensor, name, _keeping(getattr(Tensor, name)))
    torch.sum = _keeping(torch.sum)
    wide_post_init.keeps_float64 = True  # pyright: ignore[reportFunctionMemberAccess]
    PreTrainedModel.post_init = wide_post_init
    functional.softmax = wide_softmax


def _widen(kind: Any) -> None:
    own: Any = kind.__dict__.get("forward")
    rounds = kind.__name__.endswith(ROUNDING)
    if own is None or not rounds or not kind.__module__.startswith("transformers.") or hasattr(own, "keeps_float64"):
        return

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Tensor:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        if next((value.dtype for value in tensors if value.is_floating_point()), None) != torch.float64:
            return own(self, *args, **kwargs)
        global _forwards
        _forwards += 1
        try:
            return own(self, *args, **kwargs)
        finally:
            _forwards -= 1

    forward.keeps_float64 = True  # pyright: ignore[reportFunctionMemberAccess]
    kind.forward = forward
