"""`lightning-rm curate`: voters trained by the train command, once; the command that it prints; what is refused."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from lightning_rm.commands._keys import check_keys
from lightning_rm.commands.curate import curate_data, train_voters, trained_words
from lightning_rm.data.synthetic.pairs import SyntheticSource
from tests.commands.conftest import Cli
from tests.commands.test_conf import SMALL, composed
from tests.figures import full_for_figures
from tests.processes import lightning_rm
from tests.toy import toy_model, world_tokenizer

OWN = ("logger", "monitor", "mode", "data.num_val", "data.num_test", "data.num_pairs")
WORDS = [*(word for word in SMALL if not word.startswith(OWN)), "data.num_pairs=40", "data.epochs=1"]


def run(words: Sequence[str], folder: Path) -> None:
    done = lightning_rm(folder, *words)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("fit", "num_runs"), [("heads", 1), ("cross_fitted", 2)])
def test_voters_are_trained_once_and_vote(
    fit: str, num_runs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*WORDS, f"fit={fit}", "num_folds=2", "num_voters=3", f"out={tmp_path}/out"]
    cfg = composed(*words, command="curate")
    asked: list[Sequence[str]] = []

    def train(words: Sequence[str]) -> None:
        asked.append(words)
        run(words, tmp_path)

    first = curate_data(cfg, words, train)
    again = curate_data(composed(*words, "policy=agreement", command="curate"), words, train)
    assert first is not None
    assert again is not None
    assert len(asked) == num_runs  # another policy costs no training
    assert sum(again.counts.values()) == sum(first.counts.values()) == 40
    assert first.is_new.all() == (fit == "cross_fitted")
    assert len(first.votes.voters) == (3 if fit == "heads" else 2)
    printed = capsys.readouterr().out
    command = next(line for line in printed.splitlines() if line.startswith("  lightning-rm train"))
    if fit == "heads":
        run([*shlex.split(command)[1:], "logger=none", "data.val_fraction=0", "monitor=test/accuracy"], tmp_path)
    with pytest.raises(ValueError, match="holds what was curated from other pairs"):
        curate_data(composed(*words, "data.world_seed=1", command="curate"), words, train)
    for path in (tmp_path / "out").iterdir():
        if path.is_file():  # as if it had been stopped before the votes
            path.unlink()
    with pytest.raises(ValueError, match="holds voters that were trained on other pairs"):
        curate_data(composed(*words, "data.world_seed=1", command="curate"), words, train)
    with pytest.raises(ValueError, match="holds voters that were trained on other settings"):
        curate_data(composed(*words, "optimizer.lr=1", command="curate"), [*words, "optimizer.lr=1"], train)


@pytest.mark.parametrize("data", ["disk", "hub", "jsonl", "synthetic"])
def test_voters_compose_on_data_with_sets_of_their_own_and_without(data: str, tmp_path: Path) -> None:
    given = {"disk": ["data.path=x"], "hub": ["data.name=x"], "jsonl": ["data.file=x"]}.get(data, [])
    words = [*([] if data == "jsonl" else [f"data={data}"]), *given, f"out={tmp_path}"]  # which curate reads by itself

    def train(words: Sequence[str]) -> None:
        check_keys("train", words[1:-1])
        module = composed(*words[1:-1]).data.module
        assert module.val is module.test is None
        raise ValueError("it was composed")

    with pytest.raises(ValueError, match="it was composed"):
        train_voters(
            composed(*words, command="curate"),
            words,
            SyntheticSource(4, split="train"),
            tmp_path / "v",
            train,
            Console(),
        )


def test_a_voter_that_was_trained_while_the_data_changed_is_not_kept(tmp_path: Path) -> None:
    data, voter = tmp_path / "pairs.jsonl", tmp_path / "out" / "voters" / "0"
    data.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n')
    words = ["data=jsonl", f"data.file={data}", f"out={tmp_path}/out"]

    def train(words: Sequence[str]) -> None:
        voter.mkdir(parents=True)
        (voter / "results.json").write_text("{}")
        data.write_text('{"prompt": "a", "chosen": "c", "rejected": "b"}\n')

    with pytest.raises(ValueError, match="the data has changed while it was trained on; start again once it stays"):
        curate_data(composed(*words, command="curate"), words, train)
    assert not voter.exists()


def test_figures_of_a_voter_that_a_full_disk_kept_from_being_drawn_are_drawn_by_the_next_start(tmp_path: Path) -> None:
    """It has its results and ends with an error."""
    cfg, voter = composed("data=synthetic", f"out={tmp_path}", command="curate"), tmp_path / "voters" / "0"

    def train(words: Sequence[str]) -> None:
        assert not voter.exists()
        toy_model().save_pretrained(voter / "model" / "best", world_tokenizer())
        (voter / "csv").mkdir()
        (voter / "csv" / "metrics.csv").write_text("epoch,step,train/loss\n0,0,0.7\n0,1,0.6\n")
        (voter / "results.json").write_text("{}")
        raise ValueError("lightning-rm train has failed")

    def start() -> None:
        train_voters(cfg, [], SyntheticSource(4, split="train"), tmp_path / "voters", train, Console())

    with pytest.raises(ValueError, match="has failed"):
        start()
    start()
    assert {path.name for path in (voter / "figures").iterdir()} == {"curves.png", "curves.svg"}


def test_voters_from_outside_alone(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures that a full disk kept from being drawn are drawn by the next start, which asks nobody again."""
    for seed in range(2):
        toy_model(seed).save_pretrained(tmp_path / f"rm{seed}", world_tokenizer())
    words = ["data=synthetic", "data.num_pairs=12", "fit=null", "voters=[rm0,{path: rm1, weight: 2}]", "out=out"]
    with full_for_figures(monkeypatch):
        told = cli("curate", *words)
    assert told.code == 1
    assert "No space left on device" in told.err
    asked = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "votes").rglob("*") if path.is_file()}
    told = cli("curate", *words)
    assert told.code == 0, told.err
    assert asked
    assert {path: path.stat().st_mtime_ns for path in asked} == asked
    assert (tmp_path / "out/report/strength_by_group.svg").is_file()
    assert "12 rows: " in told.out
    assert "No row has a field 'source' or 'annotator' to group by." in told.out
    rows = pq.read_table(tmp_path / "out" / "strength.parquet").to_pylist()
    assert all(len(row["votes"]) == 3 for row in rows)
    assert json.loads((tmp_path / "out" / "report.json").read_text())["rows"] == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit=null"], "fit=null and no voters: there is nobody to vote"),
        (
            ["fit=null", 'voters=[{endpoint: "http://localhost:1/v1", model: m}]'],
            "fit=null and no reward model among the voters: there is nobody to vote",
        ),
        (
            ['voters=[{endpoint: "http://localhost:1/v1", model: m, key: NO_SUCH_KEY}]'],
            "the environment variable NO_SUCH_KEY is not set",
        ),
        (["fit=best"], "fit='best' is not one of heads, whole, cross_fitted and null"),
        (["fit=whole", "module=supervised"], "SupervisedLM trains no rewards to vote with; name another module"),
        (["held_out=1"], "held_out=1 is not a share of the prompts"),
        (["policy=vote"], "policy='vote' is not one of flip_weakest, agreement, soft, drop"),
        (["reviews=none.jsonl"], "reviews='none.jsonl' cannot be read"),
        (["voters=[{model: judge}]"], "is neither {path: ..., weight: 1} nor {endpoint: URL, model: NAME}"),
        (["benchmarks={rb: none.jsonl}"], "there is no file none.jsonl"),
        (["benchmarks=rb.jsonl"], "benchmarks=rb.jsonl; give {name: files}"),
        (["voters=5"], "voters=5; give one text or a list of them"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(words: list[str], message: str, cli: Cli) -> None:
    told = cli("curate", "data=synthetic", "data.num_pairs=12", "out=out", *words)
    assert told.code == 1
    assert message in told.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("data", "row", "message"),
    [
        ("jsonl", {"chosen": "4", "rejected": "5", "votes": 3}, "the row has a field 'votes' of its own"),
        ("scored", {"responses": ["4", "5"], "scores": [1, 0]}, "voters judge pairs, and these rows are scored"),
    ],
)
def test_rows_that_take_no_votes_are_said_before_anything_is_trained(
    data: str, row: dict[str, Any], message: str, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"prompt": "2+2?", **row, "id": n}) for n in range(8)))
    told = cli("curate", f"data={data}", "data.file=rows.jsonl", "out=out")
    assert told.code == 1
    assert message in told.err.replace("\n", " ")
    assert not (tmp_path / "out" / "voters").exists()


def test_what_concerns_training_is_handed_on() -> None:
    words = [
        "data=jsonl",
        "data.file=a.jsonl",
        "policy=drop",
        "backbone.path=x",
        "module.head_lr=1e-3",
        "+trainer.max_steps=2",
        "name=x",
        "seed=3",
        "--config-dir",
        "/mine",
    ]
    assert trained_words(words) == [
        "--config-dir=/mine",
        "data=jsonl",
        "data.file=a.jsonl",
        "backbone.path=x",
        "module.head_lr=1e-3",
        "+trainer.max_steps=2",
        "seed=3",
    ]


def test_the_same_pairs_from_another_folder_are_the_same_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Voters are taken for those of other settings by their words."""
    (tmp_path / "a.jsonl").touch()
    (tmp_path / "below").mkdir()
    said: list[list[str]] = []
    for folder, file in ((tmp_path, "a.jsonl"), (tmp_path / "below", "../a.jsonl")):
        monkeypatch.chdir(folder)
        said.append(trained_words([f"data.file={{mine:{file}}}", f"data.val_file=[{file}]"]))
    assert said[0] == said[1]
    assert str(tmp_path) in said[0][0]
