"""Every module's loss in bfloat16 on a GPU that computes nothing: no tensor is left on the host, no dtype is mixed.

On the kernel for segments of variable length and in one rectangle, which are the two ways to attend there.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from lightning_rm.batch import LayoutName, PreferenceBatch
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.attention import varlen
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrasted import Contrasted
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from tests import matrix, methods
from tests.fake_gpu import DEVICE, FakeGPU, half_precision
from tests.modules.test_no_waiting import ADAMW, batch_of
from tests.tiny import CONFIGS, layouts_of, tiny_model

MODULES = tuple(name for name in matrix.MODULES if not name.startswith("swav"))
"""SwAV asks the device how full its queue is."""


needs_cuda_build = pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="torch is built for CPUs alone, and crashes on fake tensors of CUDA"
)


def loss_on_gpu(module: PairwiseRM, batch: PreferenceBatch) -> torch.Tensor:
    """Return the loss of a training batch, after a look at the rewards that an evaluation would have."""
    with FakeGPU() as gpu, half_precision():
        gpu.put(module)
        if isinstance(module, ContrastiveRM):  # whose first views of a run are looked at
            module.objective.last = Contrasted(*torch.zeros(3, 1, device=DEVICE))
        there = batch.to(DEVICE)
        with torch.no_grad():
            reward = module.eval()(there).reward
        assert (reward.device.type, reward.dtype) == ("cuda", torch.float32)
        module.train()
        if isinstance(module, MetaRM):  # its step differentiates
            return module.losses(there, module(there))["loss"]
        return module.training_step(there, 0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def first_batch(method: str, module: PairwiseRM, cache: Path) -> PreferenceBatch:
    name = method.removesuffix("_lora")
    data = methods.data_of(name, cache / name, 4, layout="shared_prefix", reading=module.model.reading)
    data.prepare_data()
    data.setup("fit")
    return next(iter(data.train_dataloader()))


@needs_cuda_build
@pytest.mark.parametrize("method", MODULES)
def test_no_module_mixes_devices_or_dtypes(method: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "is_right", lambda device, dtype: True)
    module = methods.module_of(method, "float32")
    loss = loss_on_gpu(module, first_batch(method, module, cache))
    assert (loss.device.type, loss.dtype) == ("cuda", torch.float32)


@needs_cuda_build
@pytest.mark.parametrize(
    ("name", "attention"), [*((name, None) for name in CONFIGS), ("llama", "eager"), ("bert", "eager")]
)
def test_no_backbone_mixes_devices_or_dtypes(name: str, attention: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layout of a backbone is the one that asks most of it."""
    monkeypatch.setattr(varlen, "is_right", lambda device, dtype: True)
    model = tiny_model(name, attn_implementation=attention).float()
    loss = loss_on_gpu(BaselineRM(model, ADAMW), batch_of(layouts_of(model)[-1], "cpu", model.read_at))
    assert (loss.device.type, loss.dtype) == ("cuda", torch.float32)


@needs_cuda_build
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_layout_does_without_the_kernel(layout: LayoutName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "is_right", lambda device, dtype: False)
    loss = loss_on_gpu(BaselineRM(tiny_model().float(), ADAMW), batch_of(layout, "cpu"))
    assert (loss.device.type, loss.dtype) == ("cuda", torch.float32)


@pytest.mark.parametrize("method", [name for name in matrix.WHOLE if name not in ("sft", "lm_head")])
def test_autocast_rounds_no_reward_and_no_loss(method: str, cache: Path) -> None:
    """On a CPU, which has values: of one output they are the same to the bit. A language model's head is rounded."""
    module = methods.module_of(method, "float32", fixed_views=True)
    batch = first_batch(method, module, cache)
    output = module.train()(batch)
    expected = module.losses(batch, output)
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(module.losses(batch, output), expected, rtol=0, atol=0)
        assert module.eval()(batch).reward.dtype == torch.float32
