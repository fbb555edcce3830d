"""Training pairs without the prompts of a benchmark; the rule itself is tested in `tests/curation/test_facts.py`."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_rm.commands._data import find_source
from lightning_rm.commands.evaluate import _sources  # pyright: ignore[reportPrivateUsage]
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.contamination import Decontaminated
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.sources.records import RecordSource
from lightning_rm.data.sources.shards import ParquetShards
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from tests.commands.test_conf import composed

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"]
PROMPTS = [
    " ".join(["please", *WORDS, "thanks"]),  # 13 words in a row, in the middle
    " ".join(WORDS[:12]),
    "Name one red fruit!",  # of four words
    "name FIVE red fruits, please",
    *(f"something else, number {number}" for number in range(6)),
]


def rows(number: int = len(PROMPTS)) -> list[dict[str, str]]:
    return [{"prompt": prompt, "chosen": "good", "rejected": "bad"} for prompt in PROMPTS[:number]]


def written(path: Path, *prompts: str) -> Path:
    path.write_text("".join(json.dumps({"question": prompt}) + "\n" for prompt in prompts))
    return path


@pytest.fixture
def benchmarks(tmp_path: Path) -> dict[str, Path]:
    return {
        "counting": written(tmp_path / "counting.jsonl", f"Count: {' '.join(WORDS).upper()}."),
        "fruits": written(tmp_path / "fruits.jsonl", "Name five red fruits, please.", "Name one red fruit!"),
    }


def test_rows_of_a_benchmark_are_left_out_and_say_of_which(benchmarks: dict[str, Path]) -> None:
    source = Decontaminated(RecordSource(rows()), benchmarks)
    found = list(source)
    left_out = [row for row in found if isinstance(row, BadRow)]
    assert [(row.origin, row.reason, row.detail) for row in left_out] == [
        ("records row 0", "asked by a benchmark", "counting"),
        ("records row 3", "asked by a benchmark", "fruits"),
    ]
    kept = [row.prompt[0]["content"] for row in found if isinstance(row, PairRow)]
    assert kept == [prompt for place, prompt in enumerate(PROMPTS) if place not in (0, 3)]


def test_short_turns_of_a_conversation_are_one_prompt(tmp_path: Path) -> None:
    """Seven words each: neither of them alone is compared with a run of 13."""
    turns = ["what is the best fruit of all", "and which one is the second best"]
    talk = [
        {"role": "user", "content": turns[0]},
        {"role": "assistant", "content": "apples"},
        {"role": "user", "content": turns[1]},
    ]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"conversation_input": talk}))
    asked = [talk, talk[:1], [{"role": "user", "content": turns[1]}]]
    source = RecordSource([{"prompt": prompt, "chosen": "good", "rejected": "bad"} for prompt in asked])
    found = Decontaminated(source, {"talk": tmp_path / "talk.jsonl"})
    assert [isinstance(row, BadRow) for row in found] == [True, False, False]


def test_neither_trained_on_nor_held_out_and_counted(benchmarks: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = world_tokenizer()
    data = PreferenceDataModule(
        tokenizer, rows(), val_fraction=0.4, cache_dir=tmp_path / "cache", decontaminate=benchmarks, on_bad_row="error"
    )
    data.setup("fit")
    train, val = (data.reports[name] for name in ("train", "val"))
    assert train.kept + val.kept == len(PROMPTS) - 2
    assert train.reasons == {"asked by a benchmark": 2}
    assert train.examples["asked by a benchmark"] == ["records row 0: counting", "records row 3: fruits"]


def test_other_bytes_of_a_benchmark_are_other_pairs(benchmarks: dict[str, Path], tmp_path: Path) -> None:
    plain = RecordSource(rows())
    source = Decontaminated(plain, benchmarks)
    before = source.fingerprint()
    assert before != plain.fingerprint()
    written(tmp_path / "fruits.jsonl", "Name six red fruits, please.")
    assert Decontaminated(plain, benchmarks).fingerprint() != before
    assert sum(isinstance(row, BadRow) for row in Decontaminated(plain, benchmarks)) == 1


def test_places_are_those_of_its_source(benchmarks: dict[str, Path], tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    assert Decontaminated(FileSource(pairs), benchmarks).places == [str(pairs)]


def test_what_cannot_be_read_is_named(benchmarks: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"decontaminate.gone: there is no file .*missing.jsonl"):
        Decontaminated(RecordSource(rows()), {"gone": tmp_path / "missing.jsonl"})
    (tmp_path / "none.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ValueError, match=r"decontaminate.none: no row of .* has a prompt"):
        list(Decontaminated(RecordSource(rows()), {"none": tmp_path / "none.jsonl"}))
    with pytest.raises(ValueError, match=r"give a mapping, decontaminate=\{NAME: FILES\}"):
        Decontaminated(RecordSource(rows()), "rewardbench.jsonl")  # pyright: ignore[reportArgumentType]


def test_a_stream_is_not_decontaminated(benchmarks: dict[str, Path], tmp_path: Path) -> None:
    pq.write_table(pa.table({name: [row[name] for row in rows()] for name in rows()[0]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"decontaminate with streamed shards: .* data=jsonl"):
        PreferenceDataModule(
            world_tokenizer(), ParquetShards(tmp_path / "a.parquet"), order="random", decontaminate=benchmarks
        )


def test_commands_that_read_training_pairs_leave_them_out(benchmarks: dict[str, Path], tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    named = ", ".join(f"{name}: {path}" for name, path in benchmarks.items())
    words = ["data=jsonl", f"data.file={pairs}", f"data.decontaminate={{{named}}}"]
    for source in (
        find_source(composed(*words, command="annotate")),
        _sources(composed(*words, "models=x", command="evaluate"))["pairs"],  # pyright: ignore[reportOptionalSubscript]
    ):
        assert sum(isinstance(row, BadRow) for row in source) == 2
    cfg = composed("data=jsonl", f"data.file={pairs}", command="annotate")
    assert len([*find_source(cfg)]) == len(PROMPTS)
    assert not any(isinstance(row, BadRow) for row in find_source(cfg))
