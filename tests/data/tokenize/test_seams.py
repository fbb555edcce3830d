"""Cut texts have the ids of whole ones, whatever the tokenizer and wherever its special tokens stand."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, NormalizedString, PreTokenizedString, Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize import seams
from lightning_rm.data.tokenize.encoding import encode_texts
from lightning_rm.data.tokenize.seams import Added, cut_alike, seams_of
from lightning_rm.data.tokenize.seams import seams as seams_among

PIECES = ("<s>", "<|u|>", "</s>", "[E]", "x[", "Ab", "b", " ", "\n", "é", "'s", "1", "< s", "|u")


def tokenizer_of(normalizer: Any, pre_tokenizer: Any, *tokens: AddedToken) -> PreTrainedTokenizerFast:
    """A tokenizer of characters and a few words, so that where words begin and end shows in the ids."""
    characters = [*"".join(PIECES), "▁", "Ġ", "Ċ", *map(chr, range(161, 256))]
    vocabulary = dict.fromkeys([*characters, "Ab", "▁b", "bA", "Ġb", "##b", "##A", "<unk>"])
    model = models.BPE({piece: place for place, piece in enumerate(vocabulary)}, [("A", "b"), ("▁", "b"), ("b", "A")])
    tokenizer = Tokenizer(model)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.add_tokens(list(tokens))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


PLAIN = (AddedToken("<s>", normalized=False), AddedToken("<|u|>", normalized=False, special=True))
GREEDY = (AddedToken("</s>", normalized=False, lstrip=True, rstrip=True), AddedToken("[E]", normalized=False))
OTHERS = (AddedToken("x[", normalized=False), AddedToken("b", single_word=True, normalized=True))
TOKENIZERS = {
    "bytes": tokenizer_of(None, pre_tokenizers.ByteLevel(add_prefix_space=True), *PLAIN, *GREEDY),
    "first": tokenizer_of(None, pre_tokenizers.Metaspace(prepend_scheme="first"), *PLAIN, *GREEDY, *OTHERS),
    "always": tokenizer_of(normalizers.Lowercase(), pre_tokenizers.Metaspace(), *PLAIN, *OTHERS),
    "prepend": tokenizer_of(
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, *PLAIN, *GREEDY
    ),
    "words": tokenizer_of(normalizers.Strip(), pre_tokenizers.Whitespace(), *PLAIN, *GREEDY, *OTHERS),
    "world": world_tokenizer(),
}
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60)
@given(beginning=texts, rests=st.lists(texts, min_size=2, max_size=4))
def test_ids_are_those_of_whole_texts(name: str, beginning: str, rests: list[str]) -> None:
    """Every text is cut at every seam that there is, and at none is it another one."""
    tokenizer = TOKENIZERS[name]
    seam = seams_of(tokenizer)
    assert seam is not None
    for text in (beginning + rest for rest in rests):
        whole: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
        for match in seam.finditer(text):
            parts: Any = tokenizer([text[: match.start()], text[match.start() :]], add_special_tokens=False)
            assert [*parts["input_ids"][0], *parts["input_ids"][1]] == whole


def test_a_shared_prompt_is_tokenised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, draw = world_tokenizer(), random.Random(0)
    prompts = [" ".join(draw.choices(["the", "animals", "answer", "zebra"], k=40)) for _ in range(3)]
    texts = [f"<s><|user|>{prompt}<|assistant|>{answer}</s>" for prompt in prompts for answer in ("all", "and", "are")]
    texts.append("<s><|user|>a<|assistant|>b</s>")
    whole: Any = tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert [text[cut:] for text, cut in zip(texts, cut_alike(tokenizer, texts), strict=True)][:-1] == [
        f"<|assistant|>{answer}</s>" for _ in prompts for answer in ("all", "and", "are")
    ]
    assert cut_alike(tokenizer, texts)[-1] == 0  # too little to be worth it
    assert encode_texts(tokenizer, texts) == whole
    monkeypatch.setattr(seams, "MIN_SHARED", 1)
    assert encode_texts(tokenizer, [*texts, "", texts[0], *texts[:2]]) == [*whole, [1], whole[0], *whole[:2]]


def test_which_tokens_are_seams() -> None:
    """Those that no other one contains or can reach into, begin with a mark, and take nothing of their neighbours."""

    def added(content: str, **how: bool) -> Added:
        return Added(content, **{**dict.fromkeys(("normalized", "single_word", "lstrip", "rstrip"), False), **how})

    def found(*tokens: Added) -> set[str]:
        seam = seams_among(tokens)
        return {token.content for token in tokens if seam and seam.fullmatch(token.content)}

    assert found(added("<s>"), added("s>"), added("</s>")) == {"<s>", "</s>"}
    assert found(added("<s>"), added("x<"), added("[[")) == set()
    assert found(added("<s>"), added("<s><s>")) == set()
    assert found(added("<a>", lstrip=True), added("<b>", rstrip=True), added("<c>", single_word=True)) == set()
    assert found(added("<a>", normalized=True), added("a>"), added("_a"), added("<a "), added("<b>")) == {"<b>"}
    assert found() == set()


def test_a_tokenizer_that_may_look_further_than_a_piece_has_no_seams() -> None:
    class Numbered:
        def pre_tokenize(self, text: PreTokenizedString) -> None:
            text.split(numbered)

    def numbered(number: int, piece: NormalizedString) -> list[NormalizedString]:
        return [NormalizedString(f"{number}"), piece]

    class Own(PreTrainedTokenizerFast):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return super().__call__(*arguments, **options)

    world = world_tokenizer()
    assert seams_of(world) is not None
    assert seams_of(Own(tokenizer_object=world.backend_tokenizer)) is None
    own_splits: Any = world_tokenizer()
    own_splits.backend_tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Numbered())
    assert seams_of(own_splits) is None
    world.split_special_tokens = True
    assert seams_of(world) is None
