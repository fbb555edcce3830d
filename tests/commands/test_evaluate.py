"""`lightning-rm evaluate` from a command line to files, and benchmarks in training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from lightning_rm.commands import evaluate as command
from lightning_rm.commands.evaluate import evaluate_models
from lightning_rm.commands.train import train
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.evaluation.benchmarks import BENCHMARKS
from tests.commands.test_conf import CONF, SMALL, composed
from tests.evaluation.made import llmbar, write
from tests.float64 import same
from tests.toy import toy_model

QUICK = ["num_draws=20", "num_random=5"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    toy_model().save_pretrained(folder, world_tokenizer())
    return folder


def test_every_benchmark_has_its_yaml() -> None:
    assert {path.stem for path in (CONF / "benchmark").glob("*.yaml")} == {*BENCHMARKS, "all"}
    assert set(composed("benchmark=all", command="evaluate").benchmark) == set(BENCHMARKS)
    paths = composed("callbacks=benchmarks", "hydra.runtime.output_dir=run").callbacks.benchmarks.paths
    assert list(paths) == list(BENCHMARKS)


def test_a_benchmark_and_a_data_set_by_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    llmbar(tmp_path / "files" / "llmbar")
    (model / "job.json").write_text('{"overrides": ["seed=1", "resume=auto"]}')
    pairs = [{"prompt": f"q{n}", "chosen": f"a {n}", "rejected": f"b {n}"} for n in range(8)]
    found = evaluate_models(
        composed(
            f"models={model}",
            "benchmark=[llmbar,rmb]",
            f"path={tmp_path}/files",
            "data=jsonl",
            f"data.file={write(tmp_path / 'pairs.jsonl', pairs)}",
            f"out={tmp_path}/out",
            *QUICK,
            command="evaluate",
        )
    )
    assert set(found.benchmarks) == {"llmbar", "pairs"}
    assert set(found.failed) == {"reading rmb"}
    shown = capsys.readouterr().out
    assert "LLMBar: 20 items" in shown
    assert f"  {model}: seed=1\n" in shown  # of a sweep, whose folders are numbers
    assert f"{tmp_path}/out/evaluation.json" in shown
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["failed"].keys() == {"reading rmb"}


def test_what_would_be_left_unread_is_an_error(model: Path) -> None:
    with pytest.raises(ValueError, match="there is nothing to measure on: name a benchmark"):
        evaluate_models(composed(f"models={model}", command="evaluate"))
    with pytest.raises(ValueError, match=r"data.max_tokens is of training; evaluate reads max_tokens=64"):
        evaluate_models(composed(f"models={model}", "data=synthetic", "data.max_tokens=64", command="evaluate"))
    several = [f"models={model}", "benchmark=[llmbar,hhh]", "path=[a,b]"]
    with pytest.raises(ValueError, match=r"of several .* a folder .* or benchmark\.llmbar\.path=\.\.\. benchmark\.hhh"):
        evaluate_models(composed(*several, command="evaluate"))


def test_ctrl_c_says_how_to_go_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "evaluate", interrupted)
    with pytest.raises(SystemExit, match="130"):
        evaluate_models(composed(f"models={model}", "benchmark=llmbar", f"out={tmp_path}", command="evaluate"))
    assert "what is scored is kept; run the same command to go on" in capsys.readouterr().err


def test_the_best_weights_are_chosen_by_a_benchmark(tmp_path: Path) -> None:
    run = tmp_path / "run"
    value = train(
        composed(
            *SMALL,
            "callbacks=[benchmarks,early_stopping]",
            f"callbacks.benchmarks.paths.llmbar={llmbar(tmp_path / 'LLMBar')}",
            "callbacks.benchmarks.every_n_steps=1",
            "+trainer.callbacks=[{_target_: lightning.pytorch.callbacks.Timer, duration: '00:01:00:00'}]",
            "monitor=benchmark/llmbar/overall",
            "mode=max",
            f"hydra.runtime.output_dir={run}",
            "hydra.sweep.dir=runs",
        )
    )
    results = json.loads((run / "results.json").read_text())
    assert results["benchmark/llmbar"]["overall"] == value
    assert set(results["benchmark/llmbar"]) == {
        *("natural", "neighbor", "gptinst", "gptout", "manual", "adversarial", "overall")
    }
    rows = list(csv.DictReader((run / "csv" / "metrics.csv").open()))
    logged = [(int(row["step"]), row["benchmark/llmbar/overall"]) for row in rows if row["benchmark/llmbar/overall"]]
    assert {step for step, _ in logged} == {1, 2}
    assert (run / "model" / "best" / "config.json").is_file()
    # The exported weights are those that were measured.
    found = evaluate_models(
        composed(
            f"models={run}",
            "benchmark=llmbar",
            f"path={tmp_path}/LLMBar",
            f"out={tmp_path}/out",
            *QUICK,
            command="evaluate",
        )
    )
    assert found.value(str(run), "llmbar") == same(value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["monitor=benchmark/llmbar/overall"], "callbacks.benchmarks.paths.NAME=FOLDER.; there are: none"),
        (["callbacks=benchmarks"], "callbacks=benchmarks needs a file or folder"),
        (
            ["callbacks=benchmarks", "callbacks.benchmarks.paths.llmbar=nowhere"],
            "there is no file nowhere",
        ),
    ],
)
def test_a_metric_that_will_not_come_is_an_error_before_training(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(Exception, match=message):
        train(composed(*SMALL, *overrides, f"hydra.runtime.output_dir={tmp_path}", "hydra.sweep.dir=runs"))


def test_a_benchmark_without_validations_chooses_nothing(tmp_path: Path) -> None:
    overrides = ["callbacks=benchmarks", f"callbacks.benchmarks.paths.llmbar={llmbar(tmp_path)}"]
    with pytest.raises(ValueError, match="the best weights are chosen at validations, and this run has none"):
        train(
            composed(
                *SMALL,
                *overrides,
                "monitor=benchmark/llmbar/overall",
                "data.module.val=null",
                "data.val_fraction=0",
                f"hydra.runtime.output_dir={tmp_path}",
                "hydra.sweep.dir=runs",
            )
        )
