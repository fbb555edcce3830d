"""What a row may hand to its chat template, and what is for the caller of the template alone."""

from __future__ import annotations

import inspect

import pytest
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.formats.groups import parse_group
from lightning_rm.data.formats.template import RESERVED_ARGUMENTS
from lightning_rm.data.rows import BadRow
from tests.data.formats.test_pairs import SHAPES, bad, good

PLAIN = SHAPES["explicit prompt, texts"]


def test_every_argument_of_the_call_itself_is_reserved() -> None:
    """All that transformers names there; `documents` reaches the template, and other names do."""
    named = set(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters)
    assert named - {"self", "documents", "kwargs"} <= RESERVED_ARGUMENTS


@pytest.mark.parametrize("name", sorted(RESERVED_ARGUMENTS))
def test_a_row_may_not_set_it(name: str) -> None:
    given = {"chat_template_kwargs": {"enable_thinking": False, name: "{{ 1 }}"}}
    assert f"sets {name!r}" in bad(PLAIN | given).detail
    assert isinstance(parse_group({"prompt": "a", "responses": ["b"]} | given, "here"), BadRow)
    assert good(PLAIN | {"chat_template_kwargs": {"documents": [], name: None}}).chat_template_kwargs == {
        "documents": []
    }
