"""What is named in place of a model's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.model_paths import check_model_path
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring.load import load_model


def test_a_checkpoint_says_where_the_models_of_its_run_are(tmp_path: Path) -> None:
    """A file, or the folder of a sharded one; every way of loading says so."""
    for file in ("checkpoints/last.ckpt", "checkpoints/sharded.ckpt/.metadata", "model/last/config.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    for load in (RewardModel.from_pretrained, load_model, load_tokenizer):
        for name in ("last.ckpt", "sharded.ckpt"):
            with pytest.raises(ValueError, match=rf"is a checkpoint, .* models of this run are {tmp_path}/model/last;"):
                load(tmp_path / "checkpoints" / name)


@pytest.mark.parametrize(("name", "told"), [("model.safetensors", "a file of weights"), ("config.json", "a file")])
def test_a_file_of_a_model_says_its_folder(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(
        ValueError, match=rf"^'{tmp_path}/{name}' is {told}, and a model is a folder: name '{tmp_path}'"
    ):
        check_model_path(tmp_path / name)
    check_model_path(tmp_path)
    check_model_path("org/name.ckpt")


def test_what_names_no_model_is_said() -> None:
    for load in (RewardModel.from_pretrained, load_model, load_tokenizer):
        for path in (3, None):
            with pytest.raises(ValueError, match=rf"^{path} does not name a model: give a folder"):
                load(path)  # pyright: ignore[reportArgumentType]
