"""A configuration builds what this package and its libraries have, and nothing else unless the command line says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from lightning_rm.commands._config import conf_dir
from lightning_rm.commands._targets import ALLOWED, check_targets, is_allowed, is_known, take_word

CONF = sorted(Path(conf_dir()).rglob("*.yaml"))


def config(node: Any) -> Any:
    return OmegaConf.create({"module": {"parts": [1, node]}})


@pytest.fixture(autouse=True)
def _asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "0")


def test_all_that_ships_is_known() -> None:
    assert len(CONF) > 100
    for path in CONF:
        check_targets(OmegaConf.create({"of": yaml.safe_load(path.read_text(encoding="utf-8"))}), path.name)


@pytest.mark.parametrize(
    "target",
    ["os.system", "builtins.eval", "torch.hub.load", "torch.load", "lightning_rm.commands.train.subprocess.run"],
)
def test_what_leads_out_is_refused_and_named(target: str) -> None:
    """Also where the name begins in this package: a module's attributes are not all its own."""
    assert not is_known(target)
    with pytest.raises(ValueError, match=rf"module.parts\[1\]._target_='{target}': .* add allow_targets=true"):
        check_targets(config({"_target_": target}))


@pytest.mark.parametrize(
    "target",
    [
        "lightning.pytorch.cli.instantiate_class",
        "lightning.pytorch.cli.LightningCLI",
        "lightning.fabric.utilities.cloud_io._load",
        "lightning.pytorch.LightningModule.load_from_checkpoint",
        "peft.utils.save_and_load.torch_load",
        "lightning_rm.commands._targets.take_word",
        "lightning_rm.commands.train.take_word",
    ],
)
def test_what_runs_whatever_it_is_told_is_refused(target: str) -> None:
    """`instantiate_class(args="rm -r x", init={"class_path": "os.system"})` is of a known library too."""
    assert not is_known(target)


@pytest.mark.parametrize(
    "target",
    ["lightning.Trainer", "lightning.pytorch.callbacks.EarlyStopping", "peft.LoraConfig", "torch.nn.functional.relu"],
)
def test_what_is_built_from_libraries_stays_known(target: str) -> None:
    assert is_known(target)


def test_a_getter_is_as_good_as_what_it_gets() -> None:
    check_targets(config({"_target_": "hydra.utils.get_method", "path": "torch.nn.functional.relu"}))
    with pytest.raises(ValueError, match=r"module.parts\[1\].path='os.system'"):
        check_targets(config({"_target_": "hydra.utils.get_method", "path": "os.system"}))
    with pytest.raises(ValueError, match=r"module.parts\[1\]._args_='os.system'"):
        check_targets(config({"_target_": "hydra.utils.get_method", "_args_": ["os.system"]}))


def test_the_command_line_alone_allows_more(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"os.system"):
        check_targets(OmegaConf.create({"allow_targets": True, "a": {"_target_": "os.system"}}))
    assert take_word(["seed=1", "allow_targets=true", "name=a"]) == ["seed=1", "name=a"]
    check_targets(config({"_target_": "os.system"}))
    assert take_word(["allow_targets=false"]) == []
    with pytest.raises(ValueError, match=r"os.system"):
        check_targets(config({"_target_": "os.system"}))
    with pytest.raises(ValueError, match="say allow_targets=true or allow_targets=false"):
        take_word(["allow_targets=yes"])


def test_a_yaml_does_not_allow_itself_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra sets the variables of `hydra.job.env_set` before a job, whoever named them."""
    monkeypatch.setenv(ALLOWED, "1")
    word = f"+hydra.job.env_set.{ALLOWED}='1'"
    with initialize_config_dir(conf_dir(), version_base="1.3"):
        cfg = compose("train", overrides=[word, "hydra.runtime.output_dir=run"], return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", cfg)
    assert is_allowed()
    OmegaConf.set_readonly(cfg, False)
    OmegaConf.set_readonly(cfg.hydra, False)
    cfg.hydra.overrides.hydra = []
    assert not is_allowed()
