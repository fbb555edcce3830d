"""The train command as a user meets it: another directory, its own process, its output read."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import pytest
import torch
from filelock import FileLock
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from wandb.sdk.wandb_run import Run

from lightning_rm.analysis.history import read_history
from lightning_rm.callbacks import BestCheckpoint, LastCheckpoint, Stop
from lightning_rm.commands import _alone
from lightning_rm.commands._folder import clear_if_nothing
from lightning_rm.commands._run_callbacks import (
    _show_what_is_trained,  # pyright: ignore[reportPrivateUsage]  # what a rank that says nothing does of it
    in_order,
)
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.models.reward_model import RewardModel
from tests.commands.conftest import Cli
from tests.float64 import same
from tests.rlhf.policies import save_policy
from tests.toy import toy_data, toy_module, toy_trainer, write_jsonl

SMALL = ["data.num_pairs=96", "data.num_val=24", "data.num_test=24", "trainer.log_every_n_steps=1", "data.epochs=2"]


def test_a_second_run_in_a_folder_names_it(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it takes away what the first has written, or the folder of one that has not begun to train."""
    monkeypatch.setattr(_alone, "WAIT_SECONDS", 0.0)
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    with FileLock(tmp_path / "run" / _alone.RUN_LOCK):
        said = cli("train", *SMALL, "hydra.run.dir=run")
        assert (said.code, said.err.splitlines()[-1]) == (
            1,
            f"error: another run is at work in {tmp_path}/run; wait until it has ended, or name another folder with "
            "hydra.run.dir=",
        )
        clear_if_nothing(tmp_path / "run")
        assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".hydra", "train.log"]
    clear_if_nothing(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_from_the_checkpoint_of_a_step(cli: Cli, tmp_path: Path) -> None:
    """Three steps an epoch: the fourth is in the middle of the second, and its epoch's metrics are of all its pairs.

    It goes on in the folder of its checkpoint, whichever folder a new run would have. What was logged before it stays,
    and the pairs of a set that only the run before it had. A run that begins anew in a folder leaves nothing there of a
    set that it does not have.
    """
    arguments = ["train", *SMALL, "logger=csv", "checkpoint.every_n_train_steps=4"]
    results, pairs = tmp_path / "run" / "results.json", tmp_path / "run" / "pairs"
    pairs.mkdir(parents=True)
    (pairs / "test_older.parquet").write_text("of an older run")
    (older := tmp_path / "run" / "figures" / "older.png").parent.mkdir()
    older.write_text("of an older run")
    (tmp_path / "run" / "config.yaml").write_text("of an older run")
    said = cli(*arguments, "hydra.run.dir=run")
    assert said.code == 0, said.err
    assert "/run holds a run of " in said.out
    assert not older.exists()
    whole = json.loads(results.read_text())
    sets = ["test_ood.parquet", "test_test.parquet", "val_val.parquet"]
    assert sorted(path.name for path in pairs.glob("*.parquet")) == sets
    shutil.copy(pairs / "test_test.parquet", pairs / "test_more.parquet")
    history = read_history(tmp_path / "run" / "csv" / "metrics.csv")
    checkpoint = tmp_path / "run" / "checkpoints" / "resume.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 4
    results.unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    resumed = cli(*arguments, f"resume={checkpoint}")
    assert resumed.code == 0, resumed.err
    assert "holds a run" not in resumed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert whole["train"]["num_pairs"] == 96
    for name, metrics in json.loads(results.read_text()).items():
        assert metrics == same(whole[name])
    assert sorted(path.name for path in pairs.glob("*.parquet")) == sorted([*sets, "test_more.parquet"])
    assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["best.ckpt", "last.ckpt", "resume.ckpt"]
    assert (tmp_path / "run" / "figures" / "rewards_test_more.png").exists()
    resumed_history = read_history(tmp_path / "run" / "csv" / "metrics.csv")
    assert history["train/loss"].steps.tolist() == list(range(6))
    assert resumed_history.keys() == history.keys()
    for name, curve in resumed_history.items():
        assert curve.steps.tolist() == history[name].steps.tolist()
        assert curve.values == same(history[name].values)


def test_a_run_that_has_ended_is_not_replaced_unasked(cli: Cli, tmp_path: Path) -> None:
    """Its weights and results stay; `resume=auto` finds it done without reading data or model, also where a run stands
    for its backbone, and `overwrite=true` trains anew.
    """
    words = ["train", *SMALL, "logger=none", "trainer.max_steps=1", "hydra.run.dir=runs/${name}"]
    words += ["backbone=hub", "backbone.path=start"]
    said = cli("train", *SMALL, "logger=none", "trainer.max_steps=1", "hydra.run.dir=start")
    assert said.code == 0, said.err
    said = cli(*words, "name=a")
    assert said.code == 0, said.err

    def left() -> dict[str, int]:
        files = [path for path in (tmp_path / "runs" / "a").rglob("*") if ".hydra" not in path.parts and path.is_file()]
        return {str(path): path.stat().st_mtime_ns for path in files if path.name != "train.log"}

    before = left()
    said = cli(*words, "name=a", "optimizer.lr=1")
    told = f"error: {tmp_path}/runs/a holds a run that has ended: name another folder with hydra.run.dir=, or set"
    assert (said.code, said.err.count(told)) == (1, 1)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    for folder in ("runs/${name}", "runs/a"):
        figure = tmp_path / "runs" / "a" / "figures" / "rewards_val_val.png"
        figure.unlink()  # as where a full disk had no room for it
        said = cli(*words[:-3], f"hydra.run.dir={folder}", *words[-2:], "name=a", "resume=auto")
        assert (said.code, said.err.splitlines()[-1]) == (0, f"{tmp_path}/runs/a is done")
        assert "parameters" not in said.out
        assert figure.is_file()
    before |= {path: time for path, time in left().items() if "figures/rewards_val_val." in path}
    assert left() == before
    said = cli(*words, "name=a", "resume=auto", "optimizer.lr=1")
    assert said.code == 1
    assert re.search("has ended, and with .*optimizer.lr=1 in place of .* there is nothing left to train", said.err)
    assert left() == before
    said = cli(*words, "name=a", "resume=auto", "trainer.max_steps=2")  # there is more to do
    assert "from step 1 on with trainer.max_steps=2 in place of 1" in said.out
    said = cli(*words, "name=a", "overwrite=true")
    assert said.code == 0, said.err
    assert "/runs/a holds a run of " in said.out
    assert left().keys() == before.keys()


def test_the_average_of_the_best_validation_is_what_is_measured_and_exported(cli: Cli, tmp_path: Path) -> None:
    """Measured again, the exported weights give the same; they are not the latest average."""
    words = ["logger=csv", "callbacks=ema", "callbacks.ema.decay=0.5", "monitor=val/nll", "mode=max"]
    said = cli("train", *SMALL, *words, "trainer.max_epochs=3", "hydra.run.dir=run")
    assert said.code == 0, said.err
    *validations, _ = read_history(tmp_path / "run" / "csv" / "metrics.csv")["val/nll"].values.tolist()
    assert max(validations) > validations[-1] + 1e-3
    said = cli("train", *SMALL, "backbone=hub", "backbone.path=run", "trainer.max_epochs=0", "hydra.run.dir=again")
    assert said.code == 0, said.err
    once, again = (json.loads((tmp_path / run / "results.json").read_text()) for run in ("run", "again"))
    assert once["val"]["nll"] == pytest.approx(max(validations), rel=1e-5)
    for name in ("val", "test", "test/ood"):
        assert again[name]["nll"] == pytest.approx(once[name]["nll"], rel=1e-5)


def test_a_multirun_shares_a_folder_and_a_job_that_fails_stops_no_other(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's run ends, which may wait for a network or fail, when the results are written."""
    written: list[int] = []

    def end(run: Run, **options: Any) -> None:
        written.append(len(list((tmp_path / "sweep").glob("*/results.json"))))
        finish(run, **options)

    finish = Run.finish
    monkeypatch.setattr(Run, "finish", end)
    said = cli("train", "-m", *SMALL, "data.max_tokens=256,9999", "seed=0,1", "hydra.sweep.dir=sweep", "data.epochs=1")
    assert said.code == 1
    assert "2 of 4 jobs are not done" in said.err
    assert "data.max_tokens=9999, but the backbone has positions for 2048" in " ".join(said.err.split())
    runs = sorted((tmp_path / "sweep").glob("*/results.json"))
    assert len(runs) == 2
    accuracies = [json.loads(run.read_text())["val"]["nll"] for run in runs]
    assert accuracies[0] != accuracies[1]
    assert len(list((tmp_path / "sweep").glob("*/wandb/offline-run-*/*.wandb"))) == 2
    assert written == [1, 2]
    times = [run.stat().st_mtime_ns for run in runs]
    again = next(line for line in said.err.splitlines() if "lightning-rm train -m" in line)
    said = cli(*shlex.split(again)[1:])  # those that are done are not run again
    assert said.code == 1
    assert said.err.count("is done") == 2
    assert [run.stat().st_mtime_ns for run in runs] == times
    word = (runs[0].parent / "job.json").read_text()
    said = cli("train", "-m", *SMALL, "seed=0,1", "hydra.sweep.dir=sweep")  # they are not replaced unasked
    assert said.code == 1
    assert "error: sweep holds 2 runs of a sweep that ended there (0, 1): go on with it by resume=auto, " in said.err
    assert (runs[0].parent / "job.json").read_text() == word
    assert [run.stat().st_mtime_ns for run in runs] == times


@pytest.mark.filterwarnings("error:.*could not find the monitored key")
def test_every_rank_asks_whether_the_head_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sharded head is gathered for that: the first rank would wait for the others for ever."""
    asked: list[RewardModel] = []
    monkeypatch.setattr(RewardModel, "untrained_head", property(asked.append))
    other = cast(L.Trainer, SimpleNamespace(is_global_zero=False, datamodule=None))
    _show_what_is_trained(other, toy_module())
    assert len(asked) == 1


def test_checkpoints_that_a_run_goes_on_from_know_of_those_that_are_asked_for(tmp_path: Path) -> None:
    """Lightning calls checkpoints last, in the order given: `best.ckpt` has the state of `top_k` of its validation."""
    best = BestCheckpoint(tmp_path, "val/nll", "min", tmp_path / "model")
    stop, top_k = EarlyStopping("val/nll"), ModelCheckpoint(tmp_path / "top_k", "{step}", "val/nll", save_top_k=2)
    callbacks = in_order([Stop(), best, LastCheckpoint(tmp_path)], [stop, top_k])
    trainer = toy_trainer(tmp_path, max_epochs=1, callbacks=callbacks, enable_checkpointing=True)
    trainer.fit(toy_module(), toy_data(cache_dir=tmp_path / "cache"))
    saved = torch.load(tmp_path / "best.ckpt", weights_only=True)["callbacks"]
    (kept,) = (state["best_k_models"] for name, state in saved.items() if name.startswith("ModelCheckpoint"))
    assert [Path(path).name for path in kept] == ["step=6.ckpt"]


def test_no_logger_still_prints_the_table(cli: Cli, tmp_path: Path) -> None:
    """Of a run that ends within an epoch, too, before what goes by validations has had one to look at."""
    waiting = ["logger=none", "callbacks=[early_stopping,top_k]"]
    said = cli("train", *SMALL, *waiting, "hydra.run.dir=run", "trainer.max_steps=1")
    assert said.code == 0, said.err
    assert "accuracy" in said.out
    assert not (tmp_path / "run" / "csv").exists()
    assert "no validation took place: the last weights are taken for the best" in said.out


def test_a_run_measures_alone_where_nothing_is_trained(cli: Cli, tmp_path: Path) -> None:
    """On sets of one file, of which one has options of its own."""
    write_jsonl(tmp_path / "test.jsonl", list(SyntheticSource(8, split="test")))
    words = [
        "data=jsonl",
        "data.file=null",
        "data.test_file={every: test.jsonl, lists: {path: test.jsonl, where: {subset: list}}}",
        "trainer.max_epochs=0",
        "monitor=null",
    ]
    said = cli("train", *words, "logger=none", "hydra.run.dir=run")
    assert said.code == 0, said.err
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [results[name]["num_pairs"] for name in ("test/every", "test/lists")] == [8, 2]


def test_a_run_that_diverges_ends_with_an_error_and_saves_nothing(cli: Cli, tmp_path: Path) -> None:
    words = [*SMALL, "logger=csv", "hydra.run.dir=run", "checkpoint.every_n_train_steps=2", "scheduler.warmup=0"]
    said = cli("train", *words, "optimizer.lr=1e38")
    assert said.code == 1
    assert "weights are not finite" in said.err
    assert not list((tmp_path / "run").rglob("*.ckpt"))
    assert not (tmp_path / "run" / "model").exists()


def test_a_run_is_a_backbone_and_its_folder_a_checkpoint(cli: Cli, tmp_path: Path) -> None:
    """A head that is new is said once: not of the run that goes on from here, nor of one that takes its weights."""
    save_policy(tmp_path / "policy")
    first = [*SMALL, "logger=none", "hydra.run.dir=first", "trainer.max_steps=1"]
    said = cli("train", *first, "backbone=hub", "backbone.path=policy")
    assert said.code == 0, said.err
    new_head = "path='policy' has no reward head: a new one is drawn, and trained from here\n"
    assert (said.out + said.err).count(new_head) == 1
    words = [*SMALL, "logger=none", "hydra.run.dir=words", "trainer.max_steps=1", "module=supervised", "monitor=null"]
    said = cli("train", *words, "backbone=hub", "backbone.path=policy", "backbone.model.keep_lm_head=true")
    assert said.code == 0, said.err
    assert "no reward head" not in said.out + said.err  # of a policy none is trained
    second = [*SMALL, "logger=none", "hydra.run.dir=second", "trainer.max_steps=1"]
    said = cli("train", *second, "backbone=hub", "backbone.path=first")
    assert said.code == 0, said.err
    assert "backbone.path: first is a run; its weights are read from first/model/best" in said.out
    assert new_head not in said.out
    said = cli(
        "train", *SMALL, "logger=none", "resume=first", "trainer.max_steps=2", "backbone=hub", "backbone.path=policy"
    )
    assert said.code == 0, said.err
    assert new_head not in said.out
    assert "going on from first/checkpoints/last.ckpt" in said.err
    assert torch.load(tmp_path / "first" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.yaml").write_text("name: a")
    said = cli("train", *SMALL, "backbone=hub", "backbone.path=empty")
    assert "error: backbone.path='empty' is a run without weights in model/best" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("data=jsonl data.file=none.jsonl", "none.jsonl"),
        ("backbone=hub backbone.path=no/such", "error: path='no/such' is not a folder here"),
        ("trainer.strategy=deepspeed_stage_3", "set trainer=deepspeed, and trainer.strategy.stage and offload"),
        ("data=jsonl", "error: data.file must be given: data.file=..."),
        ("data=jsonl data.file=null", "error: there is nothing to train on: the data names no file"),
        ("checkpoint.every_n_train_steps=0", "error: every_n_train_steps=0: give 1 or more, or null"),
        ("checkpoint.every_n_train_steps=0", "\n(on the command line: checkpoint.every_n_train_steps)\n"),
        ("resume=none.ckpt", "error: none.ckpt: there is no such checkpoint"),
        ("resume=.", "error: resume='.' is a folder without a checkpoint"),
        ("monitor=val/acc", "error: monitor='val/acc': there is no metric 'acc'; there are accuracy"),
        (
            "callbacks=early_stopping callbacks.early_stopping.monitor=val/acc",
            "error: callbacks.early_stopping.monitor='val/acc': there is no metric 'acc'",
        ),
        (
            "callbacks=top_k monitor=test/accuracy",
            "error: callbacks.top_k.monitor='test/accuracy' is not logged while a run trains",
        ),
        (
            "callbacks=early_stopping monitor=null",
            "error: callbacks.early_stopping.monitor=null: early stopping goes by",
        ),
        (
            "experiment=sft monitor=val/accuracy",
            "error: monitor='val/accuracy': there is no metric 'accuracy'; there are loss, num_tokens, perplexity",
        ),
        ("monitor=dev/accuracy", "error: monitor='dev/accuracy' is of no data set of this run"),
        (
            "trainer.limit_val_batches=0",
            "error: trainer.limit_val_batches=0 validates nothing, and monitor=val/accuracy",
        ),
        ("data.max_tokens=4096", "error: data.max_tokens=4096, but the backbone has positions for 2048"),
        (
            "experiment=baseline backbone.model.config.max_position_embeddings=512",
            "error: data.max_tokens=2048, which holds where none is given, but the backbone has positions for 512; set "
            "data.max_tokens=512 or less",
        ),
        ("module=meta", "error: MetaRM climbs by responses of a policy and there are none"),
        ("responses=synthetic", "error: BaselineRM does not train on responses"),
        ("module=contrastive", "error: ContrastiveRM needs something to contrast by"),
        ("contrast=simcse", "error: contrast: BaselineRM takes none"),
        ("trainer.precision=bf16-true", "error: trainer.precision=bf16-true"),
        (
            "+backbone.model.lora.rank=4",
            "error: backbone.model.lora={'rank': 4} says how adapters are, and there are none",
        ),
        ("logger.offline=false", "error: logger.offline=false sends the run to W&B, and there is no key for it here"),
        ("seed=null", "error: data.module.seed=null; give a whole number"),
        ("data.overlong=null", "(null was given for data.overlong; without it the default holds)"),
        ("+optimizer.betas=3", "error: the optimizer cannot be made of its options: "),
        ("+optimizer.betas=[2,3]", "error: Invalid beta parameter"),
    ],
)
def test_mistakes_are_named(
    cli: Cli, words: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    few = [] if "data=" in words else ["data.num_pairs=8", "data.num_val=8", "data.num_test=8"]  # of what is made
    said = cli("train", *words.split(), *few)
    assert said.code == 1
    assert message in said.out + said.err
    assert "Traceback" not in said.out + said.err
