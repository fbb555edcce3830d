"""Tokenizers that somebody made to cost without end, or to run code: refused in a sentence, or bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize import hostile
from lightning_rm.data.tokenize.encoding import encode_conversation, encode_texts
from lightning_rm.data.tokenize.templates import TEMPLATE_ERRORS
from lightning_rm.data.tokenize.tokenizer import load_tokenizer

Change = Callable[[dict[str, Any]], None]


def saved(folder: Path, change: Change | None = None, template: str | None = None, **config: Any) -> Path:
    """The made world's tokenizer, with changes of its files."""
    world_tokenizer().save_pretrained(folder)
    for name, changed in (("tokenizer.json", change), ("tokenizer_config.json", lambda values: values.update(config))):
        if changed is not None:
            values = json.loads((folder / name).read_text())
            changed(values)
            (folder / name).write_text(json.dumps(values))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


DOUBLES = "{% set is = namespace(x='ab') %}{% for i in range(99) %}{% set is.x = is.x ~ is.x %}{% endfor %}{{ is.x }}"


def replacing(pattern: dict[str, str], content: str, times: int) -> Change:
    one = {"type": "Replace", "pattern": pattern, "content": content}
    return lambda values: values.update(normalizer={"type": "Sequence", "normalizers": [one] * times})


@pytest.mark.parametrize(
    ("change", "times"),
    [
        (replacing({"String": "a"}, "a" * 10, 5), "100,000"),
        (replacing({"Regex": ""}, "a" * 10, 3), "1,331"),
        (replacing({"String": "a"}, "b" * 101, 1), "101"),
    ],
)
def test_a_normaliser_that_makes_gigabytes_of_a_word_is_refused(change: Change, times: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"normalizer of its tokenizer.json makes a text up to {times} times as long"):
        load_tokenizer(saved(tmp_path, change))


def test_one_that_writes_a_mark_for_a_space_is_taken(tmp_path: Path) -> None:
    folder = saved(tmp_path, replacing({"String": " "}, "▁", 1))
    assert encode_texts(load_tokenizer(folder), ["a"])


def test_a_pattern_that_goes_back_and_forth_is_given_up_in_a_sentence(tmp_path: Path) -> None:
    """2 to the 30 ways to divide the letters; the library stops after some millions."""
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    tokenizer = load_tokenizer(saved(tmp_path, lambda values: values.update(pre_tokenizer=split)))
    with pytest.raises(ValueError, match=r"gives up on a text \(.*retry-limit.*look at the patterns"):
        encode_texts(tokenizer, ["a" * 30 + "b"])


def test_code_beside_a_tokenizer_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'sign')!r}, 'w')")
    folder = saved(tmp_path, tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Mine", "mine.Mine"]})
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_tokenizer(folder)
    assert not (tmp_path / "sign").exists()


@pytest.mark.parametrize("content", ['{"a":' + "[" * 100_000, "not json", "{}", '{"version": "1.0", "model": 3}'])
def test_a_file_that_is_not_a_tokenizers_is_named(content: str, tmp_path: Path) -> None:
    (saved(tmp_path) / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=tmp_path.name):
        load_tokenizer(tmp_path)


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with (saved(tmp_path) / "tokenizer.json").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(ValueError, match=r"tokenizer.json has 8,589,934,592 bytes, and no tokenizer needs more than"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}x", "does not end within 200"),
        ("{{ ('x ' * 9999) | wordwrap(1) }}{% for i in range(9) %}{% endfor %}", "does not end within 200"),
        ("a\n{{ 'x' * 9 ** 9 ** 9 }}", r"line 2 of its chat template has a power \(\*\*\)"),
        ("{{ 'x' * 10000000000 }}", "has the number 10,000,000,000, where 1,000,000 is the most"),
        ("{{ '%s' | format('x') | center(10000000000) }}", "has the number 10,000,000,000"),
        ("{{ 'x' * 1000000 * 1000000 }}", "takes over 128 MiB of memory for a conversation of two words"),
        (DOUBLES, "takes over 128 MiB"),
        ("{{ messages[0].content * 1000000 * 2 }}", "makes 2,000,000 characters of a conversation of two words"),
    ],
)
def test_a_template_that_does_not_end_is_refused(template: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        load_tokenizer(saved(tmp_path, template=template))


SQUARES = "{% set is = namespace(x=9) %}{% for i in range(99) %}{% set is.x = is.x * is.x %}{% endfor %}x"


@pytest.mark.parametrize("template", [SQUARES, "{{ ('x' * 1000000) | wordwrap(1) }}"])
def test_a_template_that_takes_minutes_in_few_steps_is_refused(
    template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each square takes three times as long as the one before."""
    monkeypatch.setattr(hostile, "MAX_SECONDS", 0.05)
    with pytest.raises(ValueError, match=r"takes over 0.05 s of a processor for a conversation of two words"):
        load_tokenizer(saved(tmp_path, template=template))


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(1000000) %}x{% endfor %}",
        "{{ 1 // 0 }}",
        "{{ [][3] + 1 }}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    ],
)
def test_what_the_sandbox_refuses_a_template_is_an_error_of_the_row(template: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(saved(tmp_path, template=template))
    with pytest.raises(TEMPLATE_ERRORS):
        encode_conversation(tokenizer, [{"role": "user", "content": "a"}])
