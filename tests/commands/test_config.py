"""Errors of what knows no configuration, said with the keys of the command line."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from omegaconf import DictConfig, OmegaConf
from torch._dynamo.exc import Unsupported

from lightning_rm.commands._config import plain, template_arguments
from lightning_rm.commands._errors import full_keys, plain_errors
from tests.commands.test_conf import composed

RUN = "hydra.runtime.output_dir=run"


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    return composed("module=meta", "responses=synthetic", "backbone=hub", "data=jsonl", RUN)


@pytest.mark.parametrize(
    ("message", "keys"),
    [
        ("3 rows: overlong=drop, overlong=truncate_prompt or max_tokens=9", ["data.overlong", "data.max_tokens"]),
        ("set on_bad_row=drop; columns={prompt: null}", ["data.on_bad_row", "data.columns"]),
        ("set second_order=false or agreed_only=false", ["module.second_order", "module.agreed_only"]),
        ("batch_groups=0, order=1: no", ["responses.batch_groups", "layout.order"]),
        ("pad_token='x' is not in the vocabulary", ["backbone.pad_token"]),
        ("every_n_train_steps=0: give 1 or more", ["checkpoint.every_n_train_steps"]),
    ],
)
def test_options_get_their_full_keys(cfg: DictConfig, message: str, keys: list[str]) -> None:
    """What follows another option, `data.module.overlong: ${data.overlong}`, is not the one to set."""
    assert full_keys(cfg, message) == keys


@pytest.mark.parametrize(
    "message",
    [
        "data.max_tokens=4096, but 2048",  # whole already
        "monitor='val/acc'; set layout=packed, module=meta",  # keys, or groups, as they stand
        "num_prompt=1, val=2: no",  # no option; responses.val or data.module.val
        "path='none': no such folder",  # of the backbone, or of a file of pairs
        "the columns prompt and chosen",
        "out must be given: out=...",
        "train voters with: lightning-rm train -m overlong=drop",  # of another command
    ],
)
def test_no_keys_where_there_is_doubt(cfg: DictConfig, message: str) -> None:
    assert full_keys(cfg, message) == []


@pytest.mark.parametrize(
    ("words", "message", "keys"),
    [
        (["model=runs/no"], "path='runs/no' is not a folder", ["model"]),
        (["model=auto"], "path='auto' is not a folder", []),  # devices=auto is as good
        (["model=runs/no"], "path='runs/yes' is not a folder", []),
    ],
)
def test_an_argument_of_python_is_named_by_the_key_that_has_its_value(
    words: list[str], message: str, keys: list[str]
) -> None:
    assert full_keys(composed(*words, command="score"), message) == keys
    assert full_keys(composed("models=[a,runs/no]", command="evaluate"), "path='runs/no': no") == ["models"]


def test_a_mistake_is_said_with_its_keys(cfg: DictConfig, capsys: pytest.CaptureFixture[str]) -> None:
    for message in ("give identical=drop", "no way out"):
        with pytest.raises(SystemExit, match="1"), plain_errors(cfg):
            raise ValueError(message)
    expected = "error: give identical=drop\n(on the command line: data.identical)\nerror: no way out\n"
    assert capsys.readouterr().err == expected


def test_what_torch_does_not_compile_is_said_with_the_way_out(
    cfg: DictConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="1"), plain_errors(cfg):
        raise Unsupported("no such operator\n\nfrom user code: ...")
    said = "torch cannot compile this backbone (Unsupported: no such operator); leave compile=true out"
    assert capsys.readouterr().err == f"error: {said}\n(on the command line: backbone.model.compile)\n"


def test_a_metric_that_nobody_logs_stops_nothing_early(cfg: DictConfig, capsys: pytest.CaptureFixture[str]) -> None:
    """Metrics of training are known once it runs: Lightning's words, without its traceback."""
    with pytest.raises(SystemExit, match="1"), plain_errors(cfg):
        EarlyStopping("train/acc")._validate_condition_metric({"train/accuracy": torch.tensor(0.5)})
    said = capsys.readouterr().err
    assert said.startswith("error: callbacks.early_stopping: Early stopping conditioned on metric `train/acc`")


def test_lists_of_a_configuration_are_handed_on_as_what_they_come_to() -> None:
    told = OmegaConf.create({"home": "/m", "models": ["${home}/a", "b"], "named": {"a": "${home}/a"}, "one": "a"})
    assert [plain(told[key]) for key in ("models", "named", "one")] == [["/m/a", "b"], {"a": "/m/a"}, "a"]
    assert template_arguments(OmegaConf.create({"chat_template_kwargs": None})) == {}
    assert template_arguments(OmegaConf.create({"chat_template_kwargs": {"a": "${b}"}, "b": 1})) == {"a": 1}
