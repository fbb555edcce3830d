"""Templates, ids and policies, with ids and counts worked out by hand."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from lightning_rm.data.rows import BadRow, Message, PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.tokenize import encoding, preparing
from lightning_rm.data.tokenize.encoding import encode_texts
from lightning_rm.data.tokenize.fitting import fit, left_out_for
from lightning_rm.data.tokenize.pairs import TokenizePolicy, encode_conversation, load_tokenizer, prepare_pairs
from lightning_rm.data.tokenize.policy import Overlong
from lightning_rm.data.tokenize.preparing import notes
from lightning_rm.data.tokenize.templates import DECODER_TEMPLATE, ENCODER_TEMPLATE, read_template, with_fixed_date
from tests.data.words import ASSISTANT, BOS, EOS, SYSTEM, TEMPLATE, USER, Rows, pair, turns, word, word_tokenizer

BAD = BadRow("pairs.jsonl:3", "missing field", "field 'chosen' is missing")
TIE = BadRow("pairs.jsonl:4", "tie", "label is 0.5")


def ids(dataset: Any, i: int = 0) -> list[list[int]]:
    return [list(sequence) for sequence in dataset.sample(i).sequences]


class Changing(Rows):
    """Rows of a file that somebody writes to while it is read."""

    def fingerprint(self) -> str:
        return f"as it is after {self.num_reads} reads"


def test_data_that_changes_while_it_is_tokenised_leaves_no_cache_in_its_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the data has changed while it was tokenised; start again once it stays"):
        prepare_pairs(Changing(pair("w1", "w2", "w3")), word_tokenizer(), TokenizePolicy(), tmp_path)
    assert not list(tmp_path.iterdir())


# Loading a tokenizer


def saved(folder: Path, **options: Any) -> Path:
    word_tokenizer(**options).save_pretrained(folder)
    return folder


def test_a_tokenizer_that_takes_special_tokens_for_letters_has_a_cache_of_its_own(tmp_path: Path) -> None:
    """`<|user|>w1` is one unknown word to it; where the file of the other was found, its marks were read as marks."""
    whole, split = word_tokenizer(TEMPLATE), word_tokenizer(TEMPLATE)
    split.split_special_tokens = True
    row = pair("w1", "w2 w3", "w2")
    read = [prepare_pairs(Rows(row), one, TokenizePolicy(), tmp_path) for one in (whole, split)]
    assert ids(read[0])[0] == encode_conversation(whole, turns("w1", "w2 w3")) == [USER, 11, ASSISTANT, 12, 13, EOS]
    assert ids(read[1])[0] == encode_conversation(split, turns("w1", "w2 w3"))
    assert ids(read[0]) != ids(read[1])


def test_a_cache_that_cannot_be_written_says_how_to_name_another(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    with pytest.raises(NotADirectoryError, match="name another folder with cache_dir=, or LIGHTNING_RM_CACHE") as said:
        prepare_pairs(Rows([]), word_tokenizer(TEMPLATE), TokenizePolicy(), tmp_path / "cache")
    assert said.value.filename == str(tmp_path / "cache")


def test_a_tokenizer_keeps_its_own_pad_token_and_template(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path))
    assert (tokenizer.pad_token, tokenizer.chat_template, tokenizer.padding_side) == ("<pad>", TEMPLATE, "right")


def test_pad_equal_to_eos_is_mended_without_a_new_token(tmp_path: Path) -> None:
    """`<pad>` is known as a padding token by name; the vocabulary stays at 50, also after a save and a load."""
    shipped = word_tokenizer(pad_token="</s>")
    shipped.save_pretrained(tmp_path / "shipped")
    tokenizer = load_tokenizer(tmp_path / "shipped")
    tokenizer.save_pretrained(tmp_path / "exported")
    again = load_tokenizer(tmp_path / "exported")
    for loaded in (tokenizer, again):
        assert (loaded.pad_token, loaded.pad_token_id, len(loaded)) == ("<pad>", 3, 50)
    assert tokenizer("w1 w2")["input_ids"] == again("w1 w2")["input_ids"] == [word(1), word(2)]


def test_a_spare_special_token_pads_where_none_is_known_by_name(tmp_path: Path) -> None:
    """`<pad>` stands in the template here, so the last special token without a role, `<spare_2>`, is taken."""
    path = saved(tmp_path, template="<pad>" + TEMPLATE, pad_token="</s>")
    assert load_tokenizer(path).pad_token == "<spare_2>"


@pytest.mark.parametrize(("wanted", "fault"), [("<new>", "not in the vocabulary"), ("</s>", "end-of-sequence")])
def test_a_pad_token_that_cannot_serve_is_an_error(tmp_path: Path, wanted: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        load_tokenizer(saved(tmp_path), pad_token=wanted)


def test_a_pad_token_can_be_named(tmp_path: Path) -> None:
    assert load_tokenizer(saved(tmp_path), pad_token="<spare_0>").pad_token_id == 7


def test_no_token_to_pad_with_is_an_error_that_says_how(tmp_path: Path) -> None:
    """As GPT-2 ships: one special token that is unk, bos and eos."""
    backend = Tokenizer(models.WordLevel({"<end>": 0, "a": 1}, unk_token="<end>"))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<end>", bos_token="<end>", eos_token="<end>"
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"pad_token=\.\.\."):
        load_tokenizer(tmp_path)
    assert load_tokenizer(tmp_path, pad_token="a").pad_token_id == 1


def test_a_decoder_without_a_template_gets_the_documented_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        tokenizer = load_tokenizer(saved(tmp_path / "tokenizer", template=None))
    assert tokenizer.chat_template == DECODER_TEMPLATE
    assert "no chat template" in caplog.text
    text = tokenizer.apply_chat_template([*turns("w1", "w2", "w3")], tokenize=False)
    assert text == "User: w1\n\nAssistant: w2\n\nUser: w3</s>"
    report = prepare_pairs(Rows(pair("w1", "w2", "w3")), tokenizer, TokenizePolicy(), tmp_path / "cache").report
    assert report.notes == ["the tokenizer brings no chat template; the default for decoders is used"]


def test_an_encoder_without_a_template_gets_segments(tmp_path: Path) -> None:
    """`[CLS] w1 [SEP] w2 [SEP]`; CLS is not doubled though the tokenizer adds it too."""
    path = saved(tmp_path, template=None, adds_bos=True, bos_token="<s>", cls_token="<s>", sep_token="</s>")
    tokenizer = load_tokenizer(path)
    assert tokenizer.chat_template == ENCODER_TEMPLATE
    assert encode_conversation(tokenizer, turns("w1", "w2")) == [BOS, word(1), EOS, word(2), EOS]


def test_a_template_is_given_as_text_or_file(tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(TEMPLATE)
    assert read_template(str(file)) == read_template(TEMPLATE) == TEMPLATE
    with pytest.raises(ValueError, match="neither a jinja template"):
        read_template("no_such_file.jinja")


def test_a_template_prints_one_date_for_ever(tmp_path: Path) -> None:
    clock = "{% if strftime_now is defined %}{{ strftime_now('%Y-%m-%d') }} {{ strftime_now(\"%d %b %Y\") }}{% endif %}"
    tokenizer = load_tokenizer(saved(tmp_path, template=clock))
    assert tokenizer.apply_chat_template([*turns("w1")], tokenize=False) == "2024-07-26 26 Jul 2024"
    today = word_tokenizer(clock)
    assert today.apply_chat_template([*turns("w1")], tokenize=False) == datetime.now().strftime("%Y-%m-%d %d %b %Y")
    with pytest.raises(ValueError, match="today's date"):
        prepare_pairs(Rows(pair("w1", "w2", "w3")), today, TokenizePolicy(), tmp_path)
    assert with_fixed_date(TEMPLATE) == TEMPLATE


# One BOS, the same ids everywhere


@pytest.mark.parametrize(
    ("in_template", "adds_bos", "starts"),
    [(True, True, [BOS]), (True, False, [BOS]), (False, True, [BOS]), (False, False, [])],
)
def test_exactly_one_bos(in_template: bool, adds_bos: bool, starts: list[int]) -> None:
    tokenizer = word_tokenizer("{{ bos_token }}" * in_template + TEMPLATE, adds_bos=adds_bos)
    expected = [*starts, USER, word(1), ASSISTANT, word(2), EOS]
    assert encode_conversation(tokenizer, turns("w1", "w2")) == expected


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_whoever_serves_the_template_gives_the_ids_of_training(tmp_path: Path, template: str | None) -> None:
    """TRL, vLLM and `apply_chat_template` add no special tokens to what a template writes; a second load adds none."""
    tokenizer = load_tokenizer(saved(tmp_path / "shipped", template=template, adds_bos=True))
    tokenizer.save_pretrained(tmp_path / "exported")
    for loaded in (tokenizer, load_tokenizer(tmp_path / "exported")):
        served: Any = loaded.apply_chat_template([*turns("w1", "w2")], tokenize=True)
        assert served["input_ids"] == encode_conversation(loaded, turns("w1", "w2"))
        assert (served["input_ids"][0], served["input_ids"].count(BOS)) == (BOS, 1)
        assert loaded.chat_template == tokenizer.chat_template
    assert bool(notes(tokenizer)) == (template is None)


def test_a_template_is_left_alone_where_it_writes_bos_or_the_tokenizer_knows_none(tmp_path: Path) -> None:
    own = "{{ bos_token }}" + TEMPLATE
    assert load_tokenizer(saved(tmp_path / "own", template=own, adds_bos=True)).chat_template == own
    picky = "{{ raise_exception('system first') }}"
    assert load_tokenizer(saved(tmp_path / "picky", template=picky, adds_bos=True)).chat_template == picky


def test_a_bos_is_never_doubled_but_a_template_may_repeat_it_later() -> None:
    """Llama 2's template opens every user turn with BOS."""
    tokenizer = word_tokenizer(adds_bos=True)
    texts = ["<s><s>w1", "<s>w1</s><s>w2", "w1"]
    assert encode_texts(tokenizer, texts) == [[BOS, word(1)], [BOS, word(1), EOS, BOS, word(2)], [BOS, word(1)]]
    assert encode_texts(tokenizer, []) == []


@pytest.mark.parametrize("adds_bos", [True, False])
def test_prepared_pairs_hold_the_ids_that_are_served(tmp_path: Path, adds_bos: bool) -> None:
    template = "{% if tools %}{{ tools[0]['name'] }} {% endif %}{% if loud %}w9 {% endif %}" + TEMPLATE
    tokenizer = word_tokenizer(template, adds_bos=adds_bos)
    row = pair(turns("w1", "w2", "w3"), "w4 w5", "w6", tools=({"name": "w8"},), chat_template_kwargs={"loud": True})
    dataset = prepare_pairs(Rows(row), tokenizer, TokenizePolicy(), tmp_path)
    served = [
        encode_conversation(tokenizer, [*row.prompt, *response], row.tools, row.chat_template_kwargs)
        for response in (row.chosen, row.rejected)
    ]
    start = [BOS] * adds_bos
    prompt = [*start, word(8), word(9), USER, word(1), ASSISTANT, word(2), USER, word(3), ASSISTANT]
    assert ids(dataset) == served == [[*prompt, word(4), word(5), EOS], [*prompt, word(6), EOS]]
    assert dataset.sample(0).prompt_length == len(prompt)
    assert (dataset.lengths - dataset.prompt_lengths[:, None]).tolist() == [[3, 2]]


def test_tools_calls_and_template_arguments_reach_the_template() -> None:
    """A call of w7 with a tool named w8, and w9 as an argument of the row."""
    template = (
        "{{ tools[0]['name'] }}{% for message in messages %}"
        "{% for call in message.get('tool_calls', []) %} {{ call['function']['name'] }}{% endfor %}{% endfor %}"
        " {{ word }}{{ eos_token }}"
    )
    call: Message = {"role": "assistant", "content": "", "tool_calls": ({"function": {"name": "w7"}},)}
    found = encode_conversation(word_tokenizer(template), [*turns("w1"), call], ({"name": "w8"},), {"word": "w9"})
    assert found == [word(8), word(7), word(9), EOS]


def test_ids_equal_those_of_hugging_face(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    row = pair(turns("w1", "w2", "w3"), "w4", "w5")
    dataset = prepare_pairs(Rows(row), tokenizer, TokenizePolicy(), tmp_path)
    expected = tokenizer.apply_chat_template([*row.prompt, *row.chosen], return_dict=False)
    assert ids(dataset)[0] == expected


# The policy

LONG = [{"role": "system", "content": "w0"}, *turns("w1", "w2", "w3", "w4", "w5")]
"""With a response of one word: 2 + 5 * 2 + 2 + 1 = 15 tokens; 11 without the oldest exchange, 7 without the next."""


@pytest.mark.parametrize(
    ("max_tokens", "prompt", "cut"),
    [
        (15, [SYSTEM, 10, USER, 11, ASSISTANT, 12, USER, 13, ASSISTANT, 14, USER, 15], False),
        (14, [SYSTEM, 10, USER, 13, ASSISTANT, 14, USER, 15], True),
        (11, [SYSTEM, 10, USER, 13, ASSISTANT, 14, USER, 15], True),
        (10, [SYSTEM, 10, USER, 15], True),
        (7, [SYSTEM, 10, USER, 15], True),
    ],
)
def test_a_prompt_is_cut_at_turn_boundaries_from_the_left(
    tmp_path: Path, max_tokens: int, prompt: list[int], cut: bool
) -> None:
    policy = TokenizePolicy(max_tokens, "truncate_prompt")
    dataset = prepare_pairs(Rows(pair(LONG, "w6", "w7")), word_tokenizer(), policy, tmp_path)
    assert ids(dataset) == [[*prompt, ASSISTANT, 16, EOS], [*prompt, ASSISTANT, 17, EOS]]
    assert dataset.report.changes == ({"prompt cut": 1} if cut else {})


def test_both_responses_get_the_same_prompt_whichever_is_long(tmp_path: Path) -> None:
    policy = TokenizePolicy(11, "truncate_prompt")
    dataset = prepare_pairs(Rows(pair(LONG, "w6", "w7 w8 w9")), word_tokenizer(), policy, tmp_path)
    prompt = [SYSTEM, 10, USER, 15, ASSISTANT]
    assert ids(dataset) == [[*prompt, 16, EOS], [*prompt, 17, 18, 19, EOS]]
    assert dataset.text(0).prompt == "system: w0\n\nuser: w5"


def test_a_prompt_that_starts_with_the_assistant_is_cut_to_a_user_turn(tmp_path: Path) -> None:
    prompt = turns("w1", "w2", "w3", first="assistant")
    policy = TokenizePolicy(8, "truncate_prompt")
    dataset = prepare_pairs(Rows(pair(prompt, "w6", "w7")), word_tokenizer(), policy, tmp_path)
    assert ids(dataset)[0] == [USER, word(2), ASSISTANT, word(3), ASSISTANT, word(6), EOS]


OVERLONG_ROWS = Rows(
    pair("w1", "w2", "w3", "fits"),  # 5 tokens
    pair(turns("w1", "w2", "w3"), "w4", "w5", "long prompt"),  # 9, or 5 without the first exchange
    pair("w1", "w2 w3 w4", "w5", "long response"),  # 7
    pair("w1", "w2 w3 w4", "w2 w3 w5", "alike at first"),  # 7 and 7
    pair("w1 w1 w1 w1 w1", "w2", "w3", "long turn"),  # 9
)


@pytest.mark.parametrize(
    ("overlong", "kept", "reasons", "changes"),
    [
        ("drop", ["fits"], {"overlong": 4}, {}),
        ("truncate_prompt", ["fits", "long prompt"], {"overlong": 3}, {"prompt cut": 1}),
        (
            "truncate_response",
            ["fits", "long prompt", "long response"],
            {"identical after truncation": 1, "overlong": 1},
            {"prompt cut": 1, "response cut": 1},
        ),
    ],
)
def test_every_overlong_policy_counts(
    tmp_path: Path, overlong: Any, kept: list[str], reasons: dict[str, int], changes: dict[str, int]
) -> None:
    """At 6 tokens a response of 3 words is cut to 2, and `w2 w3 w4` against `w2 w3 w5` is the same twice."""
    dataset = prepare_pairs(OVERLONG_ROWS, word_tokenizer(), TokenizePolicy(6, overlong), tmp_path)
    assert [dataset.text(i).id for i in range(len(dataset))] == kept
    report = dataset.report
    assert (report.read, report.kept, report.reasons, report.changes) == (5, len(kept), reasons, changes)


def test_a_cut_response_is_the_conversation_that_is_left(tmp_path: Path) -> None:
    """`w2 w3 w4` at 6 tokens keeps `w2 w3` and the template's end; ids, words and lengths agree."""
    tokenizer = word_tokenizer()
    row = pair("w1", "w2 w3 w4", "w5")
    dataset = prepare_pairs(Rows(row), tokenizer, TokenizePolicy(6, "truncate_response"), tmp_path)
    assert ids(dataset) == [[USER, 11, ASSISTANT, 12, 13, EOS], [USER, 11, ASSISTANT, 15, EOS]]
    assert dataset.text(0).chosen == "w2 w3"
    assert ids(dataset)[0] == encode_conversation(tokenizer, turns("w1", "w2 w3"))


def test_a_response_of_one_token_is_not_cut_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pair is left"):
        prepare_pairs(Rows(pair("w1", "w2", "w3")), word_tokenizer(), TokenizePolicy(4, "truncate_response"), tmp_path)


def test_overlong_error_names_the_pairs_and_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="overlong=drop, overlong=truncate_prompt or a larger max_tokens") as caught:
        prepare_pairs(OVERLONG_ROWS, word_tokenizer(), TokenizePolicy(6, "error"), tmp_path, "train")
    assert str(caught.value).startswith("train: 4 of 5 rows cannot be used")
    assert "pair long prompt, pair long turn: overlong: 9 tokens, max_tokens=6" in str(caught.value)


WORDS = st.lists(st.sampled_from(["w1", "w2", "w3"]), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=60)
@given(st.lists(WORDS, min_size=1, max_size=5), WORDS, WORDS, st.integers(4, 20), st.sampled_from(get_args(Overlong)))
def test_whatever_is_kept_fits_and_is_what_is_served(
    prompt: list[str], chosen: str, rejected: str, max_tokens: int, overlong: Any
) -> None:
    tokenizer = word_tokenizer()
    row = pair(turns(*prompt), chosen, rejected)
    (draft,) = fit([(0, row)], tokenizer, TokenizePolicy(max_tokens, overlong))
    left = len(row.prompt) - len(draft.prompt)
    assert draft.prompt == row.prompt[left:]
    assert left % 2 == 0
    for words, response, tokens in zip((chosen, rejected), draft.responses, draft.ids, strict=True):
        assert tokens == encode_conversation(tokenizer, [*draft.prompt, *response])
        assert words.startswith(response[-1]["content"])
        assert left_out_for(draft, tokenizer, max_tokens) is not None or len(tokens) <= max_tokens
    if overlong in ("drop", "error"):
        assert (draft.changes, left) == ({}, 0)


IDENTICAL_ROWS = Rows(
    pair("w1", "w2", "w3", "differ"),
    pair("w1", "w2", "w2", "same words"),
    pair("w1", "w2  w3", "w2 w3", "same tokens"),
    pair("w1", "w2 " * 9, "w2 " * 9, "same and long"),
)


def test_identical_responses_are_dropped_and_counted(tmp_path: Path) -> None:
    dataset = prepare_pairs(IDENTICAL_ROWS, word_tokenizer(), TokenizePolicy(8), tmp_path)
    assert (len(dataset), dataset.report.reasons) == (1, {"identical responses": 2, "identical token ids": 1})
    assert dataset.report.examples["identical token ids"] == [
        "pair same tokens: chosen and rejected are the same 6 tokens, though not the same text"
    ]


def test_identical_token_ids_say_how_they_came_to_be(tmp_path: Path) -> None:
    """Two emoji are one unknown token; a template that writes no thoughts writes one text for two."""
    thought: Message = {"role": "assistant", "content": "w2", "reasoning_content": "w3"}
    emoji, thoughts = pair("w1", "w2 😀", "w2 😢"), replace(pair("w1", "w2", "w2"), chosen=(thought,))
    rows = Rows(pair("w1", "w2", "w3"), emoji, thoughts)
    report = prepare_pairs(rows, word_tokenizer(), TokenizePolicy(), tmp_path).report
    assert report.examples["identical token ids"] == [
        "pair 0: chosen and rejected are the same 6 tokens, though not the same text; 1 of them are unknown tokens",
        "pair 0: chosen and rejected are the same 5 tokens; the chat template writes one text for both and leaves out "
        "turn 1 (assistant), reasoning_content",
    ]


def test_identical_error_names_its_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 of 4 rows cannot be used(?s:.)*identical=drop\."):
        prepare_pairs(IDENTICAL_ROWS, word_tokenizer(), TokenizePolicy(8, identical="error"), tmp_path)


def test_bad_rows_are_dropped_and_counted_by_reason(tmp_path: Path) -> None:
    rows = Rows(BAD, pair("w1", "w2", "w3"), TIE, BAD)
    report = prepare_pairs(rows, word_tokenizer(), TokenizePolicy(on_bad_row="drop"), tmp_path).report
    assert (report.read, report.kept, report.reasons) == (4, 1, {"missing field": 2, "tie": 1})
    assert report.examples["missing field"] == ["pairs.jsonl:3: field 'chosen' is missing"]


def test_expected_reasons_are_counted_but_no_error(tmp_path: Path) -> None:
    report = prepare_pairs(Rows(TIE, pair("w1", "w2", "w3")), word_tokenizer(), TokenizePolicy(), tmp_path).report
    assert report.reasons == {"tie": 1}


def test_bad_rows_are_errors_after_the_whole_source_was_read(tmp_path: Path) -> None:
    """12 faults around a tie and a good pair: ten are shown, two more are counted, and nothing is cached."""
    bad = [BadRow(f"pairs.jsonl:{line}", "broken JSON", f"found '{line}'") for line in range(12)]
    with pytest.raises(ValueError, match=r"on_bad_row=drop\.$") as caught:
        prepare_pairs(
            Rows(*bad[:1], TIE, pair("w1", "w2", "w3"), *bad[1:]), word_tokenizer(), TokenizePolicy(), tmp_path, "val"
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "val: 12 of 14 rows cannot be used"
    assert lines[1:-2] == [f"  pairs.jsonl:{line}: broken JSON: found '{line}'" for line in range(10)]
    assert lines[-2] == "  and 2 more"
    assert list(tmp_path.iterdir()) == []


def test_a_fault_of_many_rows_is_said_once_with_their_number(tmp_path: Path) -> None:
    bad = [BadRow(f"a.jsonl:{line}", "missing field", "field 'chosen' is null") for line in range(30)]
    with pytest.raises(ValueError, match="train: 30 of 30 rows cannot be used") as caught:
        prepare_pairs(Rows(*bad), word_tokenizer(), TokenizePolicy(), tmp_path, "train")
    lines = str(caught.value).splitlines()
    assert lines[1:-1] == ["  a.jsonl:0, a.jsonl:1, a.jsonl:2 and 27 more: missing field: field 'chosen' is null"]
    with pytest.raises(ValueError, match="no pair is left") as caught:
        prepare_pairs(Rows(*bad), word_tokenizer(), TokenizePolicy(on_bad_row="drop"), tmp_path, "train")
    assert str(caught.value).count("field 'chosen' is null") == 1


def refusing_rows() -> list[PairRow]:
    return [
        pair("w1", "w2", "w3", "good"),
        pair(turns("w1", "w2", first="assistant"), "w2", "w3", "assistant first"),
        pair("w1", "w2", "w3", "kwargs", chat_template_kwargs={"tokenize": True}),
    ]


def test_a_row_that_the_template_refuses_is_a_bad_row(tmp_path: Path) -> None:
    """As Gemma's and Mistral's templates refuse turns that do not alternate; and an argument of another function."""
    refuses = (
        "{% if messages[0]['role'] != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}" + TEMPLATE
    )
    tokenizer = word_tokenizer(refuses)
    rows = refusing_rows()
    report = prepare_pairs(Rows(*rows), tokenizer, TokenizePolicy(on_bad_row="drop"), tmp_path).report
    assert (report.kept, report.reasons) == (1, {"chat template refuses": 2})
    with pytest.raises(ValueError, match="pair assistant first: chat template refuses: TemplateError: roles must"):
        prepare_pairs(Rows(*rows), tokenizer, TokenizePolicy(), tmp_path)


def test_a_row_whose_prompt_alone_the_template_refuses_is_a_bad_row(tmp_path: Path) -> None:
    """Its conversations are rendered; up to where a response begins there is no user's turn to answer."""
    refuses = (
        "{% if add_generation_prompt and messages[-1]['role'] != 'user' %}"
        "{{ raise_exception('there is no question') }}{% endif %}"
    )
    tokenizer = word_tokenizer(refuses + TEMPLATE)
    rows = [pair("w1", "w2", "w3", "good"), pair(turns("w1", "w2"), "w2", "w3", "no question"), pair("w4", "w5", "w6")]
    dataset = prepare_pairs(Rows(*rows), tokenizer, TokenizePolicy(on_bad_row="drop"), tmp_path)
    assert (dataset.report.kept, dataset.report.reasons) == (2, {"chat template refuses": 1})
    assert dataset.prompt_lengths.tolist() == [3, 3]
    assert ids(dataset, 1)[0] == [USER, word(4), ASSISTANT, word(5), EOS]
    with pytest.raises(ValueError, match="pair no question: chat template refuses: TemplateError: there is no quest"):
        prepare_pairs(Rows(*rows), tokenizer, TokenizePolicy(), tmp_path)


def test_rows_are_named_by_file_and_line(tmp_path: Path) -> None:
    """Whatever is found out later than the reading: template, length, responses that are the same."""
    lines = [
        '{"prompt": "w1", "chosen": "w2 w3 w4", "rejected": "w5"}',
        '{"prompt": "w1", "chosen": "w2", "rejected": "w2"}',
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match="rows cannot be used") as caught:
        prepare_pairs(FileSource(path), word_tokenizer(), TokenizePolicy(4, "error", "error"), tmp_path)
    assert f"{path}:1: overlong: 7 tokens" in str(caught.value)
    assert f"{path}:2: identical responses: chosen and rejected are the same text" in str(caught.value)
    with pytest.raises(ValueError, match=f"{path}:1: chat template refuses"):
        prepare_pairs(FileSource(path), word_tokenizer("{{ raise_exception('no') }}"), TokenizePolicy(), tmp_path)


def test_few_characters_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [pair("w1", " ".join(["w2"] * (i + 1)), "w3", str(i)) for i in range(9)]
    plain = prepare_pairs(Rows(*rows), word_tokenizer(), TokenizePolicy(), tmp_path / "one")
    monkeypatch.setattr(encoding, "MAX_CALL_CHARACTERS", 40)
    monkeypatch.setattr(preparing, "MAX_CHUNK_CHARACTERS", 30)
    assert [len(chunk) for chunk in preparing.chunks_of(Rows(*rows))] == [3, 2, 2, 2]
    bounded = prepare_pairs(Rows(*rows), word_tokenizer(), TokenizePolicy(), tmp_path / "many")
    assert [ids(bounded, i) for i in range(9)] == [ids(plain, i) for i in range(9)]


def test_a_data_set_without_pairs_is_an_error_with_its_counts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pair is left to use(?s:.)*identical responses 1"):
        prepare_pairs(Rows(pair("w1", "w2", "w2")), word_tokenizer(), TokenizePolicy(), tmp_path)
    with pytest.raises(ValueError, match="0 rows read"):
        prepare_pairs(Rows(), word_tokenizer(), TokenizePolicy(), tmp_path)


def test_rows_beyond_one_chunk_keep_their_order(tmp_path: Path) -> None:
    """2,005 rows in three batches, every tenth left out; row i has i % 30 words in its chosen response."""
    rows = [
        pair("w1", " ".join(["w2"] * (i % 30 + 1)), "w3", str(i)) if i % 10 else BadRow(str(i), "tie", "")
        for i in range(2005)
    ]
    dataset = prepare_pairs(Rows(*rows), word_tokenizer(), TokenizePolicy(), tmp_path)
    kept = [i for i in range(2005) if i % 10]
    assert dataset.lengths[:, 0].tolist() == [i % 30 + 5 for i in kept]
    assert [dataset.text(i).id for i in (0, 899, 900, 1803)] == ["1", "999", "1001", "2004"]
    assert ids(dataset, 1803)[0] == [USER, 11, ASSISTANT, *[12] * (2004 % 30 + 1), EOS]


@pytest.mark.parametrize(
    "options", [{"max_tokens": 0}, {"overlong": "cut"}, {"identical": "keep"}, {"on_bad_row": "skip"}]
)
def test_a_policy_of_unknown_words_is_an_error(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        TokenizePolicy(**options)


def test_every_overlong_word_is_a_policy() -> None:
    assert [TokenizePolicy(overlong=word).overlong for word in get_args(Overlong)] == list(get_args(Overlong))


def test_more_tokens_than_an_encoder_has_positions_is_an_error(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(ENCODER_TEMPLATE, cls_token="<s>", sep_token="</s>", model_max_length=512)
    with pytest.raises(ValueError, match="set max_tokens=512 or less"):
        prepare_pairs(Rows(pair("w1", "w2", "w3")), tokenizer, TokenizePolicy(1024), tmp_path)
