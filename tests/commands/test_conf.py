"""Every yaml in conf/ composes, every target in it exists, every experiment runs two steps."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_method
from omegaconf import DictConfig, ListConfig, OmegaConf

from lightning_rm.commands._checks import warn_of_a_toy
from lightning_rm.commands._config import conf_dir, resolved
from lightning_rm.commands._kinds import check_kinds
from lightning_rm.commands.main import verbs
from lightning_rm.commands.train import train
from lightning_rm.data.rows import PairRow
from lightning_rm.data.sources.files import FileSource
from tests.toy import write_annotated

CONF = Path(conf_dir())
GROUPS = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
# Parts of other choices, composed with them.
PARTS = {("data", "base"), ("data", "synthetic_sets"), ("trainer", "base"), ("backbone", "lora")}
COMMANDS = {"benchmark": "evaluate", "judge": "rlhf", "policy_optimizer": "rlhf"}
"""Groups that the train command does not have."""


def choices_of(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml")) if (group, path.stem) not in PARTS]


def together() -> Iterator[tuple[str, list[str]]]:
    """Every choice of every group in a command and words that choose it, with the next of each other group.

    A composition takes 60 ms, and no group asks for another; an experiment, which chooses for others, is alone.
    """
    for command in ("train", "evaluate", "rlhf"):
        groups = [group for group in GROUPS if COMMANDS.get(group, "train") == command and group != "experiment"]
        for chosen in zip_longest(*map(choices_of, groups)):
            yield command, [f"{group}={one}" for group, one in zip(groups, chosen, strict=True) if one]
    yield from (("train", [f"experiment={name}"]) for name in choices_of("experiment"))


EXPERIMENTS = [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))]
# A small model on a little made data, whatever the experiment is meant for: two steps an epoch.
SMALL = [
    "backbone=tiny",
    "backbone.model.config.hidden_size=16",
    "trainer=cpu",
    "trainer.log_every_n_steps=1",
    "trainer.max_epochs=1",
    "data.step_pairs=null",
    "scheduler.warmup=0",
    "data=synthetic",
    "data.num_pairs=16",
    "data.num_val=8",
    "data.num_test=8",
    "data.batch_pairs=8",
    "data.max_tokens=256",
    "logger=csv",
    "monitor=val/nll",
    "mode=min",
]


def composed(*overrides: str, command: str = "train") -> DictConfig:
    with initialize_config_dir(CONF.as_posix(), version_base="1.3"):
        cfg = compose(command, overrides=list(overrides), return_hydra_config=True)
    OmegaConf.set_struct(cfg, False)
    # As `HydraConfig.set_config` keeps it, which copies it: a fifth of a composition.
    kept = OmegaConf.create(flags={"no_deepcopy_set_nodes": True})
    kept.hydra = cfg.pop("hydra")
    kept.hydra._set_parent(cfg)
    HydraConfig.instance().cfg = kept
    _name(cfg)
    return cfg


def _name(node: DictConfig | ListConfig) -> None:
    """What a user must name gets a name, in place: a copy would cost as much as half of a composition."""
    for key in range(len(node)) if isinstance(node, ListConfig) else list(node):
        child = node._get_node(key)
        if child._is_missing():
            node[key] = "what_a_user_must_name"
        elif isinstance(child, DictConfig | ListConfig) and not (child._is_interpolation() or child._is_none()):
            _name(child)


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def test_there_is_something_to_compose() -> None:
    chosen = [word for _, words in together() for word in words]
    assert sorted(chosen) == sorted(f"{group}={one}" for group in GROUPS for one in choices_of(group))
    assert {"data", "backbone", "module", "layout", "optimizer", "scheduler", "trainer", "logger"} <= set(GROUPS)
    assert EXPERIMENTS


@pytest.mark.parametrize(
    ("command", "words"), together(), ids=lambda one: "-".join(one) if isinstance(one, list) else one
)
def test_every_yaml_composes_and_names_what_exists(command: str, words: list[str]) -> None:
    cfg = composed(*words, "hydra.runtime.output_dir=run", command=command)
    check_kinds(cfg)
    found = list(targets(resolved(cfg)))
    assert found or command != "train"
    for target in found:
        assert callable(get_method(target))


@pytest.mark.parametrize("command", [path.stem for path in sorted(CONF.glob("*.yaml"))])
def test_every_command_has_its_config(command: str) -> None:
    assert command in verbs()
    cfg = composed("hydra.runtime.output_dir=run", "hydra.sweep.dir=runs", command=command)
    assert resolved(cfg)
    logs = HydraConfig.get().hydra_logging if command != "train" else HydraConfig.get().job_logging
    assert logs.formatters.simple.format == "%(message)s"  # a user reads messages; none is Hydra's


def test_recipes_differ_from_the_baseline_in_their_treatment_alone() -> None:
    words = ["data=strength", "name=one", "hydra.runtime.output_dir=run", "hydra.sweep.dir=runs"]
    plain = resolved(composed(*words))
    own = plain["data"]["module"].pop("treatments")
    for recipe in ("flip", "margin", "flip_margin", "soft_label_margin"):
        treated = resolved(composed(*words, f"experiment={recipe}"))
        assert treated["data"]["module"].pop("treatments") != own
        assert {key for key in plain if plain[key] != treated[key]} == {"module", "treatment"}
        both = plain["module"].keys() & treated["module"].keys() - {"_target_"}
        assert {"optimizer", "scheduler", "head_lr"} <= both
        assert all(plain["module"][key] == treated["module"][key] for key in both)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_no_key_of_a_command_has_the_name_of_a_group_that_it_lacks(file: Path) -> None:
    """Hydra reads `members=true` as a choice wherever conf/ has a group `members`, and ends in a traceback."""
    config: Any = OmegaConf.to_container(OmegaConf.load(file))
    named = [name for one in config.pop("defaults", []) if isinstance(one, dict) for name in one]
    lacking = set(GROUPS) - {name.split()[-1].partition("@")[0] for name in named}
    assert not [key for key, value in config.items() if key in lacking and not isinstance(value, dict)]


def test_an_empty_chain_and_a_chain_of_treatments() -> None:
    assert resolved(composed("hydra.runtime.output_dir=run"))["data"]["module"]["treatments"] == {}
    chain = resolved(composed("treatment=[adaptive_margin,flip]", "hydra.runtime.output_dir=run"))
    assert list(chain["data"]["module"]["treatments"]) == ["adaptive_margin", "flip"]
    chain = resolved(composed("experiment=flip", "treatment=[flip,distill]", "hydra.runtime.output_dir=run"))
    assert list(chain["data"]["module"]["treatments"]) == ["flip"]
    assert chain["module"]["distill"] == 0.5


def test_the_toy_backbone_warns_of_pairs_that_are_not_made(recwarn: pytest.WarningsRecorder) -> None:
    run = "hydra.runtime.output_dir=run"
    warn_of_a_toy(composed(run))
    warn_of_a_toy(composed("data=jsonl", "backbone=hub", run))
    assert not recwarn
    with pytest.warns(UserWarning, match="backbone=hub backbone.path="):
        warn_of_a_toy(composed("data=jsonl", run))


RECIPES = CONF.parent / "docs" / "howto" / "recipes.md"


def test_the_page_of_recipes_says_what_they_set() -> None:
    """A row: name, source, what is trained on, rate and schedule, pairs a step, epochs, tokens."""
    rows = re.findall(r"^\| `(\w+)` \|" + r" ([^|]+) \|" * 6 + "$", RECIPES.read_text(), re.MULTILINE)
    assert len(rows) == 7
    for name, *cells in rows:
        cfg = composed(f"experiment={name}", "hydra.runtime.output_dir=run")
        set_here = (f"{cfg.optimizer.lr:.0e}", cfg.scheduler.name, cfg.data.step_pairs, cfg.data.epochs)
        rate, schedule, step_pairs, epochs = set_here
        assert cells[2] == f"{rate.replace('e-0', 'e-')}, {schedule.removesuffix('_with_warmup')}"
        assert cells[3:] == [f"{step_pairs:,}", str(epochs), f"{cfg.data.max_tokens:,}"]


def test_the_papers_data_has_its_three_validation_sets(tmp_path: Path) -> None:
    """The original labels, GPT-4's where it was asked, and the pairs on which both agree."""
    scores = {"chosen_score_list": [1.0], "rejected_score_list": [0.5]}
    rows = [
        {"id": str(n), "chosen": [f"hello {n}", "a"], "rejected": [f"hello {n}", "b"], **scores, "GPT4 label": label}
        for n, label in enumerate((1, 0, -1, 1))
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    sets = resolved(composed("data=hh_strength_cleaned", "hydra.runtime.output_dir=run"))["data"]["module"]["test"]
    found = {
        name: [
            (row.id, row.label, row.chosen[-1]["content"])
            for row in FileSource(tmp_path / "rows.jsonl", columns=options.get("columns"), where=options.get("where"))
            if isinstance(row, PairRow)
        ]
        for name, options in sets.items()
    }
    assert found == {
        "test": [("0", 1.0, "a"), ("1", 1.0, "a"), ("2", 1.0, "a"), ("3", 1.0, "a")],
        "gpt4": [("0", 1.0, "a"), ("1", 1.0, "b"), ("3", 1.0, "a")],
        "agreed": [("0", 1.0, "a"), ("3", 1.0, "a")],
    }


def test_a_check_shows_pairs_as_they_are_read_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for show, expected in ((0, 0), (2, 2), (99, 16)):
        train(composed(*SMALL, "check=true", f"show={show}", f"hydra.runtime.output_dir={tmp_path / 'run'}"))
        said = capsys.readouterr().out
        assert said.count("its reward read at '</s>'") == 2 * expected
        assert re.search(r"train +16 +16\n", said)  # what is left out is counted, whether pairs are shown or not
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="show=-1; give 0 or more"):
        train(composed(*SMALL, "show=-1", f"hydra.runtime.output_dir={tmp_path / 'run'}"))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs_two_steps(experiment: str, tmp_path: Path) -> None:
    small = [*SMALL, f"hydra.runtime.output_dir={tmp_path}"]
    cfg = composed(f"experiment={experiment}", *small)
    module = cfg.module["_target_"]
    if cfg.treatment or module.endswith("ResponseRankRM"):
        write_annotated(tmp_path / "strength.parquet", 160 if experiment == "decile" else 16)
        small += ["data=synthetic_strength", f"data.file={tmp_path / 'strength.parquet'}"]
    if module.endswith("RegressionRM"):
        small += ["data=synthetic_scored", "data.num_prompts=16", "module.attributes=null", "monitor=val/nll"]
        small.append("module.loss=mse")  # made scores are not labels
    if module.endswith("SupervisedLM"):
        cfg.monitor = "val/loss"
    if small[-1] != f"hydra.runtime.output_dir={tmp_path}":
        small.remove("data.num_pairs=16")
    if module.endswith("MetaRM"):
        small += ["responses=synthetic", "responses.num_prompts=8", "responses.num_val=4", "responses.num_test=4"]
    if len(small) != 1 + len(SMALL):
        cfg = composed(f"experiment={experiment}", *small)
    objective = train(cfg)
    assert 0 < objective < 10
    assert (tmp_path / "model" / "best" / "model.safetensors").exists()
    assert (tmp_path / "figures" / "curves.png").exists()
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file) if row["train/loss"]] == ["0", "1"]
