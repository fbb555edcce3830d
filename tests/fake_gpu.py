"""A GPU without values: tensors on `cuda` have a shape, a dtype and a device, and tensors on the CPU stay as they are.

What would mix devices, or dtypes under CUDA's own autocast, raises here as it would there; so does whatever asks such a
tensor for its value. torch's engine does not differentiate on a device that is not there: forward only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

DEVICE = "cuda:0"


class FakeGPU(FakeTensorMode):
    """Within it `cuda` is a device: what is computed from its tensors, or made there, is fake; all else is real."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        is_there = any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)))
        if is_there or torch.device(kwargs.get("device") or "cpu").type == "cuda":
            return super().__torch_dispatch__(func, types, args, kwargs)
        return func(*args, **kwargs)

    def put(self, module: nn.Module) -> None:
        """Put a module's weights and buffers there. `Module.to` would swap what is in a tensor, which torch refuses."""
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = nn.Parameter(_there(weight), weight.requires_grad)
            part._buffers.update({name: _there(buffer) for name, buffer in part._buffers.items() if buffer is not None})


def _there(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device=DEVICE)


@contextmanager
def half_precision() -> Iterator[None]:
    """CUDA's autocast to bfloat16, which `torch.autocast` leaves off where there is no GPU."""
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", torch.float16)
