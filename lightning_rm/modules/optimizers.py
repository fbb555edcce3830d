"""Optimizers by name beside torch's: Muon for matrices, AdamW in eight bits. They know parameters and groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Optimizer
from torch.optim import Muon as TorchMuon

from lightning_rm.modules.optimization import ParameterGroups

MUON = "ns_steps"
"""An option that groups of Muon have, and those of AdamW have not."""


class Muon(Optimizer):
    """Muon for the backbone's matrices, AdamW for the rest: tables of embeddings, vectors, the head, a method's own.

    A matrix's step is its momentum with all singular values taken to one (Jordan et al., 2024), times
    `0.2 sqrt(max(rows, columns))`, so that AdamW's learning rate and decay serve both (Liu et al., arXiv 2502.16982).

    Args:
        groups: of `parameter_groups`, by their names; `ParameterGroups` know their tables of embeddings.
        lr: of both; a group's own goes before.
        weight_decay: of matrices.
        momentum: Muon's.
        betas: AdamW's.
        vocabulary: a matrix with more rows is a table of embeddings too, whatever the groups know.

    Raises:
        ValueError: if weights are sharded, where a rank would see a part of a matrix, or momentum would never end.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-5,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        vocabulary: int = 30_000,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}; give a share from 0 to below 1")
        matrices: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        tables = {id(table) for table in groups.tables} if isinstance(groups, ParameterGroups) else set[int]()
        for group in groups:
            parameters = cast("list[Tensor]", list(group["params"]))
            if any(isinstance(parameter, DTensor) for parameter in parameters):
                raise ValueError("Muon turns whole matrices, and these are sharded: take another optimizer, or ddp")
            turned = [one for one in parameters if _turns(one, vocabulary) and id(one) not in tables]
            chosen = turned if group.get("name") == "backbone" else []
            rest = [one for one in parameters if not any(one is other for other in chosen)]
            if chosen:
                matrices.append({**group, "params": chosen})
            if rest:
                name = f"{group['name']}_adamw" if chosen else group.get("name")
                others.append({**group, "params": rest, "name": name})
        inner: list[Optimizer] = []
        if matrices:
            options: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
            inner.append(TorchMuon(matrices, adjust_lr_fn="match_rms_adamw", **options))
        if others:
            inner.append(AdamW(others, lr=lr, weight_decay=weight_decay, betas=(betas[0], betas[1])))
        self._inner = inner
        super().__init__([group for one in inner for group in one.param_groups], {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Step both; groups and state are this optimizer's, so that schedules and checkpoints see one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for one in self._inner:
            turns = isinstance(one, TorchMuon)
            one.param_groups = [group for group in self.param_groups if (MUON in group) == turns]
            one.state = self.state
            one.step()
        return loss


def adamw_8bit(groups: Iterable[dict[str, Any]], paged: bool = False, **options: Any) -> Optimizer:
    """Return AdamW whose state has eight bits a number (Dettmers et al., arXiv 2110.02861), from bitsandbytes.

    Args:
        groups: of `parameter_groups`.
        paged: whether its state goes to the host's memory where the GPU's is short.
        **options: of AdamW.

    Raises:
        ValueError: without bitsandbytes; without a GPU where it is older than 0.50, or the state paged.
    """
    kinds = _bitsandbytes("adamw_8bit")
    if not torch.cuda.is_available():
        if paged:
            raise ValueError("optimizer.paged=true is for the memory of a GPU, and none is here; leave it out")
        if tuple(map(int, (found := version("bitsandbytes")).split(".")[:2])) < (0, 50):
            raise ValueError(f"optimizer=adamw_8bit without a GPU needs bitsandbytes 0.50, and {found} is installed")
    return (kinds.PagedAdamW8bit if paged else kinds.AdamW8bit)(groups, **options)


def adamw_paged(groups: Iterable[dict[str, Any]], **options: Any) -> Optimizer:
    """Return AdamW whose state, in 32 bits, goes to the host's memory where the GPU's is short, from bitsandbytes.

    Args:
        groups: of `parameter_groups`.
        **options: of AdamW.

    Raises:
        ValueError: without bitsandbytes, or without a GPU.
    """
    kinds = _bitsandbytes("adamw_paged")
    if not torch.cuda.is_available():
        raise ValueError("optimizer=adamw_paged is for the memory of a GPU, and none is here; take optimizer=adamw")
    return kinds.PagedAdamW32bit(groups, **options)


def _bitsandbytes(name: str) -> Any:
    """Return the module of optimizers of bitsandbytes, for the optimizer of that name."""
    if find_spec("bitsandbytes") is None:
        raise ValueError(f"optimizer={name} needs bitsandbytes; pip install 'lightning-rm[qlora]'")
    return import_module("bitsandbytes.optim")


def _turns(parameter: Tensor, vocabulary: int) -> bool:
    """Tell whether a parameter is a matrix, and not so long that it must be a table of embeddings."""
    return parameter.ndim == 2 and parameter.shape[0] <= vocabulary
