"""`evaluate` from names to files, with toy models."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from lightning_rm.data.sets import as_source
from lightning_rm.data.sources.groups import GroupRecords
from lightning_rm.data.sources.records import RecordSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.evaluation import evaluator as module
from lightning_rm.evaluation import kept
from lightning_rm.evaluation import rewards as scoring
from lightning_rm.evaluation.asked import find_models
from lightning_rm.evaluation.benchmarks import BENCHMARKS
from lightning_rm.evaluation.benchmarks.preferences import pair_items, preference_benchmark
from lightning_rm.evaluation.diagnostics import temperature_of
from lightning_rm.evaluation.evaluate import evaluate
from lightning_rm.evaluation.items import check_finite
from lightning_rm.evaluation.kept import KeptRewards
from lightning_rm.evaluation.markdown import markdown
from lightning_rm.evaluation.measure import NO_FIGURE, Comparison, Figure, Row, measure
from lightning_rm.evaluation.result import BenchmarkResult, ModelResult
from lightning_rm.evaluation.rewards import Reading, score_items
from lightning_rm.evaluation.statistics import McNemar
from lightning_rm.evaluation.tables import Tables, in_lines
from lightning_rm.losses.temperature import Best
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring.load import LoadedModel
from tests.evaluation.made import llmbar, write
from tests.float64 import roughly, same
from tests.toy import toy_model

FEW: dict[str, Any] = {"num_draws": 50, "num_random": 20}


def loaded(seed: int = 0, **config: Any) -> LoadedModel:
    return LoadedModel(toy_model(seed, **{"dtype": "float64", **config}).eval(), world_tokenizer())


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with weights, one without, an ensemble and members."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = world_tokenizer()
    for seed in range(2):
        toy_model(seed).save_pretrained(folder / "runs" / str(seed) / "model" / "best", tokenizer)
    (folder / "runs" / "unfinished").mkdir()
    RewardEnsemble([toy_model(0), toy_model(1)]).save_pretrained(folder / "ensemble", tokenizer)
    members = MemberRewardModel.of(toy_model(2), Members(num_members=3))
    with torch.no_grad():
        for parameter in members.heads.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    members.save_pretrained(folder / "members", tokenizer)
    return folder


def test_runs_ensembles_and_members_in_one_table(folders: Path, tmp_path: Path) -> None:
    found = evaluate(
        [f"{folders}/runs/*", str(folders / "ensemble"), folders / "members"],
        "llmbar",
        path=llmbar(tmp_path / "LLMBar"),
        out=tmp_path / "out",
        untrained=folders / "runs" / "1",  # 0 has the head of this seed
        **FEW,
    )
    assert found.failed == {}
    *listed, control = found["llmbar"].models
    assert control == f"untrained head on {folders}/runs/1"
    names = [f"{folders}/runs/0", f"{folders}/runs/1", f"{folders}/ensemble", f"{folders}/members"]
    assert listed == names
    alone = evaluate({"one": loaded(0, dtype="float32")}, "llmbar", path=tmp_path / "LLMBar", **FEW)
    assert found["llmbar"].models[names[0]].row.sections == alone["llmbar"].models["one"].row.sections
    # The mean of two models' rewards, not of their accuracies.
    files = [found["llmbar"].models[name].rewards for name in (*names[:3], control)]
    rewards = [pq.read_table(file)["rewards"].to_pylist() for file in files]
    assert not np.allclose(rewards[1], rewards[3], atol=1e-2)
    assert np.array(rewards[2]) == roughly(np.mean(rewards[:2], axis=0))
    assert len(found["llmbar"].comparisons) == 10
    values = [found.value(name, "llmbar") for name in names[:2]]
    assert found["llmbar"].models[names[2]].members == same(values)
    assert len(found["llmbar"].models[names[3]].members) == 3
    assert all(one.swap["holds"] for one in found["llmbar"].models.values())


def test_files_hold_what_the_tables_show(tmp_path: Path) -> None:
    models = {"a": loaded(0), "b": loaded(1)}
    found = evaluate(models, "llmbar", path=llmbar(tmp_path / "LLMBar"), out=tmp_path / "out", **FEW)
    told = json.loads((tmp_path / "out" / "evaluation.json").read_text())["benchmarks"]["llmbar"]
    overall = told["models"]["a"]["sections"]["overall"]
    assert overall["value"] == same(found.value("a", "llmbar"))
    assert overall["low"] <= overall["value"] <= overall["high"]
    assert set(overall) == {"value", "low", "high", "strict", "half", "ties"}
    assert set(told["controls"]) == {"length only", "random rewards"}
    items = BENCHMARKS["llmbar"].read(tmp_path / "LLMBar")
    longer = items.comparisons.margins(items.length) > 0
    means = [longer[items.subset == subset].mean() for subset in np.unique(items.subset)]
    assert told["controls"]["length only"]["sections"]["overall"]["value"] == same(np.mean(means))
    assert set(told["models"]["a"]["summary"]) == {"mean", "lowest", "lower quartile"}
    (pair,) = told["comparisons"]
    assert pair["difference"]["overall"]["value"] == same(found.value("a", "llmbar") - found.value("b", "llmbar"))
    rows = list(csv.DictReader((tmp_path / "out" / "evaluation.csv").open()))
    assert {row["model"] for row in rows} == {"a", "b", "length only", "random rewards"}
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert f"{100 * overall['value']:.1f}" in text
    console = Console(width=80, record=True)
    console.print(found.table())
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for expected in (
        "LLMBar: 20 items",
        "length only",
        "random rewards",
        "overall: mean of five subsets",
        "adversarial",
    ):
        assert expected in text
        assert expected in str(found.table())
    assert "natural: 4 of 100 rows" in text


def test_a_model_that_fails_costs_the_others_nothing(folders: Path, tmp_path: Path) -> None:
    broken = loaded(1)
    with torch.no_grad():
        next(broken.model.head_parameters()).fill_(float("nan"))
    models = {"missing": tmp_path / "nowhere", "NaN": broken, "good": folders / "runs" / "0"}
    found = evaluate(models, ["llmbar", "rmb"], path={"llmbar": llmbar(tmp_path / "L")}, **FEW)
    assert list(found["llmbar"].models) == ["good"]
    assert set(found.failed) == {"reading rmb", "missing", "NaN on llmbar"}
    assert "response 0 of" in found.failed["NaN on llmbar"]
    assert "gptinst.json row 0" in found.failed["NaN on llmbar"]
    console = Console(width=80, record=True)
    console.print(found.table())
    assert "FAILED: NaN on llmbar" in console.export_text()


@pytest.mark.parametrize(
    ("name", "width", "lines"),
    [
        ("runs/baseline/2026-11-30_12-00-00/0", 20, ["runs/baseline/", "2026-11-30_12-00-00/", "0"]),
        ("runs/baseline/2026-11-30", 9, ["runs/", "baseline/", "2026-11-", "30"]),
        ("random rewards", 14, ["random rewards"]),
        ("random rewards", 13, ["random", "rewards"]),
        ("instructions", 5, ["instructions"]),
        ("", 5, [""]),
    ],
)
def test_a_name_ends_its_lines_where_its_parts_end(name: str, width: int, lines: list[str]) -> None:
    assert in_lines(name, width).split("\n") == lines


def test_tables_break_no_word_of_a_name() -> None:
    section, names = "instruction_following", [f"runs/contrastive/2026-11-30_12-00-0{job}/0" for job in range(3)]
    row = Row({section: Figure(0.5, 0.4, 0.6)}, tie={section: 0.2}, strict={section: 0.4}, half={section: 0.5})
    models = {name: ModelResult(row, diagnostics={"pairs": 9}) for name in names}
    result = BenchmarkResult("a", "A", "the mean", 9, [section], models, {}, [])
    text = str(Tables({"a": result}, {}, 80))
    assert text.count("runs/contrastive/ ") == 6  # of the figures and of the ties
    assert text.count("2026-11-30_12-00-00/0 ") == 2
    assert section in text
    assert max(map(len, text.splitlines())) <= 80


def test_every_failure_stands_under_a_table() -> None:
    """Also that of a name that has ` on ` in it, as the control's, and on a benchmark that no model was measured on."""
    results = {
        name: BenchmarkResult(
            name, name, "the mean", 9, [], {"a": ModelResult(Row({"chat": Figure(0.5, 0.4, 0.6)}))}, {}, []
        )
        for name in ("llmbar", "hhh")
    }
    failed = dict.fromkeys(["untrained head on gpt", "b on hhh", "b on rmb", "b on llmbar", "c", "reading ppe"], "why")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(Tables(results, failed))
    for text in (console.export_text(), markdown(results, failed)):
        lines = [line.strip("- ") for line in text.splitlines() if "FAILED" in line]
        for_both = [f"FAILED: {name}: why" for name in failed]
        assert lines == [
            *(line for line in for_both if " on hhh" not in line),
            *(line for line in for_both if " on llmbar" not in line),
        ]


def test_a_full_disk_is_no_models_fault(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "rewards.parquet")

    monkeypatch.setattr(kept.KeptRewards, "write", full)
    with pytest.raises(OSError, match=r"No space left on device: 'rewards\.parquet'"):
        evaluate(f"{folders}/runs/*", "llmbar", path=llmbar(tmp_path / "LLMBar"), out=tmp_path / "out", **FEW)


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing could be measured: reading llmbar: "):
        evaluate({"a": loaded()}, "llmbar", path=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"nothing could be measured: \n  reading llmbar: .*\n  reading rmb: "):
        evaluate({"a": loaded()}, ["llmbar", "rmb"], path=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="path names 'LLMBar', and there are the benchmarks "):  # not from the hub
        evaluate({"a": loaded()}, "llmbar", path={"LLMBar": tmp_path / "nowhere"})
    rows: Any = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    with pytest.raises(ValueError, match="or all; pairs of one's own are given as data"):
        evaluate({"a": tmp_path}, rows)
    with pytest.raises(ValueError, match="nothing to measure on: name a benchmark, or data=FILE"):
        evaluate({"a": loaded()})
    with pytest.raises(ValueError, match="names no run with weights in model/best"):
        find_models(f"{tmp_path}/runs/*")


def test_what_is_not_a_model_is_a_sentence() -> None:
    """A model in memory has a name and its tokenizer; what is given in their place is told so."""
    one = loaded()
    for given, told in (
        (one, "is not a name or a folder; a model in memory has a name"),
        (None, "models: None is not a name or a folder"),
        ({"m": one.model}, r"models\['m'\] is of the type RewardModel; give a folder, or \(model, tokenizer\)"),
    ):
        with pytest.raises(ValueError, match=told):
            find_models(given)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="on_bad_row='skip'; it must be one of error, drop"):
        evaluate({"a": one}, data=list(pairs(2)), on_bad_row="skip")
    with pytest.raises(ValueError, match="num_draws='5'; give a whole number, 1 or more"):
        evaluate({"a": one}, data=list(pairs(2)), num_draws="5")  # pyright: ignore[reportArgumentType]


def test_a_nan_is_named_and_not_counted_as_wrong(tmp_path: Path) -> None:
    items = BENCHMARKS["llmbar"].read(llmbar(tmp_path))
    rewards = items.gold.copy()
    rewards[3, 1] = math.nan
    with pytest.raises(ValueError, match=r"model: the reward of response 1 of .*gptinst.json row 3 is nan"):
        check_finite(items, rewards, "model")


def test_what_is_too_long_is_cut_and_counted_or_left_out(tmp_path: Path) -> None:
    items = BENCHMARKS["llmbar"].read(llmbar(tmp_path, words=40))
    model, tokenizer = loaded()
    whole = score_items(model, tokenizer, items)
    assert (whole.num_cut, whole.left_out.any()) == (0, False)
    limit = whole.num_tokens - 4
    cut = score_items(model, tokenizer, items, Reading(max_tokens=limit))
    assert cut.num_cut > 0
    assert cut.num_tokens == limit
    assert not cut.left_out.any()
    left = score_items(model, tokenizer, items, Reading(max_tokens=limit, overlong="drop"))
    assert 0 < left.left_out.sum() < len(items)
    assert np.isnan(left.rewards[left.left_out]).all()
    assert left.rewards[~left.left_out] == same(whole.rewards[~left.left_out])
    with pytest.raises(ValueError, match=r"json row \d has a conversation of \d+ tokens, and the limit is"):
        score_items(model, tokenizer, items, Reading(max_tokens=limit, overlong="error"))
    found = evaluate(
        {"a": LoadedModel(model, tokenizer)},
        "llmbar",
        path=tmp_path,
        max_tokens=limit,
        overlong="drop",
        **FEW,
    )
    assert found["llmbar"].models["a"].num_left_out == left.left_out.sum()


def test_what_a_template_does_not_read_is_noted(tmp_path: Path) -> None:
    rows = [row | {"chat_template_kwargs": {"thinking": False}} for row in pairs(4)]
    for _ in range(2):  # the second time by rewards that are kept
        toy_model().save_pretrained(tmp_path / "model", world_tokenizer())
        found = evaluate(tmp_path / "model", data={"own": RecordSource(rows)}, out=tmp_path / "out", **FEW)
        console = Console(width=200, record=True)
        console.print(found.table())
        assert "model: 4 items with argument that the template does not read" in console.export_text()


def test_rewards_are_kept_and_used_again_only_for_the_same(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = llmbar(tmp_path / "LLMBar")
    calls: list[str] = []
    real = module.load_model

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append("loaded")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "load_model", counted)
    models = {"a": folders / "runs" / "0", "members": folders / "members"}

    def run(**changes: Any) -> tuple[Any, int]:
        calls.clear()
        return evaluate(models, "llmbar", path=place, out=tmp_path / "out", **FEW, **changes), len(calls)

    first, num_loaded = run()
    assert num_loaded == 2
    again, num_loaded = run()
    assert num_loaded == 0
    assert again.plain() == first.plain()
    assert run(max_tokens=30)[1] == 2
    natural = {"input": "q", "output_1": "x", "output_2": "y", "label": 1}
    write(place / "natural.json", [natural])
    before, num_loaded = run()
    assert num_loaded == 2
    # Another label costs no reward, but what stands beside them is of the label that is measured by.
    scored: list[int] = []
    monkeypatch.setattr(module, "score_items", lambda *args: scored.append(len(args[2])) or score_items(*args))
    write(place / "natural.json", [natural | {"label": 2}])
    turned, _ = run()
    told = [found["llmbar"].models["a"] for found in (before, turned)]
    assert set(scored) == {17}  # the check alone, there and back
    assert told[1].swap["accuracy"] == same(
        told[0].swap["accuracy"] + (1 - 2 * told[0].row.sections["natural"].value) / 17
    )
    table = pq.read_table(told[1].rewards)
    assert table["gold"].to_pylist()[table["subset"].to_pylist().index("natural")] == [0.0, 1.0]
    assert run()[1] == 0
    vocabulary = folders / "members" / "vocab.txt"
    vocabulary.write_text("one\ntwo\n")
    assert run()[1] == 1
    vocabulary.unlink()


def test_an_evaluation_that_was_stopped_goes_on_behind_what_is_scored(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = llmbar(tmp_path / "LLMBar")
    monkeypatch.setattr(kept, "CHUNK", 6)
    monkeypatch.setattr(scoring, "CHUNK", 6)
    real = scoring.score_sequences
    calls: list[int] = []

    limit = 2

    def counted(*args: Any, **kwargs: Any) -> Any:
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(len(args[1]))
        return real(*args, **kwargs)

    monkeypatch.setattr(scoring, "score_sequences", counted)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(folders / "runs" / "0", "llmbar", path=place, out=out, **FEW)
    assert len(list(out.rglob("*.npz"))) == 2
    calls, limit = [], 100
    again = evaluate(folders / "runs" / "0", "llmbar", path=place, out=out, **FEW)
    assert calls[:2] == [12, 4]  # the third and fourth chunk of 20 pairs, and then the check
    assert list(out.rglob("*.npz")) == []
    whole = evaluate(folders / "runs" / "0", "llmbar", path=place, **FEW)
    assert again["llmbar"].models.popitem()[1].row.sections == whole["llmbar"].models.popitem()[1].row.sections


def test_weights_that_are_written_meanwhile_are_not_given_the_rewards_of_those_before(tmp_path: Path) -> None:
    """The second set is named by the weights that are there now, and the model is that of the first set."""
    rows = list(pairs())
    trained = tmp_path / "model"
    toy_model(0).save_pretrained(trained, world_tokenizer())
    begun: list[str] = []

    def train_again(model: str, benchmark: str, done: int, total: int) -> None:
        if benchmark not in begun:
            begun.append(benchmark)
            toy_model(1).save_pretrained(trained, world_tokenizer())

    data = {"first": rows[:6], "second": rows[6:]}
    found = evaluate({"it": trained}, data=data, out=tmp_path / "out", progress=train_again, **FEW)
    assert found.failed == {"it on second": "it has changed while it was in use; start again once it stays as it is"}
    assert begun == ["first"]
    assert [path.parent.name for path in tmp_path.rglob("rewards/*/*.parquet")] == ["first"]
    assert evaluate({"it": trained}, data=data, out=tmp_path / "out", **FEW).failed == {}


def test_rows_that_a_user_leaves_out_are_counted_and_are_no_fault() -> None:
    rows = [{**row, "number": number} for number, row in enumerate(pairs())]
    items, reasons = pair_items(RecordSource(rows, where={"number": [0, 1, 5]}), "error")
    assert [item.prompt[0]["content"] for item in items] == [f"question {number}" for number in (0, 0, 2)]
    assert reasons == {"left out by where": 9}


def test_a_byte_of_kept_rewards_that_flips_is_scored_again(folders: Path, tmp_path: Path) -> None:
    """Without checksums three flips of four gave other rewards, and nothing was said."""
    rows, out = list(pairs()), tmp_path / "out"
    whole = evaluate({"it": folders / "runs" / "0"}, data={"set": rows}, out=out, **FEW)
    file = Path(whole["set"].models["it"].rewards)
    data, draw = file.read_bytes(), random.Random(0)
    items = pair_items(as_source(rows, "set"), "error")[0]
    before = KeptRewards(out / "rewards").read("set", "it", _key(data), items)
    assert before is not None
    flips = [(draw.randrange(len(data)), draw.randrange(8)) for _ in range(200)]
    names = [found.start() for found in re.finditer(b"subset|crc32|lightning_rm", data)]
    for place, bit in (*flips, *((place, 7) for place in names)):  # with its highest bit a name is no text
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        file.write_bytes(flipped)
        found = KeptRewards(out / "rewards").read("set", "it", _key(data), items)
        assert found is None or (
            np.array_equal(found.scored.rewards, before.scored.rewards) and found.swap == before.swap
        )


def _key(data: bytes) -> str:
    return json.loads((pq.read_schema(pa.BufferReader(data)).metadata)[b"lightning_rm"])["key"]


def pairs(num: int = 12) -> Iterator[dict[str, Any]]:
    for number in range(num):
        yield {
            "prompt": f"question {number // 2}",
            "chosen": f"good {number}",
            "rejected": f"bad {number}",
            "subset": "odd" if number % 2 else "even",
            "strength_mean": number / 10,
        }


def test_a_preference_file_is_a_benchmark(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", [*pairs(), {"prompt": "q", "chosen": "a", "rejected": "b", "label": 0.5}])
    found = evaluate({"a": loaded()}, data=path, **FEW)
    assert found["mine"].num_items == 12
    assert found["mine"].sections == ["even", "odd", "overall"]
    assert "1 rows left out: label of 1/2" in found["mine"].notes
    with pytest.raises(ValueError, match=r"mine.jsonl:13: "):
        evaluate({"a": loaded()}, data=write(tmp_path / "mine.jsonl", [*pairs(), {"prompt": "q"}]))


def test_subsets_keep_their_pairs_whatever_they_are_called() -> None:
    """One named like a figure over all, or like another once its slash is written as a dot, takes no other's place."""
    names = ("overall", "mean", "a/b", "a.b", "a.b")
    rows = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b", "subset": name} for n, name in enumerate(names)]
    items = pair_items(as_source(rows, "set"))[0]
    rewards = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    row = measure(preference_benchmark("set", items), items, rewards, num_draws=20)
    assert {name: figure.value for name, figure in row.sections.items()} == {
        "a.b": 0.5,
        "a.b (subset)": 1.0,
        "mean (subset)": 0.0,
        "overall (subset)": 1.0,
        "overall": 0.6,
    }
    assert row.figure("mean").value == 0.625


def test_diagnostics_and_a_temperature_that_is_stored(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is no better than chance, and would have no temperature."""
    monkeypatch.setattr("lightning_rm.evaluation.evaluator.temperature_of", lambda *_: Best(1.5))
    folder = tmp_path / "model"
    RewardModel.from_pretrained(folders / "runs" / "1" / "model" / "best", tokenizer=world_tokenizer()).save_pretrained(
        folder, world_tokenizer()
    )
    found = evaluate(
        folder,
        data={"mine": pd.DataFrame(pairs())},
        validation=[*pairs(30), {"prompt": "q"}],
        on_bad_row="drop",
        num_draws=20,
        num_random=5,
        diagnostics=True,
        probe_items=6,
    )
    assert found["mine"].notes[-1] == "validation: 1 rows left out: unknown format"
    diagnostics = found["mine"].models[str(folder)].diagnostics
    stored = json.loads((Path(folder) / "config.json").read_text())
    assert diagnostics["temperature"] == stored["lightning_rm"]["temperature"] == 1.5
    assert {"calibration", "by strength", "length", "spread", "selective by |margin|"} < diagnostics.keys()
    assert diagnostics["invariance"]["padded"] < 1e-4
    assert diagnostics["invariance"]["bfloat16"] > diagnostics["invariance"]["padded"]
    assert diagnostics["probes"]["quotes"]["pairs"] == 6
    json.dumps(found.plain(), allow_nan=False)
    again = RewardModel.from_pretrained(folder, tokenizer=world_tokenizer())
    assert again.backbone.config.lightning_rm == {"temperature": diagnostics["temperature"]}


def test_an_edit_that_makes_a_text_too_long_is_no_error_of_the_data() -> None:
    """Conversations that just fit: the probes' longer ones ended the whole evaluation, diagnostics and figures."""
    one, rows = loaded(), pd.DataFrame(pairs(3))
    longest = score_items(*one, pair_items(as_source(rows, "mine"))[0]).num_tokens
    asked: dict[str, Any] = {"max_tokens": longest, "overlong": "error", "diagnostics": True}
    found = evaluate({"a": one}, data={"mine": rows}, **asked, **FEW)
    probes = found["mine"].models["a"].diagnostics["probes"]
    assert probes["sentence"]["pairs"] + probes["sentence"]["too long"] == 3
    assert probes["sentence"]["too long"] > 0


def test_the_control_leaves_a_folder_its_models_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random head's was stored over that of the head that the folder holds."""
    fitted = iter([1.5, 9.0])
    monkeypatch.setattr("lightning_rm.evaluation.evaluator.temperature_of", lambda *_: Best(next(fitted)))
    toy_model(1).save_pretrained(tmp_path / "model", world_tokenizer())
    data, given = {"mine": pd.DataFrame(pairs())}, list(pairs(8))
    found = evaluate(tmp_path / "model", data=data, validation=given, untrained=tmp_path / "model", **FEW)
    assert len(found["mine"].models) == 2
    assert next(fitted, None) is None
    assert json.loads((tmp_path / "model" / "config.json").read_text())["lightning_rm"]["temperature"] == 1.5


def test_a_folder_that_takes_no_temperature_is_measured_all_the_same(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, value: float) -> Path:
        raise PermissionError(13, "Permission denied", str(folder / "config.json"))

    monkeypatch.setattr("lightning_rm.evaluation.evaluator.store_temperature", refuse)
    monkeypatch.setattr("lightning_rm.evaluation.evaluator.temperature_of", lambda *_: Best(1.5))
    source = RecordSource(list(pairs()))
    found = evaluate(folders / "runs" / "1", data={"mine": source}, validation=RecordSource(list(pairs(30))), **FEW)
    assert not found.failed
    assert "is not stored with it: [Errno 13] Permission denied" in found["mine"].notes[-1]


def test_validation_rewards_no_better_than_chance_have_no_temperature_and_it_is_said(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound of the fit, 1000, was stored with the model, and stood in the table of diagnostics."""
    monkeypatch.setattr("lightning_rm.evaluation.evaluator.store_temperature", pytest.fail)
    monkeypatch.setattr(
        "lightning_rm.evaluation.evaluator.temperature_of", lambda margin, label: temperature_of(-abs(margin), label)
    )
    found = evaluate(folders / "runs" / "1", data={"mine": pd.DataFrame(pairs())}, validation=list(pairs(30)), **FEW)
    assert (
        "has no temperature: its rewards of the validation pairs are no better than chance" in found["mine"].notes[-1]
    )


@pytest.mark.parametrize("lacking", [{}, {"overall": NO_FIGURE}, {"overall": Figure(math.nan, math.nan, math.nan)}])
def test_a_figure_that_is_missing_is_empty_in_either_table(lacking: dict[str, Figure]) -> None:
    """Absent or NaN: one table had `+nan`, the other ` ()`. The model that has it is the best."""
    chat = Figure(0.5, 0.4, 0.6)
    models = {"a": ModelResult(Row({"chat": chat, **lacking})), "b": ModelResult(Row({"overall": chat}))}
    pair = Comparison("a", "b", lacking, McNemar(3, 8, 0.02), 0.023)
    result = BenchmarkResult("mine", "Mine", "the mean", 9, [], models, {}, [pair])
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(Tables({"mine": result}, {}))
    text, lines = console.export_text(), markdown({"mine": result}, {}).splitlines()
    assert "nan" not in text
    assert "overall of b less that of others" in text
    assert "| a |  | 50.0 (40.0–60.0) |" in lines
    assert "| b | 50.0 (40.0–60.0) |  |" in lines
    assert "| a | b |  | 3 | 8 | 0.023 |" in lines


def test_where_a_subset_is_missing_models_are_compared_in_the_mean_over_the_others(tmp_path: Path) -> None:
    """Not in whichever section comes first: no overall can be told, and the mean is of the subsets that are there."""
    (llmbar(tmp_path / "LLMBar") / "manual.json").unlink()
    found = evaluate({"a": loaded(0), "b": loaded(1)}, "llmbar", path=tmp_path / "LLMBar", out=tmp_path / "out", **FEW)
    rows = [one.row for one in found["llmbar"].models.values()]
    assert "overall" not in rows[0].sections
    subsets = [row.sections[name].value for row in rows for name in ("natural", "neighbor", "gptinst", "gptout")]
    means = np.mean(subsets[:4]), np.mean(subsets[4:])
    assert [row.figure(row.main).value for row in rows] == same(means)
    (pair,) = found["llmbar"].comparisons
    difference = pair.difference["mean"]
    assert difference.value == same(means[0] - means[1])
    assert difference.low <= difference.value <= difference.high
    assert "difference in mean" in (tmp_path / "out" / "evaluation.md").read_text()
    console = Console(width=80, record=True)
    console.print(found.table())
    assert "mean of " in console.export_text()


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_models_that_were_measured_on_different_parts_are_tabled_beside_each_other(tmp_path: Path, order: str) -> None:
    """One of them reads no item of a part: it has no overall, and no difference to the other's."""
    for name in ("Natural", "Neighbor", "GPTInst", "GPTOut", "Manual"):
        words = "red " * (60 if name == "Manual" else 3)
        rows = [{"input": f"{name} {n}", "output_1": words, "output_2": "apple", "label": 1 + n % 2} for n in range(3)]
        write(tmp_path / "LLMBar" / f"{name}.json", rows)
    both = {"a": loaded(0), "b": loaded(1, max_position_embeddings=32)}
    found = evaluate(
        {name: both[name] for name in order},
        "llmbar",
        path=tmp_path / "LLMBar",
        overlong="drop",
        out=tmp_path / "out",
        **FEW,
    )
    a, b = (found["llmbar"].models[name].row for name in "ab")
    assert ("overall" in a.sections, "overall" in b.sections) == (True, False)
    (pair,) = found["llmbar"].comparisons
    assert "overall" not in pair.difference
    assert (
        f"| {order[0]} | {order[1]} |  | {pair.test.only_first} |" in (tmp_path / "out" / "evaluation.md").read_text()
    )
    console = Console(width=100, record=True)
    console.print(found.table())
    assert "overall of a less that of others" in console.export_text()


def test_lists_of_scored_responses_are_measured_by_their_pairs() -> None:
    """Of scores 3, 1, 1 two pairs differ; rewards of three words, two and one get both of the first row, and of the
    second, 1, 2, none. Labels are 1, whatever scores add up to; rows with nothing to compare are counted.
    """
    rows = [
        {"prompt": "a", "responses": ["x y z", "x y", "x"], "scores": [3, 1, 1]},
        {"prompt": "b", "responses": ["x", "x y"], "scores": [{"help": 0.7}, {"help": 0.1, "truth": 0.5}]},
        {"prompt": "c", "responses": ["x", "x y"], "scores": [2, 2]},
        {"prompt": "d", "response": "x", "score": 1},
        {"prompt": "e", "responses": ["x", "x y"]},
    ]
    items, reasons = pair_items(GroupRecords(rows))
    assert reasons == {
        "tie": 1,
        "one response, without another to compare it with": 1,
        "responses without scores": 1,
    }
    found = items.comparisons
    assert list(zip(found.item, found.better, found.worse, found.label, strict=True)) == [
        (0, 0, 1, 1.0),
        (0, 0, 2, 1.0),
        (1, 0, 1, 1.0),
    ]
    rewards = items.grid([[3.0, 2.0, 1.0], [1.0, 2.0]])
    assert preference_benchmark("set", items).columns(items, rewards, "own")["overall"].value.tolist() == [1, 1, 0]
    measured = evaluate({"it": loaded()}, data={"set": GroupRecords(rows)}, **FEW)
    assert measured["set"].notes
    with pytest.raises(ValueError, match="no pair to measure on; 1 rows left out: one response, without another"):
        evaluate({"it": loaded()}, data={"set": GroupRecords(rows[3:4])}, **FEW)
