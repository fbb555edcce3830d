"""The task of a prompt is read off its words, for every family of the made world."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.data.synthetic.prompts import sample_prompt
from lightning_rm.data.synthetic.reading import task_of


@pytest.mark.parametrize("split", ["train", "val", "test", "ood"])
def test_a_prompt_leads_back_to_its_task(split: Any) -> None:
    prompts = [sample_prompt(split, Draws("reading", split, number)) for number in range(1500)]
    assert len({prompt.family for prompt in prompts}) == 4
    assert [task_of(prompt.messages) for prompt in prompts] == [prompt.task for prompt in prompts]


@pytest.mark.parametrize("text", ["what is a red fruit?", ""])
def test_other_prompts_have_no_gold(text: str) -> None:
    with pytest.raises(ValueError, match="is not a prompt of the made world"):
        task_of([{"role": "user", "content": text}])
