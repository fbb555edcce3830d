"""How pairs are laid on the token grid, by the user's word or by what the model and the pairs call for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from lightning_rm.batch import Reading
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.datamodule import PreferenceDataModule
from tests.data.datamodule.given import Rows, data, groups, pair, tokenizer


def test_layout_and_reading_place_are_handed_on() -> None:
    data_module = data(layout="packed", reading=Reading("first"), batch_pairs=None, batch_tokens=100)
    batch = next(iter(data_module.train_dataloader()))
    assert batch.tokens.input_ids.shape[0] == 1
    assert batch.num_pairs > 2
    assert batch.tokens.num_tokens <= 100
    assert (batch.tokens.position_ids.flatten()[batch.tokens.reward_index] == 0).all()


LONG_PROMPT = ({"role": "user", "content": " ".join(["w1"] * 20)},)


def test_a_shared_prompt_is_read_once() -> None:
    rows = [replace(pair(i), prompt=LONG_PROMPT, prompt_id=str(i)) for i in range(4)]
    grids = [next(iter(data(train=Rows(rows), layout=layout).train_dataloader())) for layout in LAYOUTS]
    padded, packed, shared = (batch.tokens for batch in grids)
    assert shared.num_tokens < packed.num_tokens <= padded.num_tokens
    read = {tuple(tokens.input_ids.flatten()[tokens.reward_index].flatten().tolist()) for tokens in (packed, shared)}
    assert len(read) == 1


@pytest.mark.parametrize(
    ("options", "prompt", "layout", "reason"),
    [
        ({"reading": Reading(fast_layouts=("padded",))}, LONG_PROMPT, "padded", "no fast way to keep sequences apart"),
        ({"reading": Reading("first")}, LONG_PROMPT, "packed", "tokens see what follows them"),
        ({}, LONG_PROMPT, "shared_prefix", "saves [1-9][0-9]% of its tokens"),
        ({}, pair(1).prompt, "packed", "would save only 0.0%"),
    ],
)
def test_layout_auto_says_what_it_took_and_why(options: dict[str, Any], prompt: Any, layout: str, reason: str) -> None:
    rows = [replace(pair(i), prompt=prompt) for i in range(4)]
    data_module = data(train=Rows(rows), layout="auto", **options)
    assert data_module.layout == layout
    assert re.search(reason, data_module.choice.reason)


def test_a_layout_opens_no_set_that_is_not_read() -> None:
    for layout in ("padded", "auto"):
        data_module = data(layout=layout)
        data_module.setup("validate")
        assert len(list(data_module.val_dataloader()[0])) == 3
        assert list(data_module.datasets) == ["val"]


def test_responses_alone_have_a_layout() -> None:
    data_module = PreferenceDataModule(tokenizer(), test_responses=groups(3), layout="auto")
    (loader,) = data_module.test_dataloader()
    assert next(iter(loader)).num_groups == 3
    assert data_module.layout == "shared_prefix"


def test_a_prompt_is_not_shared_by_two_kinds_of_length() -> None:
    """A chosen response is long, three others are not: the prompt, 24 tokens, stands there for each kind."""
    longer = {"role": "assistant", "content": " ".join(["w2"] * 20)}
    rows = [replace(pair(i), prompt=LONG_PROMPT, prompt_id=str(i)) for i in range(2)]
    rows[0] = replace(rows[0], chosen=(longer,))
    options: dict[str, Any] = {"train": Rows(rows), "layout": "shared_prefix", "batch_pairs": 2}
    made = [data(**options, reading=Reading(steady_tokens=limit)) for limit in (None, 40, 60)]
    sizes = [next(iter(one.train_dataloader())).tokens.num_tokens for one in made]
    prompt = 24
    assert sizes == [sizes[0], sizes[0] + prompt, sizes[0]]
    # Both pairs together may take 2 * (prompt + 7) + 30 = 92 tokens, where nothing is long 61.
    options |= {"batch_pairs": None, "batch_tokens": (most := 2 * (prompt + 7) + 26)}
    made = [data(**options, reading=Reading(steady_tokens=limit)) for limit in (None, 40, 60)]
    cut = [[batch.tokens.num_tokens for batch in one.train_dataloader()] for one in made]
    assert [len(batches) for batches in cut] == [1, 2, 1]
    assert max(size for batches in cut for size in batches) <= most


def test_auto_measures_what_two_kinds_of_length_can_share() -> None:
    """Where each chosen response is long and no other is, nothing: every pair has its prompt twice."""
    longer = {"role": "assistant", "content": " ".join(["w2"] * 20)}
    rows = [replace(pair(i), prompt=LONG_PROMPT, prompt_id=str(i), chosen=(longer,)) for i in range(4)]
    layouts = [data(train=Rows(rows), layout="auto", reading=Reading(steady_tokens=limit)).layout for limit in (40, 60)]
    assert layouts == ["packed", "shared_prefix"]


def test_an_encoder_shares_no_prefix() -> None:
    with pytest.raises(ValueError, match="use layout=packed, padded or auto"):
        data(layout="shared_prefix", reading=Reading("first"))


def test_a_models_reading_brings_the_commands_layout() -> None:
    """Without a layout, `auto` where a model says how it reads, and `padded` where nobody does."""
    rows = Rows([replace(pair(i), prompt=LONG_PROMPT) for i in range(4)])
    assert data(train=rows, reading=Reading()).layout == "shared_prefix"
    assert data(train=rows, reading=Reading("first")).layout == "packed"
    assert data(train=rows).layout == "padded"


def test_reading_knows_two_tokens() -> None:
    with pytest.raises(ValueError, match="read_at='middle'; it must be one of last, first"):
        Reading("middle")  # pyright: ignore[reportArgumentType]
