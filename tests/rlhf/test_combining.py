"""Several reward models as one: centred on what the policy says, as far as they can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rm.data.rows import GroupRow, Message
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.rlhf.combining import combine_models
from lightning_rm.rlhf.reward_function import RewardFunction
from tests.toy import toy_model

TOKENIZER = world_tokenizer()
PROMPT: tuple[Message, ...] = ({"role": "user", "content": "name two red fruits."},)
BEGUN: tuple[Message, ...] = (*PROMPT, {"role": "assistant", "content": "apple and"})
LONG = "apple " * 300


def group(prompt: tuple[Message, ...], *texts: str, **more: Any) -> GroupRow:
    said: list[Message] = [{"role": "assistant", "content": text} for text in texts]
    return GroupRow(prompt, tuple((turn,) for turn in said), "0", "0", **more)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    places = [tmp_path_factory.mktemp("models") / str(seed) for seed in range(2)]
    for seed, place in enumerate(places):
        toy_model(seed).save_pretrained(place, TOKENIZER)
    return places


def test_members_are_centred_on_the_rewards_of_what_they_can_read(folders: list[Path], tmp_path: Path) -> None:
    """Two of five responses are longer than the models read, and one goes on with a beginning of its own."""
    groups = [group(PROMPT, "apple and cherry", LONG, ""), group(BEGUN, "crab", LONG)]
    found = combine_models(folders, groups, "worst", 1.0, tmp_path / "one")
    assert found is not None
    asked = [(each.prompt, response[0]["content"]) for each in groups for response in each.responses]
    prompts, texts = zip(*[(prompt, text) for prompt, text in asked if text != LONG], strict=True)
    members = np.array([RewardFunction(folder, device="cpu")(prompts, texts) for folder in folders])
    assert found.offsets.tolist() == pytest.approx(members.mean(axis=1).tolist(), abs=1e-6)
    worst = (members - members.mean(axis=1, keepdims=True)).min(axis=0)
    assert RewardFunction(tmp_path / "one", device="cpu")(prompts, texts) == pytest.approx(worst.tolist(), abs=1e-6)


def test_arguments_of_the_template_are_handed_to_it(
    folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    write = type(TOKENIZER).apply_chat_template

    def heard(self: Any, *args: Any, **options: Any) -> Any:
        told.append(options.get("enable_thinking"))
        return write(self, *args, **options)

    monkeypatch.setattr(type(TOKENIZER), "apply_chat_template", heard)
    combine_models(
        folders,
        [group(PROMPT, "apple", chat_template_kwargs={"enable_thinking": False})],
        "mean",
        1.0,
        tmp_path / "one",
    )
    assert False in told


def test_models_that_can_read_nothing_are_not_centred(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"can read none of 1 responses, the first because of: .*are read; make max_"):
        combine_models(folders, [group(PROMPT, LONG)], "mean", 1.0, tmp_path / "one")


def test_an_average_of_weights_reads_no_response(folders: list[Path], tmp_path: Path) -> None:
    assert combine_models([folders[0], folders[0]], [], "warm", 1.0, tmp_path / "one") is None
    (one, average) = (RewardFunction(folder, device="cpu") for folder in (folders[0], tmp_path / "one"))
    pairs = zip(one.model.state_dict().values(), average.model.state_dict().values(), strict=True)
    assert all(torch.equal(before, after) for before, after in pairs)
