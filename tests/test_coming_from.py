"""The page for those who come from TRL: its arguments exist there, its keys here, and the command line knows them."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from lightning_rm.commands._choices import compose_choices
from lightning_rm.commands._nearest import unknown_key
from lightning_rm.commands._other_names import OF_CHOICES, OTHER_NAMES
from lightning_rm.commands._words import parse

PAGE = Path(__file__).parents[1] / "docs" / "coming_from.md"
OF_THE_TRAINER = {"model", "train_dataset", "eval_dataset", "peft_config"}
SAME = {"max_steps", "pad_token", "seed", "trust_remote_code", "weight_decay"}
"""What has the name here that it has there, so that the nearest key is found without being told."""


def fields_of(module: str, name: str) -> set[str]:
    """The fields of a class, read from its file: importing TRL takes seconds."""
    package, *parts = module.split(".")
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).parent.joinpath(*parts).with_suffix(".py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    assigned = (node.target for node in found.body if isinstance(node, ast.AnnAssign))
    return {target.id for target in assigned if isinstance(target, ast.Name)}


def test_every_argument_is_trls_and_every_key_is_ours() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| `RewardConfig`")[2].partition("\n\n")[0]
    rows = [[re.findall(r"`([\w.]+)`", cell) for cell in line.split("|")[1:3]] for line in table.splitlines()[2:]]
    there = {
        *fields_of("trl.trainer.reward_config", "RewardConfig"),
        *fields_of("transformers.training_args", "TrainingArguments"),
        *OF_THE_TRAINER,
    }
    choice = compose_choices("train", parse(["backbone=hub_lora", "data=jsonl"]))
    here = choice.values.keys() | choice.groups | {"hydra.run.dir"}
    assert len(rows) > 20
    for theirs, ours in rows:
        assert set(theirs) <= there
        assert set(ours) <= here
        if len(theirs) == len(ours):
            assert all(OTHER_NAMES.get(name, key) == key for name, key in zip(theirs, ours, strict=True))
        assert all(name in OTHER_NAMES or name in SAME or name == "fsdp" for name in theirs)
    assert set(OTHER_NAMES.values()) - here == {"data.name", "resample.share"}
    assert set(OF_CHOICES) <= set(OTHER_NAMES.values())


def test_a_command_line_knows_what_other_trainers_call_a_key() -> None:
    """Every name of the second table, as it is written there, is told the key of its row."""
    table = PAGE.read_text(encoding="utf-8").partition("| here | OpenRLHF")[2].partition("\n\n")[0]
    choice = compose_choices("train", parse(["backbone=hub_lora", "data=jsonl"]))
    told: dict[str, str] = {}
    for line in table.splitlines()[2:]:
        here, *others = line.strip("| ").split("|")
        for name in re.findall(r"`-*([\w.]+)`", " ".join(others)):
            if not name.endswith(".json"):
                told[name] = unknown_key(name, choice)
                key = told[name].partition("the nearest is ")[2].split(" ")[-1].split("=")[0].strip("'")
                assert key in re.findall(r"[\w.]+", here), told[name]
    assert len(told) > 50
