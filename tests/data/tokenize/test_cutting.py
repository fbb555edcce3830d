"""Cuts of prompts: the same as turn by turn, at a price that grows with what is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rm.data.rows import Message
from lightning_rm.data.tokenize import draft as drafts_module
from lightning_rm.data.tokenize.fitting import fit
from lightning_rm.data.tokenize.policy import TokenizePolicy
from tests import reference
from tests.data.words import TEMPLATE, group, pair, turns, word_tokenizer

ROLES = st.lists(st.sampled_from(["user", "assistant", "system"]), max_size=12)


@settings(max_examples=80)
@given(ROLES, st.lists(st.integers(1, 4), min_size=12, max_size=12), st.integers(1, 40))
def test_the_fewest_oldest_turns_go(roles: list[str], num_words: list[int], max_tokens: int) -> None:
    """A turn of n words is n + 1 tokens, the response 2, the end 1."""
    said = [" ".join(["w1"] * number) for number in num_words]
    prompt = [
        Message(role=role, content=f"{words} w{place}")
        for place, (role, words) in enumerate(zip(roles, said, strict=False))
    ]
    row = pair(prompt, "w2", "w3")
    (draft,) = fit([(0, row)], word_tokenizer(), TokenizePolicy(max_tokens, "truncate_prompt"))
    lengths = [number + 2 for number in num_words[: len(roles)]]
    left = reference.fewest_turns_cut(roles, lengths, max_tokens - 3)
    assert list(draft.prompt) == [prompt[place] for place in left]
    assert ("prompt cut" in draft.changes) == (len(left) < len(roles))
    assert draft.num_tokens == sum(lengths[place] for place in left) + 3


@pytest.mark.parametrize("num_turns", [801, 1601])
def test_a_long_dialogue_is_rendered_a_few_times(num_turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once as it is, and then short: ten tries of at most twice what is kept, however long it was."""
    rendered: list[int] = []

    def counted(tokenizer: Any, messages: Any, *arguments: Any, **options: Any) -> str:
        rendered.append(len(messages))
        return render(tokenizer, messages, *arguments, **options)

    render = drafts_module.render
    monkeypatch.setattr(drafts_module, "render", counted)
    dialogue = turns(*(f"w{i % 40}" for i in range(num_turns)))
    rows = [pair(dialogue, "w1", "w2"), group(dialogue, "w1", "w2")]
    fitted = [fit([(0, row)], word_tokenizer(), TokenizePolicy(100, "truncate_prompt"))[0] for row in rows]
    for draft in fitted:
        assert len(draft.prompt) == 47  # 94 tokens, the response 2 and the end 1; 49 turns would make 101
        assert draft.prompt == dialogue[-47:]
    whole = [number for number in rendered if number > 200]
    assert len(whole) == 4  # both responses of both rows
    assert len(rendered) - len(whole) < 50


def test_a_prompt_that_the_template_refuses_when_cut_is_refused() -> None:
    """As the search turn by turn would end: at the first cut that is refused, unless an earlier one fits."""
    refuses = "{% if messages[0]['content'] == 'w3' %}{{ raise_exception('no') }}{% endif %}" + TEMPLATE
    rows = [(0, pair(turns("w1", "w2", "w3"), "w4", "w5"))]
    (draft,) = fit(rows, word_tokenizer(refuses), TokenizePolicy(8, "truncate_prompt"))
    assert draft.failure == "TemplateError: no"
    (draft,) = fit(rows, word_tokenizer(refuses), TokenizePolicy(9, "truncate_prompt"))
    assert (draft.failure, draft.changes) == ("", {})
