"""A configuration builds what this package and its libraries have, and nothing else unless the command line says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lightning_rm.commands._choices import compose_choices
from lightning_rm.commands._config import conf_dir
from lightning_rm.commands._keys import check_keys
from lightning_rm.commands._kinds import check_kinds
from lightning_rm.commands._targets import ALLOWED, check_hydra, check_targets, is_allowed, is_known, take_word
from lightning_rm.commands._words import parse, sort_words

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
        "torch.nn.utils._deprecation_utils.lazy_deprecated_import",
        "torch.nn.Module.__setattr__",
        "torch.nn.parallel.parallel_apply",
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


def test_a_name_of_nothing_is_said_once_by_what_would_build_it(caplog: pytest.LogCaptureFixture) -> None:
    assert is_known("lightning.pytorch.callbacks.Nothing")
    check_kinds(config({"_target_": "lightning.pytorch.callbacks.Nothing", "monitor": 1}))
    assert caplog.messages == []


def test_a_getter_is_as_good_as_what_it_gets() -> None:
    check_targets(config({"_target_": "hydra.utils.get_method", "path": "torch.nn.functional.relu"}))
    with pytest.raises(ValueError, match=r"module.parts\[1\].path='os.system'"):
        check_targets(config({"_target_": "hydra.utils.get_method", "path": "os.system"}))
    with pytest.raises(ValueError, match=r"module.parts\[1\]._args_='os.system'"):
        check_targets(config({"_target_": "hydra.utils.get_method", "_args_": ["os.system"]}))


@pytest.mark.parametrize(
    "value",
    [
        "${oc.create:{_target_:os.system}}",
        "${oc.decode:'{_target_:os.system}'}",
        "${oc.decode:'[{_target_:os.system}]'}",
        "${hidden}",
        {"_target_": "${name}"},
        {"_target_": "hydra.utils.get_method", "path": "${name}"},
        {"x.y": {"_target_": "os.system"}},
    ],
)
def test_what_comes_out_of_a_text_is_looked_at_too(value: Any) -> None:
    hidden = {"_target_": "os.system"}
    cfg = OmegaConf.create({"module": value, "name": "os.system", "hidden": None if value != "${hidden}" else hidden})
    with pytest.raises(ValueError, match=r"^module.*='os.system': "):
        check_targets(cfg)


def test_what_cannot_be_resolved_is_left_to_its_reader() -> None:
    check_targets(OmegaConf.create({"a": "${missing}", "b": "???", "c": None, "d": {"_target_": "${missing}"}}))
    check_targets(OmegaConf.create({"a": {"b": "${c}"}, "c": {"d": "${a}"}}))  # which holds itself


def test_code_of_a_model_is_run_by_the_command_line_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = OmegaConf.create({"backbone": {"model": {"trust_remote_code": "${yes}"}}, "yes": True})
    with pytest.raises(ValueError, match=r"backbone.model.trust_remote_code=True: .* only the command line may do"):
        check_targets(cfg)
    check_targets(OmegaConf.create({"backbone": {"trust_remote_code": False}}))
    said = OmegaConf.create({"hydra": {"overrides": {"task": ["backbone.trust_remote_code=true"]}}})
    monkeypatch.setattr(HydraConfig.instance(), "cfg", said)
    monkeypatch.setenv(ALLOWED, "0")
    check_targets(cfg)


@pytest.mark.parametrize(
    ("hydra", "named"),
    [
        ({"callbacks": {"x": {"_target_": "os.system"}}}, r"hydra.callbacks.x._target_='os.system'"),
        ({"launcher": {"_target_": "hydra._internal.utils.os.system"}}, r"hydra.launcher._target_="),
        ({"job_logging": {"handlers": {"x": {"()": "os.system"}}}}, r"hydra.job_logging.handlers.x.\(\)="),
        ({"hydra_logging": {"handlers": {"x": {"class": "logging.os.system"}}}}, r"hydra_logging.handlers.x.class="),
        ({"job_logging": {"handlers": {"x": {"stream": "ext://os.environ"}}}}, r"handlers.x.stream='ext://os.environ'"),
    ],
)
def test_a_yaml_does_not_have_hydra_call_what_is_not_hydras(hydra: Any, named: str) -> None:
    """Its callbacks and logs are built before a command begins."""
    with pytest.raises(ValueError, match=named):
        check_hydra(DictConfig(hydra))


def test_choices_in_a_folder_of_ones_own_are_known_and_looked_at(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()

    def write(content: str) -> None:
        (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{content}\n")

    write("name: mine")
    words = sort_words(["--config-dir", str(tmp_path), "experiment=mine", "-m", "seed=1"])
    assert (words.own, words.folder, words.looks_only) == (["experiment=mine", "seed=1"], str(tmp_path), False)
    check_keys("train", words.own, words.folder)
    assert compose_choices("train", parse(words.own), words.folder).values["name"] == "mine"
    with pytest.raises(ValueError, match=r"there are baseline, .*, mine"):
        check_keys("train", ["experiment=none"], words.folder)
    write("hydra: {callbacks: {x: {_target_: os.system}}}")
    with pytest.raises(ValueError, match=r"hydra.callbacks.x._target_='os.system'"):
        check_keys("train", words.own, words.folder)
    for text, why in (("name: [", "while parsing"), ("name: " + "[" * 1200, "maximum recursion depth")):
        write(text)
        with pytest.raises(ValueError, match=rf"experiment=mine: a yaml in .* cannot be read: {why}"):
            check_keys("train", words.own, words.folder)
    bomb = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '0'] * 10)}]" for n in range(9))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bomb.yaml").write_text(bomb)  # 900 bytes; a billion values
    for folder, path in ((words.folder, None), (None, str(tmp_path))):
        with pytest.raises(ValueError, match=r"data/bomb.yaml unpacks to more than 100,000 values, by its aliases"):
            compose_choices("train", [], folder, path)
    (tmp_path / "data" / "bomb.yaml").write_text("a: &a {b: 1}\nc: *a\nd: {<<: *a}\ne: &e [&e 1, *e]")
    write("name: &mine mine\nlogger: {project: *mine}")
    assert compose_choices("train", parse(words.own), words.folder).values["logger.project"] == "mine"
    whole = sort_words(["--config-name=whole", "--config-path", str(tmp_path)])
    (tmp_path / "whole.yaml").write_text("hydra: {callbacks: {x: {_target_: os.system}}}")
    for folder, path in ((None, whole.path), (str(tmp_path), None)):
        with pytest.raises(ValueError, match=r"hydra.callbacks.x._target_='os.system'"):
            compose_choices("whole", [], folder, path)
    with pytest.raises(ValueError, match="reads a pickle"):
        sort_words(["--experimental-rerun=config.pickle"])


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


def test_arguments_of_ones_own_class_are_known_where_it_is_allowed_and_it_is_not_imported_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "mine.yaml").write_text("_target_: own_code.Mine\nbeta: 1.0 # of its part\n")
    (tmp_path / "module" / "gone.yaml").write_text("_target_: own_code.Gone\n")
    (tmp_path / "own_code.py").write_text(
        "from pathlib import Path\nPath('imported').touch()\nclass Mine:\n    def __init__(self, beta, extra=1): ...\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.setenv(ALLOWED, "0")
    words, folder = ["module=mine", "+module.extra=2"], str(tmp_path)
    told = r"_target_='own_code.Mine' is outside .* takes extra=; add allow_targets=true"
    with pytest.raises(ValueError, match=told):
        check_keys("train", words, folder)
    assert not (tmp_path / "imported").exists()
    monkeypatch.setenv(ALLOWED, "1")
    assert check_keys("train", words, folder).values["module.beta"] == 1.0
    with pytest.raises(ValueError, match=r"there is no key module.bata; the nearest is module.beta"):
        check_keys("train", ["module=mine", "module.bata=2"], folder)
    with pytest.raises(
        ValueError, match=r"_target_='own_code.Gone' cannot be imported: .*'Gone' is importable from module 'own_code'"
    ):
        check_keys("train", ["module=gone", "module.bata=2"], folder)
    monkeypatch.delitem(sys.modules, "own_code")


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
