from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_rm.batch import LayoutName
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.batches.shipping import ship
from tests.toy import toy_data


def tensors_of(value: Any) -> list[Tensor]:
    """Every tensor of a batch, in the batches and tuples within it too."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value):
        value = [getattr(value, field.name) for field in fields(value)]
    return [tensor for item in value for tensor in tensors_of(item)] if isinstance(value, list | tuple) else []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_batch_arrives_as_it_was_made_and_without_shared_memory(layout: LayoutName) -> None:
    here, there = toy_data(8, layout=layout), toy_data(8, layout=layout, num_workers=2)
    for data in (here, there):
        data.setup("fit")
    batches = list(zip(here.train_dataloader(), there.train_dataloader(), strict=True))
    assert len(batches) > 1
    for expected, found in batches:
        assert type(found) is type(expected)
        assert (found.subset_names, found.scale) == (expected.subset_names, expected.scale)
        assert len(tensors_of(expected)) > 12
        for one, other in zip(tensors_of(found), tensors_of(expected), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
            assert not one.is_shared()


class Odd(torch.utils.data.Dataset[Tensor]):
    """Tensors that are not plain arrays: of no dimension, of truths, a view with strides, with no elements."""

    kinds = (torch.tensor(2.5), torch.tensor([True, False]), torch.arange(6).view(2, 3).T, torch.empty(0, 4))

    def __len__(self) -> int:
        return len(self.kinds)

    def __getitem__(self, i: int) -> Tensor:
        return self.kinds[i]


def test_every_kind_of_tensor_arrives_and_can_be_written_to() -> None:
    arrived = list(DataLoader(Odd(), batch_size=None, collate_fn=ship, num_workers=1))
    for found, expected in zip(arrived, Odd.kinds, strict=True):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert torch.equal(found, expected)
        found.zero_()


def test_in_this_process_nothing_is_copied() -> None:
    batch = torch.zeros(2)
    assert ship(batch) is batch
