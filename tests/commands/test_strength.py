"""From voters to recipes by commands alone: vote, annotate, train, analyze, ensemble."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lightning_rm.commands._data import find_voters
from lightning_rm.commands.analyze import analyze
from lightning_rm.commands.annotate import annotate_data
from lightning_rm.commands.ensemble import ensemble
from lightning_rm.commands.train import train
from lightning_rm.data.rows import PairRow
from lightning_rm.data.sources.resampling import Fold
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.scoring.conversations import score
from tests.commands.conftest import Cli
from tests.commands.test_conf import SMALL, composed
from tests.float64 import roughly, same
from tests.processes import lightning_rm
from tests.toy import toy_model

FEW = ["data.num_pairs=8", "data.num_val=8", "data.num_test=8"]
RUN = ["hydra.sweep.dir=runs", "trainer.max_steps=2"]


def trained(folder: Path, *overrides: str) -> None:
    train(composed(*overrides[:1], *SMALL, *overrides[1:], *RUN, f"hydra.runtime.output_dir={folder}"))


@pytest.fixture(scope="module")
def voted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two voters, one of a fold, and their strengths of 40 pairs."""
    folder = tmp_path_factory.mktemp("voted")
    for seed in range(2):
        trained(folder / "vote" / str(seed), "experiment=vote", f"seed={seed}", "resample=without_fold")
    annotate_data(
        composed(
            f"voters=[{folder}/vote/0/model/best,{folder}/vote/1/model/best]",
            "data=synthetic",
            "data.num_pairs=40",
            f"out={folder}/strength.parquet",
            f"also.trl={folder}/trl.jsonl",
            "shard_size=30",
            command="annotate",
        )
    )
    return folder


def test_the_file_has_every_pair_and_both_voters(voted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(voted / "strength.parquet")
    assert table.num_rows == 40
    assert all(len(votes) == 2 for votes in table["votes"].to_pylist())
    assert len((voted / "trl.jsonl").read_text().splitlines()) == 40
    assert not (voted / "strength.parquet.parts").exists()


def test_runs_know_the_fold_they_left_out(voted: Path) -> None:
    """And are of one training, though each has a seed and a fold of its own."""
    assert [voter.fold for voter in find_voters(f"{voted}/vote/*", "best")] == [Fold(0, 5), Fold(1, 5)]


def test_recipes_deciles_and_prefixes_are_analyzed(voted: Path, tmp_path: Path) -> None:
    data = ["data=synthetic_strength", f"data.file={voted}/strength.parquet"]
    small = [word for word in SMALL if word != "data.num_pairs=16"]

    def run(name: str, *overrides: str) -> None:
        experiment, *rest = overrides
        train(composed(experiment, *small, *data, *rest, *RUN, f"hydra.runtime.output_dir={tmp_path / name}"))

    for seed in range(2):
        run(f"recipes/flip{seed}", "experiment=flip", f"seed={seed}")
        run(f"recipes/baseline{seed}", "experiment=vote", f"seed={seed}", "name=baseline")
    for number in (0, 9):
        run(f"deciles/{number}", "experiment=decile", f"treatment.decile.number={number}")
    run("deciles/flipped", "experiment=decile", "treatment.flip.below_quantile=1")
    for end in ("weak", "strong"):
        run(f"prefixes/{end}", "experiment=prefix", f"treatment.prefix.end={end}", "treatment.prefix.share=0.5")
    written = analyze(
        composed(
            f"strength={voted}/strength.parquet",
            f"deciles={tmp_path}/deciles/*",
            f"prefixes={tmp_path}/prefixes/*",
            f"recipes={tmp_path}/recipes/*",
            f"out={tmp_path}/analysis",
            command="analyze",
        )
    )
    names = {path.name for path in written}
    for figure in ("strength_distribution", "strength_by_group", "agreement_by_strength", "detection"):
        assert {f"{figure}.png", f"{figure}.svg"} <= names
    for table in ("groups", "examples", "detection", "deciles", "prefixes", "recipes"):
        assert {f"{table}.csv", f"{table}.md"} <= names
    assert {"deciles.png", "prefixes.png", "recipes.png"} <= names
    assert all(path.stat().st_size for path in written)
    numbers = json.loads((tmp_path / "analysis" / "strength.json").read_text())
    assert numbers["num_pairs"] == 40
    assert 0 <= numbers["mean/auroc"] <= 1
    recipes = (tmp_path / "analysis" / "recipes.csv").read_text()
    assert "flip,2," in recipes
    assert "baseline,2," in recipes


def test_ensembles_and_the_average_of_weights(voted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The voters left out folds 0 and 1 of 5 in training; of test sets each scores every pair."""
    results = ensemble(
        composed(
            f"voters={voted}/vote/*",
            "data=synthetic",
            "data.num_test=12",
            f"out={tmp_path}/ensemble",
            command="ensemble",
        )
    )
    assert {
        "test/mean",
        "test/median",
        "test/worst",
        "test/mean minus variance",
        "test/WARM",
        "test/ood/WARM",
    } <= results.keys()
    assert all(metrics["num_pairs"] == 12 for metrics in results.values())
    assert all(0 <= metrics["accuracy"] <= 1 for metrics in results.values())
    shown = " ".join(capsys.readouterr().out.split())
    for name in ("test", "test/ood"):
        alone = [results[f"{name}/{voted}/vote/{seed}"]["accuracy"] for seed in range(2)]
        warm, mean = results[f"{name}/WARM"]["accuracy"], sum(alone) / 2
        assert f"{name}: voters alone {mean:.3f} ({min(alone):.3f} to {max(alone):.3f})" in shown
        assert f"{name}: WARM {warm:.3f}, {'at least' if warm >= mean else 'BELOW'} the mean of the voters" in shown
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "ensemble" / "warm")
    members = [
        AutoModelForSequenceClassification.from_pretrained(voted / "vote" / str(seed) / "model" / "best")
        for seed in range(2)
    ]
    mean = (members[0].score.weight + members[1].score.weight) / 2
    torch.testing.assert_close(model.score.weight, mean)  # weights near .1 in float32, added in another order


def test_voters_of_two_sizes_are_an_ensemble_without_an_average(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, size in (("small", 8), ("large", 16)):
        toy_model(intermediate_size=size).save_pretrained(name, world_tokenizer())
    results = ensemble(
        composed("voters=[small,large]", "data=synthetic", "data.num_test=12", "out=both", command="ensemble")
    )
    assert list(results)[:4] == ["test/small", "test/large", "test/mean", "test/median"]
    assert "no WARM: member 1 has intermediate_size=16 and member 0 has 8" in " ".join(capsys.readouterr().out.split())
    assert not Path("both/warm").exists()


def test_members_of_one_backbone_are_an_ensemble_without_an_average(
    voted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # no path is broken
    members = MemberRewardModel.of(toy_model(), Members(num_members=3)).eval()
    members.save_pretrained(tmp_path / "members", world_tokenizer())
    settings = ["data=synthetic", "data.num_test=12", f"out={tmp_path}/ensemble"]
    results = ensemble(composed(f"voters={tmp_path}/members", *settings, command="ensemble"))
    names = [f"{tmp_path}/members#{number}" for number in range(3)]
    names += ["mean", "median", "worst", "mean minus variance"]
    assert list(results) == [f"{name}/{row}" for name in ("test", "test/ood") for row in names]
    shown = " ".join(capsys.readouterr().out.split())
    assert f"no WARM: the members of {tmp_path}/members have one backbone" in shown
    assert "3 voters as one: ensembles" in shown
    assert re.search(r"data set read kept \S+ test 12 12 test/ood 12 12 ", shown)
    assert not (tmp_path / "ensemble" / "warm").exists()
    source = SyntheticSource(12, split="test", clean_labels=True)
    pairs = [row for row in source if isinstance(row, PairRow)]
    chosen, rejected = (
        score(members, world_tokenizer(), [(*row.prompt, *getattr(row, side)) for row in pairs])
        for side in ("chosen", "rejected")
    )
    margin = (chosen - rejected).mean(1)
    assert results["test/mean"]["accuracy"] == same(float((margin > 0).double().mean()))
    assert results["test/mean"]["margin"] == roughly(float(margin.mean()))
    more = [f"voters=[{tmp_path}/members,{voted}/vote/0]", *settings]
    with pytest.raises(ValueError, match=r"ensemble' holds an ensemble that was measured; .* set overwrite=true"):
        ensemble(composed(*more, command="ensemble"))
    assert json.loads((tmp_path / "ensemble" / "results.json").read_text()).keys() == results.keys()
    settings.append("overwrite=true")
    both = ensemble(composed(*more, "overwrite=true", command="ensemble"))
    assert len(both) == 2 * (4 + 4)
    with pytest.raises(ValueError, match=r"vote/0 is one model, and no ensemble; name several"):
        ensemble(composed(f"voters={voted}/vote/0", *settings, command="ensemble"))
    own = tmp_path / "own" / "parts" / "thesis.txt"
    own.parent.mkdir(parents=True)
    own.touch()
    with pytest.raises(ValueError, match=r"own/parts is there already, and what it holds is not of an interrupted run"):
        ensemble(composed(f"voters={tmp_path}/members", *settings[:2], f"out={tmp_path}/own", command="ensemble"))
    assert own.exists()


def test_one_of_several_files_is_named_by_its_set(tmp_path: Path) -> None:
    """`test_file={easy: ..., hard: ...}` makes the sets when it is read; a voter named twice is one."""
    for name in ("easy", "hard"):
        (tmp_path / f"{name}.jsonl").write_text(
            json.dumps({"prompt": "p", "chosen": f"good {name}", "rejected": "bad"})
        )
    toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
    files = f"data.test_file={{easy: {tmp_path}/easy.jsonl, hard: {tmp_path}/hard.jsonl}}"
    cfg = composed(
        f"voters=[{tmp_path}/model,{tmp_path}/mod*]",
        "data=jsonl",
        "data.file=unread",
        files,
        "set=test.hard",
        f"out={tmp_path}/a.parquet",
        command="annotate",
    )
    annotate_data(cfg)
    table = pq.read_table(tmp_path / "a.parquet")
    assert "good hard" in str(table["chosen"].to_pylist())
    assert [len(votes) for votes in table["votes"].to_pylist()] == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["annotate"], "error: data.file and out and voters must be given"),
        (["annotate", "voters=none/*", "data=synthetic", "out=a.parquet"], "error: voters='none/*' names no run"),
        (["annotate", "voters=model", "data=synthetic", "out=a.jsonl"], "ends in .parquet"),
        (["annotate", "voters=model", "data=synthetic", "set=tset", "out=a.parquet"], "set='tset': the data has train"),
        (["annotate", "voters=model", "data=synthetic", "set=test", "out=a.parquet"], "test.test, test.ood"),
        (
            ["annotate", "voters=model", "data=synthetic", "set=test.tset", "out=a.parquet"],
            "test has test.test, test.ood",
        ),
        (["annotate", "voters=model", "data=synthetic", "out=there.parquet"], "is there already"),
        (
            ["annotate", "voters=model", "data=synthetic", "out=a.parquet", "also.trl=there.jsonl"],
            "also.trl='there.jsonl' is there already; name another, or set overwrite=true",
        ),
        (
            ["annotate", "voters=model", "data=synthetic", "out=a.parquet", "also.fnlp=a.parquet", "overwrite=true"],
            "also.fnlp='a.parquet': the layout of the published data is one JSON array; give a name that ends in .json",
        ),
        (
            ["annotate", "voters=model", "data=synthetic", "out=a.parquet", "also.trl=a.parquet"],
            "also.trl='a.parquet': TRL's rows are JSON, one a line; give a name that ends in .jsonl",
        ),
        (["analyze"], "there is nothing to analyze"),
        (["analyze", "strength=there.parquet"], "no column strength_mean"),
        (["analyze", "deciles=none/*"], "deciles='none/*' names no run"),
        (
            ["train", "experiment=flip", "logger=csv", *FEW],
            "treatment=flip is by preference strength",
        ),
        (
            ["train", "data.levels=3", "treatment=[flip,adaptive_margin]", "logger=csv", *FEW],
            "treatment=adaptive_margin gives pairs a margin of their own, and BaselineRM does not read it",
        ),
    ],
)
def test_mistakes_are_named(cli: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
    pq.write_table(pa.table({"chosen": ["a"], "rejected": ["b"]}), tmp_path / "there.parquet")
    (tmp_path / "there.jsonl").touch()
    said = cli(*arguments)
    assert said.code == 1
    assert message in " ".join(said.err.split())


def test_two_processes_annotate_as_one(voted: Path, tmp_path: Path) -> None:
    arguments = [
        f"voters=[{voted}/vote/0/model/best,{voted}/vote/1/model/best]",
        "data=synthetic",
        "data.num_pairs=40",
        "shard_size=30",
        "accelerator=cpu",
        "devices=2",
        "out=two.parquet",
    ]
    result = lightning_rm(tmp_path, "annotate", *arguments)
    assert result.returncode == 0, result.stderr
    assert pq.read_table(tmp_path / "two.parquet").equals(pq.read_table(voted / "strength.parquet"))
