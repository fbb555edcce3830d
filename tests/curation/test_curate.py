"""Curation in this process: no row vanishes, what is written trains as the treatment would, a stop costs nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lightning_rm.annotation.reviews import Review, Reviewed, append_review
from lightning_rm.annotation.voters import Voter
from lightning_rm.curation import curate as curating
from lightning_rm.curation.curate import Look, Outside, curate
from lightning_rm.curation.made_of import check_made_of, note_made_of
from lightning_rm.curation.result import Curated, Rules
from lightning_rm.data.rows import BadRow, PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.treated import treated
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.pairs import prepare_pairs
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.strength.policies import PolicyName, policy
from tests.curation.test_conflicts import said
from tests.figures import draw_nothing
from tests.toy import Rows, toy_model

POLICY = TokenizePolicy(max_tokens=160, on_bad_row="drop")
NUM_PAIRS = 40


@pytest.fixture(scope="module", autouse=True)
def without_ink() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        yield


@pytest.fixture(scope="module")
def voters(tmp_path_factory: pytest.TempPathFactory) -> list[Voter]:
    folder = tmp_path_factory.mktemp("voters")
    for seed in range(3):
        toy_model(seed).save_pretrained(folder / str(seed), world_tokenizer())
    return [Voter(str(seed), folder / str(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def source() -> Rows:
    """Pairs of two annotators, a row that cannot be read, one that is too long, one whose responses are the same."""
    made = list(SyntheticSource(NUM_PAIRS, noise=0.25))
    rows: list[PairRow | BadRow] = [
        replace(row, others={"annotator": "ab"[place % 2], "second": place % 3 > 0}) for place, row in enumerate(made)
    ]
    rows[5:5] = [
        BadRow("pairs.jsonl:6", "broken JSON", "it ends early"),
        replace(made[0], id="long", prompt=said("user", "name " * 400)),
        replace(made[0], id="same", rejected=made[0].chosen),
    ]
    return Rows(rows)


def curated(out: Path, voters: list[Voter], cache: Path, rules: Rules | None = None, **options: Any) -> Curated:
    found = curate(source(), voters, out, rules, tokenize=POLICY, cache_dir=cache, **options)
    assert found is not None
    return found


@pytest.mark.parametrize("name", ["flip_weakest", "agreement", "soft", "drop"])
def test_no_row_vanishes_and_each_says_why(name: PolicyName, voters: list[Voter], cache: Path, tmp_path: Path) -> None:
    found = curated(tmp_path, voters, cache, Rules(name, share=0.3))
    clean, aside = (pq.read_table(tmp_path / f"{one}.parquet").to_pylist() for one in ("clean", "set_aside"))
    assert sum(found.counts.values()) == NUM_PAIRS + 3 == len(clean) + len(aside)
    assert found.counts["set aside"] == len(aside) >= 3
    ids = sorted(str(row["id"] or row["where"]) for row in [*clean, *aside])
    assert ids == sorted(row.origin if isinstance(row, BadRow) else row.id for row in source().rows)
    assert all(row["decision"] in ("kept", "flipped", "softened") for row in clean)
    why = {str(row["id"] or row["where"]): row["why"] for row in aside}
    assert why["pairs.jsonl:6"] == "not voted on: broken JSON: it ends early"
    assert "overlong" in why["long"]
    assert all(row["why"].startswith(f"{name}: strength ") for row in clean)
    assert json.loads(clean[0]["others"])["annotator"] == "a"


@pytest.mark.parametrize("name", ["flip_weakest", "agreement", "soft", "drop"])
def test_the_clean_file_trains_to_what_the_treatment_would(
    name: PolicyName, voters: list[Voter], cache: Path, tmp_path: Path
) -> None:
    curated(tmp_path, voters, cache, Rules(name, share=0.3))
    annotated = prepare_pairs(FileSource(tmp_path / "strength.parquet"), world_tokenizer(), POLICY, cache, "all")
    expected = treated(annotated, {name: policy(name, share=0.3)})
    found = prepare_pairs(FileSource(tmp_path / "clean.parquet"), world_tokenizer(), POLICY, cache, "clean")
    assert len(found) == len(expected)
    for i in range(len(found)):
        ours, theirs = target(found, i), target(expected, i)
        assert ours[0] == theirs[0]
        # One label is computed of strengths, the other of strengths that a file held: a digit of float32 apart.
        np.testing.assert_allclose(ours[1:], theirs[1:], rtol=1e-6, atol=1e-7)


def target(pairs: PairDataset, i: int) -> tuple[Any, float, float, float]:
    """Of a pair: the sequences, the better one first, the label of it, its strength and its true margin."""
    sequences = [tuple(one) for one in pairs.sample(i).sequences]
    columns = pairs.columns([i])
    label, strength, gold = (float(columns[name]) for name in ("label", "strength", "gold_margin"))
    if label < 0.5:
        return sequences[::-1], 1 - label, -strength, -gold
    return sequences, label, strength, gold


def test_a_stop_at_any_stage_costs_nothing(
    voters: list[Voter], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after the votes, after `strength.parquet` and before the report: the same bytes as in one go."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    curated(tmp_path / "whole", voters, cache)
    for stage in ("collect_facts", "write_clean", "write_report"):
        with monkeypatch.context() as patch:
            patch.setattr(curating, stage, stop)
            with pytest.raises(KeyboardInterrupt):
                curated(tmp_path / "stopped", voters, cache)
    monkeypatch.setattr(Voter, "load", stop)  # no conversation is scored again
    curated(tmp_path / "stopped", voters, cache)
    names = sorted(path.name for path in (tmp_path / "whole").iterdir() if path.is_file())
    assert names == [
        "clean.parquet",
        "curated_from.json",
        "report.json",
        "report.md",
        "set_aside.parquet",
        "strength.parquet",
    ]
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes()


def test_what_people_say_counts(voters: list[Voter], cache: Path, tmp_path: Path) -> None:
    """An oracle reviews every pair: every wrong label is flipped, and no right one. As a treatment it is the same."""
    path = tmp_path / "reviews.jsonl"
    for row in SyntheticSource(NUM_PAIRS, noise=0.25):
        append_review(path, Review(row.id, "keep" if row.clean else "flip"))
    found = curated(tmp_path, voters, cache, Rules("agreement", reviews=path))
    rows = pq.read_table(tmp_path / "clean.parquet").to_pylist()
    assert len(rows) == NUM_PAIRS
    assert all(row["clean"] and row["label"] == 1 for row in rows)
    assert {row["why"] for row in rows} == {"reviewed: keep", "reviewed: flip"}
    assert found.counts["flipped"] == sum(not row.clean for row in SyntheticSource(NUM_PAIRS, noise=0.25))
    pairs = prepare_pairs(FileSource(tmp_path / "strength.parquet"), world_tokenizer(), POLICY, cache, "all")
    after = treated(pairs, {"reviewed": Reviewed(path)})
    columns = after.columns(range(len(after)))
    assert (columns["label"] == columns["clean"]).all()


def test_reviews_of_other_data_are_refused(voters: list[Voter], cache: Path, tmp_path: Path) -> None:
    append_review(tmp_path / "reviews.jsonl", Review("elsewhere", "flip"))
    with pytest.raises(ValueError, match="none of its 1 pairs is among these 40"):
        curated(tmp_path, voters, cache, Rules(reviews=tmp_path / "reviews.jsonl"))
    pairs = prepare_pairs(SyntheticSource(4), world_tokenizer(), POLICY, cache, "plain")
    with pytest.raises(ValueError, match="none of its 1 pairs is among these 4"):
        treated(pairs, {"reviewed": Reviewed(tmp_path / "reviews.jsonl")})


def test_pairs_do_not_replace_what_other_pairs_or_other_people_left(voters: list[Voter], tmp_path: Path) -> None:
    """As `fit=null`, which trains nobody: voters that were trained on other pairs are refused by the command."""
    note_made_of(tmp_path / "out", source())
    check_made_of(tmp_path / "out", source())
    with pytest.raises(ValueError, match="holds what was curated from other pairs; name another folder, or remove it"):
        curate(SyntheticSource(3), voters, tmp_path / "out", tokenize=POLICY)
    (tmp_path / "clean.parquet").write_text("mine")
    with pytest.raises(ValueError, match=r"holds clean.parquet, which was not curated from these pairs"):
        curate(source(), voters, tmp_path, tokenize=POLICY)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clean.parquet", "out"]


def test_others_vote_too_and_groups_are_told(voters: list[Voter], cache: Path, tmp_path: Path) -> None:
    """A voter from outside counts twice, a second label once; annotators are told apart, where the data names them."""
    look = Look(second_label="second")
    found = curated(tmp_path, voters[:2], cache, held_out=0.0, outside=[Outside(voters[2], 2)], look=look)
    assert found.votes.voters == ("0", "1", "2#0", "2#1", "second")
    assert np.isnan(found.wrong.share)
    assert found.share == 0.1
    report = (tmp_path / "report.md").read_text()
    for said_of_it in ("Doubted labels by annotator", "cannot be told from 0 pairs", "0 cycles"):
        assert said_of_it in report
    assert (tmp_path / "report" / "by_annotator.csv").exists()
    told = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert (told["rows"], told["wrong_labels"]["share"]) == (NUM_PAIRS + 3, None)
