"""A value of another kind is an error in a sentence before anything is built."""

from __future__ import annotations

import pytest
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._kinds import check_kinds, check_texts, misread_number

OF_THE_ENVIRONMENT = """one of the environment as 'seed="${oc.decode:${oc.env:NAME}}"'"""


def test_the_defaults_are_of_the_kinds_that_are_taken(cfg: DictConfig) -> None:
    check_kinds(cfg)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("callbacks.early_stopping.patience", "two", "callbacks.early_stopping.patience=two; give a whole number"),
        ("callbacks.top_k.save_top_k", 2.5, "callbacks.top_k.save_top_k=2.5; give a whole number"),
        ("trainer.limit_val_batches", "x", "trainer.limit_val_batches=x; give a number or null"),
        ("data.epochs", 2.0, "data.epochs=2.0; give a whole number, 2 or null"),  # by trainer.max_epochs
        ("data.batch_tokens", "many", "data.batch_tokens=many; give a whole number or null"),
        ("optimizer.fused", "maybe", "optimizer.fused=maybe; give true or false or null"),
        ("module.max_skipped", None, "module.max_skipped=null; give a whole number"),
        ("module.head_lr", True, "module.head_lr=true; give a number or null"),
        (
            "trainer.callbacks",
            [{"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "train/loss", "patience": "two"}],
            "trainer.callbacks[0].patience=two; give a whole number",
        ),
    ],
)
def test_an_argument_takes_what_its_type_says(cfg: DictConfig, key: str, value: object, told: str) -> None:
    OmegaConf.update(cfg, key, value)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is looked at below
        check_kinds(cfg)
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("key", "value", "default", "told"),
    [
        ("shard_pairs", 2.5, 500, "shard_pairs=2.5; give a whole number"),
        ("power", "much", 0.01, "power=much; give a number"),
        ("data.num_pairs", 1e5, 3, "data.num_pairs=100000.0; give a whole number, 100000"),
        ("power", 1, 0.01, None),
        ("scheduler.warmup", 0.1, 500, None),  # of a run that has a number of steps where others have a share
        ("devices", "auto", 1, None),
        ("seed", "${init_seed}", 0, None),
        ("seed", "3", 0, f"seed='3' is a text; give a whole number without quotes, {OF_THE_ENVIRONMENT}"),
        ("check", "no", False, None),  # not a number; told otherwise
    ],
)
def test_a_number_stays_a_number(key: str, value: object, default: object, told: str | None) -> None:
    assert misread_number(key, value, default) == told


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"out": 5}, "out=5; give one text; quote what is a name, 'out=\"5\"'"),
        ({"strength": ["a", "b"]}, "strength=['a', 'b']; give one text"),
        ({"runs": {"a": "b"}}, "runs={'a': 'b'}; give one text or a list of texts"),
        ({"deciles": 5}, "deciles=5; give one text or a list of texts; quote what is a name, 'deciles=\"5\"'"),
        ({"metrics": "test/accuracy"}, "metrics=test/accuracy; give a list, metrics=[test/accuracy]"),
        ({"voters": 5}, "voters=5; give one text or a list of them, runs or folders"),
        ({"voters": ["a", 5]}, "voters=['a', 5]; give one text or a list of them, runs or folders"),
        ({"n": 4}, "n=4; give a list of whole numbers, n=[1,4,16]"),
        ({"policy_n": ["x"]}, "policy_n=['x']; give a list of whole numbers, policy_n=[1,4,16]"),
        ({"groups": [1]}, "groups=[1]; give a list of texts"),
    ],
)
def test_what_names_files_and_fields_is_text(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is looked at below
        check_texts(OmegaConf.create(given))
    assert str(caught.value) == told


def test_texts_lists_of_them_and_what_is_not_given_pass() -> None:
    check_texts(OmegaConf.create({"out": "???", "strength": None, "runs": ["a", "b"], "metrics": ["nll"], "x": "seed"}))
