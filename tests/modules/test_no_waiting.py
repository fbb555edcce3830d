"""No step on pairs waits for the device: nothing asks a tensor there for its value.

SwAV's queue does, for how full it is and whether what enters it is finite, and MetaRM for whether its gradients are.

On torch's `meta` device tensors have no values, and whatever asks for one raises. Where there is a GPU, torch itself
watches too.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from lightning.fabric.utilities import move_data_to_device

from lightning_rm.batch import LayoutName, PreferenceBatch, ReadAt, preference_batch
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.contrasted import Contrasted
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.strength_aware import StrengthAwareRM
from lightning_rm.modules.voters import VotersRM
from tests.tiny import CONFIGS, layouts_of, prompted, tiny_model

ADAMW = partial(torch.optim.AdamW, lr=1e-3)
METHODS: dict[str, Callable[[], PairwiseRM]] = {
    "baseline": lambda: BaselineRM(tiny_model(), ADAMW, centering=0.01),
    "strength_aware": lambda: StrengthAwareRM(tiny_model(), ADAMW, distill=0.5),
    "simcse": lambda: ContrastiveRM(
        tiny_model(), ADAMW, partial(SimCSE, other_weight=5.0, projection=4), dropout_at="features"
    ),
    "swav_diff": lambda: ContrastiveRM(
        tiny_model(), ADAMW, partial(SwAV, samples="difference"), dropout_at="embeddings"
    ),
    "voters": lambda: VotersRM(MemberRewardModel.of(tiny_model(), Members(num_members=3)), ADAMW),
}


def batch_of(layout: LayoutName, device: str, read_at: ReadAt = "last") -> PreferenceBatch:
    return preference_batch(LAYOUTS[layout](prompted(), read_at, 1)).to(device)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_asks_the_device_for_no_value(method: str, layout: LayoutName, monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast knows no meta device."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    module = METHODS[method]().to("meta").train()
    if isinstance(module, ContrastiveRM):  # whose first views of a run are looked at
        module.objective.last = Contrasted(*torch.zeros(3, 1))
    loss = module.training_step(batch_of(layout, "meta"), 0)
    loss.backward()
    assert all(weight.grad is not None for weight in module.model.head_parameters())
    with pytest.raises(RuntimeError, match="meta"):
        float(loss.detach())


@pytest.mark.parametrize(
    ("name", "attention"),
    [*((name, None) for name in CONFIGS), ("llama", "eager"), ("bert", "eager"), ("roberta", "eager")],
)
def test_no_backbone_asks_for_a_value(name: str, attention: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders among them, which see the padding after them unless told; Gemma 2's and DeBERTa's own is eager."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    module = BaselineRM(tiny_model(name, attn_implementation=attention), ADAMW).to("meta").train()
    for layout in layouts_of(module.model):
        loss = module.training_step(batch_of(layout, "meta", module.model.read_at), 0)
        loss.backward()
        assert loss.is_meta


def test_lightning_copies_batches_while_the_gpu_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks for that with plain tensors alone; on other devices a copy that nobody waits for is not safe."""
    batch, asked = batch_of("packed", "cpu"), []
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *args, **kwargs: asked.append((args, kwargs)) or tensor)
    for name in ("cuda", "mps", "cpu"):
        asked.clear()
        move_data_to_device(batch, torch.device(name))
        assert len(asked) > 10
        assert all(call == ((torch.device(name),), {"non_blocking": True} if name == "cuda" else {}) for call in asked)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU to wait for")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_waits_for_no_gpu(method: str, layout: LayoutName) -> None:
    module = METHODS[method]().to("cuda").train()
    optimizer: Any = ADAMW([weight for weight in module.parameters() if weight.requires_grad])
    batch = batch_of(layout, "cuda")
    module.training_step(batch, 0).backward()  # views are checked, kernels are loaded
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", torch.bfloat16):
            loss = module.training_step(batch, 1)
        loss.backward()
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert loss.isfinite()
