"""A card of any names is one that the hub takes and whose calls run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from lightning_rm.data.sources.records import RecordSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.publishing.calls import Kind, python_calls
from lightning_rm.publishing.card import Card, write_card
from lightning_rm.publishing.publish import publish
from tests.toy import toy_model, write_jsonl


@pytest.mark.parametrize("name", ["mine", "é/🦙", 'a "b"', "C:\\new\\model", "two words"])
def test_a_name_of_any_letters_is_read_back(name: str) -> None:
    card = write_card(Card("mine", Kind(name), license=name, base=name))
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == front["base_model"] == name
    for _, code in python_calls(Kind(name)):
        assert name in [value for value in compile(code, "card", "exec").co_consts if isinstance(value, str)]
    assert shlex.split(card.partition("```bash\n")[2].splitlines()[0]) == ["lightning-rm", "serve", f"model={name}"]


def test_the_reference_is_a_file_or_rows_in_memory(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path / "run/model/best", world_tokenizer())
    (tmp_path / "run/config.yaml").write_text("{}")
    rows = [{"prompt": "a cat", "chosen": "a dog", "rejected": text} for text in ("a fox", "an ox")]
    write_jsonl(tmp_path / "pairs.jsonl", RecordSource(rows))
    found = [
        publish(tmp_path / "run", tmp_path / name, reference=reference).reference
        for name, reference in (("a", rows), ("b", tmp_path / "pairs.jsonl"))
    ]
    assert found[0] is not None
    assert (found[0], found[0].num_rewards) == (found[1], 4)


def test_a_template_with_a_fence_stays_in_its_own() -> None:
    template = "{{ messages }}\n```\n## Not of the card\n````"
    card = write_card(Card("mine", Kind("mine"), template=template))
    assert f"\n`````jinja\n{template}\n`````\n" in card


@pytest.mark.parametrize("base", ["someone/model", "gpt2", "models/base", "/models/base", "~/base", "./base"])
def test_the_hub_is_told_of_a_base_that_it_may_have(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses a card whose `base_model` is a folder; the text names it all the same."""
    monkeypatch.chdir(tmp_path)
    Path("models/base").mkdir(parents=True)
    toy_model().save_pretrained("run/model/best", world_tokenizer())
    Path("run/config.yaml").write_text(yaml.safe_dump({"backbone": {"path": base}}))
    publish("run", "out")
    card = Path("out/README.md").read_text()
    found = re.findall(r"^base_model: (.*)$", card, flags=re.MULTILINE)
    assert found == ([f'"{base}"'] if base in ("someone/model", "gpt2") else [])
    assert f"- Trained from: {base}\n" in card


def test_calls_are_said_to_agree_where_they_do() -> None:
    one, several = (write_card(Card("mine", Kind("mine", num_members=number))) for number in (1, 3))
    assert "All of these give the same reward." in one
    assert "give the same reward" not in several
    assert "lightning_rm gives the mean over members, all others the reward of the members' average" in several
