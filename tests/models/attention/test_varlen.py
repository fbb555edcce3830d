"""Attention by a variable-length kernel: what it is handed, and that a wrong kernel is not trusted.

That rewards and gradients are exact with a right one stands in `test_reward_model`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch

from lightning_rm.batch import LayoutName
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.attention import segments as attention
from lightning_rm.models.attention import varlen
from tests.float64 import assert_same
from tests.kernels import kernel
from tests.tiny import gradients, prompted, tiny_model

CPU = torch.device("cpu")
BFLOAT16 = torch.bfloat16


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    varlen.is_right.cache_clear()
    yield
    varlen.is_right.cache_clear()


def test_the_spans_of_a_tree() -> None:
    """[prompt | chosen | rejected] of 2, 1 and 2 tokens, and a sequence of 3."""
    spans = varlen.spans_of([2, 1, 2, 3], [0, 1, 2, 0], CPU)
    assert spans.key is not None
    assert spans.key.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 4, 5, 6, 7]
    assert spans.query_ends.tolist() == [0, 2, 3, 5, 8]
    assert spans.key_ends.tolist() == [0, 2, 5, 9, 12]
    assert (spans.most_queries, spans.most_keys) == (3, 4)


def test_sequences_that_share_nothing_gather_no_keys() -> None:
    spans = varlen.spans_of([2, 3], [0, 0], CPU)
    assert spans.key is None
    assert spans.key_ends.tolist() == spans.query_ends.tolist() == [0, 2, 5]


@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 3), (False, None), (False, 2)])
def test_by_hand_is_the_kernel(causal: bool, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ways of writing the definition down: masks, and slices."""
    monkeypatch.setattr(varlen, "KERNEL", kernel)
    spans = varlen.spans_of([4, 2, 3, 5], [0, 1, 2, 0] if causal else [0, 0, 0, 0], CPU)
    query, key, value = (torch.randn(14, heads, 8, dtype=torch.float64) for heads in (4, 2, 2))
    found = varlen.attend(query, key, value, spans, causal, window, None)
    assert_same(found, varlen.by_hand(query, key, value, spans, causal, window))


def test_a_right_kernel_is_trusted(monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder) -> None:
    monkeypatch.setattr(varlen, "KERNEL", kernel)
    assert varlen.is_right(CPU, BFLOAT16)
    assert not [warning for warning in recwarn if "variable-length" in str(warning.message)]


def test_a_kernel_with_another_alignment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "KERNEL", partial(kernel, aligned="start"))
    with pytest.warns(UserWarning, match="is off by .*not used"):
        assert not varlen.is_right(CPU, BFLOAT16)


def test_a_kernel_that_is_not_there_is_not_used() -> None:
    """Torch has none for a CPU."""
    with pytest.warns(UserWarning, match="does not run on cpu"):
        assert not varlen.is_right(CPU, BFLOAT16)


def test_a_kernel_that_is_called_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As another version of torch may have it."""
    monkeypatch.setattr(varlen, "KERNEL", lambda query, key, value: query)
    with pytest.warns(UserWarning, match="does not run on cpu"):
        assert not varlen.is_right(CPU, BFLOAT16)


def test_a_cpu_and_dropout_are_not_served() -> None:
    """Asked before the kernel is tried: nothing is warned of."""
    assert not varlen.serves(torch.zeros(1, 4, 3, 64, dtype=BFLOAT16), 0.0)
    assert not varlen.serves(torch.zeros(1, 4, 3, 64, dtype=BFLOAT16, device="meta"), 0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("layout", ["packed", "shared_prefix"])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3"])
def test_on_a_gpu_the_kernel_agrees_with_one_rectangle(
    name: str, layout: LayoutName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16: rewards to .05, gradients to 5 % of their norm."""
    found: dict[str, tuple[torch.Tensor, dict[str, torch.Tensor]]] = {}
    ways = {"_without_padding": attention._without_padding, "_in_one_call": attention._in_one_call}
    for way, attend in ways.items():
        monkeypatch.setattr(attention, "_way", lambda *_, attend=attend: attend)
        model = tiny_model(name).cuda()
        with torch.autocast("cuda", BFLOAT16):
            reward = model(LAYOUTS[layout](prompted(), model.read_at, model.pad_id).to("cuda")).reward
        reward.square().sum().backward()
        found[way] = reward.detach(), gradients(model)
    (reward, gradient), (expected_reward, expected) = found["_without_padding"], found["_in_one_call"]
    torch.testing.assert_close(reward, expected_reward, atol=0.05, rtol=0.05)
    for key in expected:
        assert (gradient[key] - expected[key]).norm() <= 0.05 * expected[key].norm() + 1e-3, key
