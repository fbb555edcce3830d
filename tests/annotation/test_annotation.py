"""Votes against one-by-one scoring, files against their readers, interrupted against uninterrupted."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import lightning as L
import numpy as np
import pyarrow.parquet as pq
import pytest

from lightning_rm.annotation.annotate import annotate
from lightning_rm.annotation.files import VOTERS, write_parquet
from lightning_rm.annotation.layouts import write_fnlp, write_trl
from lightning_rm.annotation.voters import TRAINED_ON, Voter, check_strangers, check_voters, write_trained_on
from lightning_rm.annotation.votes import Votes, collect_votes
from lightning_rm.commands._data import find_voters
from lightning_rm.data.rows import BadRow, Message, PairRow, Source
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.sources.records import RecordSource
from lightning_rm.data.sources.resampling import Fold
from lightning_rm.data.store.pairs import PairDataset
from lightning_rm.data.store.report import RowsLeftOut
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.pairs import TokenizePolicy
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.scoring import shards
from lightning_rm.scoring.conversations import score
from lightning_rm.scoring.engine import score_sequences
from lightning_rm.scoring.load import find_folder
from lightning_rm.scoring.parts import MARK, Rewards, check_parts, remove_parts
from lightning_rm.strength import Strength
from tests import reference
from tests.float64 import roughly, same
from tests.toy import Rows, toy_model, write_jsonl

POLICY = TokenizePolicy(max_tokens=128, on_bad_row="drop")
SOURCE = SyntheticSource(30, split="train")


@pytest.fixture(scope="module")
def voters(tmp_path_factory: pytest.TempPathFactory) -> list[Voter]:
    folder = tmp_path_factory.mktemp("voters")
    for seed in range(3):
        toy_model(seed).save_pretrained(folder / str(seed), world_tokenizer())
    return [Voter(str(seed), folder / str(seed)) for seed in range(3)]


def collected(source: Source, voters: list[Voter], folder: Path, **options: object) -> Votes:
    settings = {"cache_dir": folder / "cache", "shard_size": 16, "batch_tokens": 400} | options
    return collect_votes(source, voters, folder / "parts", POLICY, **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("layout", ["padded", "packed", "shared_prefix", "auto"])
def test_votes_are_margins_of_conversations_scored_alone(voters: list[Voter], tmp_path: Path, layout: str) -> None:
    bad = BadRow("row 3", "missing field", "chosen")
    rows = list(SOURCE)
    source = Rows([*rows[:3], bad, *rows[3:], rows[0]])  # one bad row, one pair twice
    with pytest.warns(RowsLeftOut, match=r"31 kept\n  left out: missing field 1 \(row 3: chosen\)"):
        votes = collected(source, voters, tmp_path, layout=layout)
    kept = [*rows, rows[0]]
    assert votes.voters == ("0", "1", "2")
    assert votes.pairs.source_row.tolist() == [row + (row >= 3) for row in range(31)]
    for place, voter in enumerate(voters):
        model = RewardModel.from_pretrained(voter.folder, tokenizer=world_tokenizer())
        for side, rewards in (("chosen", votes.chosen), ("rejected", votes.rejected)):
            alone = score(model, world_tokenizer(), [(*row.prompt, *getattr(row, side)) for row in kept], batch_size=1)
            assert rewards[:, place].tolist() == roughly(alone.tolist())
    np.testing.assert_array_equal(votes.votes, votes.chosen - votes.rejected)


def test_the_file_is_a_source_as_it_stands(voters: list[Voter], tmp_path: Path) -> None:
    rows = [replace(row, margin=0.5, label=0.9, weight=2.0, subset="a") for row in SOURCE]
    votes = collected(Rows(rows), voters, tmp_path)
    strength = write_parquet(Rows(rows), votes, tmp_path / "strength.parquet")
    again = list(FileSource(tmp_path / "strength.parquet"))
    for i, (row, read) in enumerate(zip(rows, again, strict=True)):
        assert isinstance(read, PairRow)
        mean, std = reference.strength(votes.votes[i].tolist())
        assert read.votes == same(votes.votes[i].tolist())
        assert (read.strength_mean, read.strength_std) == (same(mean), same(std))
        assert replace(read, votes=(), strength_mean=None, strength_std=None) == row
        assert read.unread == ()
    table = pq.read_table(tmp_path / "strength.parquet")
    assert json.loads(table.schema.metadata[VOTERS]) == ["0", "1", "2"]
    assert table["strength_quantile"].to_pylist() == [reference.quantile(strength.mean.tolist(), i) for i in range(30)]
    assert table["chosen_rewards"].to_pylist() == votes.chosen.tolist()
    assert table["rejected_rewards"].to_pylist() == votes.rejected.tolist()


def test_calls_of_tools_are_kept(tmp_path: Path) -> None:
    call: Message = {"role": "assistant", "content": "", "tool_calls": ({"function": {"name": "f", "arguments": {}}},)}
    answer: Message = {"role": "tool", "content": "apple", "name": "f", "tool_call_id": "1"}
    row = next(iter(SOURCE))
    row = replace(
        row, prompt=(*row.prompt, call, answer), tools=({"name": "f"},), chat_template_kwargs={"think": False}
    )
    scored = cast(PairDataset, SimpleNamespace(source_row=np.array([0])))
    votes = Votes(scored, ("a",), np.array([[2.0]]), np.array([[0.5]]))
    write_parquet(Rows([row]), votes, tmp_path / "strength.parquet")
    [read] = FileSource(tmp_path / "strength.parquet")
    assert isinstance(read, PairRow)
    assert replace(read, votes=(), strength_mean=None, strength_std=None) == row


def test_the_papers_layout_is_read_back_with_its_strengths(voters: list[Voter], tmp_path: Path) -> None:
    votes = collected(SOURCE, voters, tmp_path)
    write_fnlp(SOURCE, votes, tmp_path / "train.json")
    raw = json.loads((tmp_path / "train.json").read_text())
    assert set(raw[0]) == {
        "chosen",
        "rejected",
        "GPT4 label",
        "mean preference difference",
        "std preference difference",
        "chosen_score_list",
        "rejected_score_list",
    }
    for i, (row, read) in enumerate(zip(SOURCE, FileSource(tmp_path / "train.json"), strict=True)):
        assert isinstance(read, PairRow)
        assert (read.prompt, read.chosen, read.rejected, read.clean) == (
            row.prompt,
            row.chosen,
            row.rejected,
            row.clean,
        )
        assert read.strength_mean == same(votes.votes[i].mean())
        assert read.votes == same(votes.votes[i].tolist())


def test_trl_gets_a_margin(voters: list[Voter], tmp_path: Path) -> None:
    votes = collected(SOURCE, voters, tmp_path)
    write_trl(SOURCE, votes, tmp_path / "trl.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "trl.jsonl").read_text().splitlines()]
    assert len(rows) == 30
    for i, (row, pair) in enumerate(zip(rows, SOURCE, strict=True)):
        assert row.keys() == {"prompt", "chosen", "rejected", "margin"}
        assert row["chosen"] == [dict(turn) for turn in pair.chosen]
        assert row["margin"] == same(votes.votes[i].mean())


def test_turns_that_the_papers_layout_has_no_place_for(voters: list[Voter], tmp_path: Path) -> None:
    rows = [replace(row, prompt=({"role": "system", "content": "be brief"}, *row.prompt)) for row in SOURCE]
    votes = collected(Rows(rows), voters[:1], tmp_path)
    with pytest.raises(ValueError, match="system, user"):
        write_fnlp(Rows(rows), votes, tmp_path / "train.json")
    assert not list(tmp_path.glob("*train.json*"))


@pytest.mark.parametrize("stop_after", [1, 3, 7])
def test_interrupted_equals_uninterrupted_byte_for_byte(
    voters: list[Voter], tmp_path: Path, stop_after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(SOURCE, collected(SOURCE, voters, tmp_path / "whole"), tmp_path / "whole.parquet")
    calls = 0

    def interrupt(voter: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collected(SOURCE, voters, tmp_path / "again", progress=interrupt)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "again" / "parts").rglob("*.npz")}
    scored: list[int] = []

    def counted(model: AnyRewardModel, sequences: Sequence[Sequence[int]], **options: Any) -> Rewards:
        scored.append(len(sequences))
        return score_sequences(model, sequences, **options)

    monkeypatch.setattr(shards, "score_sequences", counted)
    write_parquet(SOURCE, collected(SOURCE, voters, tmp_path / "again"), tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert sum(scored) <= 3 * 60 - 16 * len(before)
    own = next((tmp_path / "again" / "parts").glob("*/")) / "thesis.txt"
    own.touch()
    remove_parts(tmp_path / "again" / "parts")
    assert [path for path in (tmp_path / "again" / "parts").rglob("*") if path.is_file()] == [own]
    own.unlink()
    (own.parent.parent / MARK).touch()
    remove_parts(tmp_path / "again" / "parts")
    assert not (tmp_path / "again" / "parts").exists()


def test_other_voters_do_not_take_over_what_was_scored(voters: list[Voter], tmp_path: Path) -> None:
    one = collected(SOURCE, voters[:1], tmp_path)
    two = collected(SOURCE, voters[1:2], tmp_path)
    again = collected(SOURCE, voters[:1], tmp_path)
    assert not np.array_equal(one.chosen, two.chosen)
    np.testing.assert_array_equal(one.chosen, again.chosen)


def test_another_precision_does_not_take_over_what_was_scored(voters: list[Voter], tmp_path: Path) -> None:
    exact = collected(SOURCE, voters[:1], tmp_path)
    fabric = L.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    after = collected(SOURCE, voters[:1], tmp_path, fabric=fabric)
    afresh = collected(SOURCE, voters[:1], tmp_path / "afresh", fabric=fabric)
    assert not np.array_equal(after.chosen, exact.chosen)
    np.testing.assert_array_equal(after.chosen, afresh.chosen)


def test_a_voter_whose_fold_holds_no_prompt_says_nothing(voters: list[Voter], tmp_path: Path) -> None:
    rows = Rows([row for row in SOURCE if Fold(0, 2).holds(row.prompt_id)])
    MemberRewardModel.of(toy_model(), Members(num_members=2)).save_pretrained(tmp_path / "m", world_tokenizer())
    silent = [replace(voters[1], fold=Fold(1, 2)), Voter("m", tmp_path / "m", Fold(1, 2))]
    votes = collected(rows, [replace(voters[0], fold=Fold(0, 2)), *silent], tmp_path)
    assert votes.voters == ("0", "1", "m#0", "m#1")
    assert np.isnan(votes.votes[:, 1:]).all()
    alone = collected(rows, voters[:1], tmp_path)
    np.testing.assert_array_equal(votes.votes[:, :1], alone.votes)
    np.testing.assert_array_equal(votes.strength.mean, alone.strength.mean)
    write_parquet(rows, votes, tmp_path / "strength.parquet")
    assert pq.read_table(tmp_path / "strength.parquet")["votes"].to_pylist() == alone.votes.tolist()


def test_cross_fitted_voters_vote_on_the_fold_they_left_out(voters: list[Voter], tmp_path: Path) -> None:
    folded = [replace(voter, fold=Fold(number, 2)) for number, voter in enumerate(voters)]
    votes = collected(SOURCE, folded, tmp_path)
    whole = collected(SOURCE, voters, tmp_path)
    prompts = [row.prompt_id for row in SOURCE]
    for place, voter in enumerate(folded):
        assert voter.fold is not None
        has_say = np.array([voter.fold.holds(prompt) for prompt in prompts])
        assert np.isnan(votes.votes[~has_say, place]).all()
        assert votes.votes[has_say, place].tolist() == roughly(whole.votes[has_say, place].tolist())
    strength = write_parquet(SOURCE, votes, tmp_path / "cross.parquet")
    numbers = pq.read_table(tmp_path / "cross.parquet")["votes"].to_pylist()
    assert {len(row) for row in numbers} == {1, 2}  # voters 0 and 2 left out the same fold
    np.testing.assert_array_equal(strength.mean, Strength.of_votes(votes.votes).mean)
    with pytest.raises(ValueError, match="belong to a fold that no voter left out"):
        collected(SOURCE, folded[:1], tmp_path)


def test_members_of_one_backbone_vote_one_by_one(voters: list[Voter], tmp_path: Path) -> None:
    members = MemberRewardModel.of(toy_model(), Members(num_members=3)).eval()
    members.save_pretrained(tmp_path / "members", world_tokenizer())
    votes = collected(SOURCE, [Voter("m", tmp_path / "members"), voters[1]], tmp_path)
    assert votes.voters == ("m#0", "m#1", "m#2", "1")
    for place in range(3):
        alone = score(
            members.member(place), world_tokenizer(), [(*row.prompt, *row.chosen) for row in SOURCE], batch_size=1
        )
        assert votes.chosen[:, place].tolist() == roughly(alone.tolist())


def test_rows_in_memory_get_the_votes_of_those_in_a_file(voters: list[Voter], tmp_path: Path) -> None:
    rows = [{"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected} for row in SOURCE]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = [Voter(voter.name, str(voter.folder)) for voter in voters]  # a folder in words is the same voter
    assert named == voters
    tables = []
    for name, source in (("file", path), ("files", [str(path)]), ("memory", rows)):
        out = tmp_path / f"{name}.parquet"
        votes = annotate(source, named, out, POLICY, cache_dir=tmp_path / "cache")
        assert votes.votes.shape == (30, 3)
        tables.append(pq.read_table(out))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    with pytest.raises(ValueError, match="source is of the type int; give a source, a path or a list of paths"):
        annotate(3, voters, tmp_path / "none.parquet")  # pyright: ignore[reportArgumentType]


def test_a_field_that_votes_would_replace_is_refused_before_any_is_scored(voters: list[Voter], tmp_path: Path) -> None:
    """Readers' votes, say. An annotation's own go, as those of an earlier one do."""
    rows = [{"prompt": row.prompt, "chosen": row.chosen, "rejected": row.rejected, "votes": 12} for row in SOURCE]
    out = tmp_path / "a.parquet"
    with pytest.raises(ValueError, match=r"row 0: the row has a field 'votes' of its own, .*columns=\{votes: null\}"):
        annotate(RecordSource(rows), voters, out, POLICY, cache_dir=tmp_path / "cache")
    assert not out.with_name("a.parquet.parts").exists()
    hidden = RecordSource(rows, columns={"votes": None})
    votes = annotate(hidden, voters, out, POLICY, cache_dir=tmp_path / "cache")
    assert annotate(str(out), voters, tmp_path / "b.parquet", POLICY).votes.tolist() == votes.votes.tolist()


def test_scored_responses_have_strengths_already(voters: list[Voter], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="voters judge pairs"):
        collected(cast(Source, SyntheticGroups(4, k=3, scored=True)), voters, tmp_path)


def test_voters_that_do_not_belong_together_are_named(voters: list[Voter], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no voters"):
        check_voters([])
    with pytest.raises(ValueError, match="voters 0 and twin have the same weights"):
        check_voters([voters[0], Voter("twin", voters[0].folder)])
    (tmp_path / "run/model/last").mkdir(parents=True)
    (tmp_path / "run/model/last/config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no weights in .*/run; it is a run, whose models are .*/run/model/last$"):
        check_voters([Voter("run", tmp_path / "run")])
    tokenizer = world_tokenizer()
    tokenizer.chat_template = str(tokenizer.chat_template) + " "
    toy_model(7).save_pretrained(tmp_path / "template", tokenizer)
    with pytest.raises(ValueError, match="voter other has another chat template than 0"):
        check_voters([voters[0], Voter("other", tmp_path / "template")])
    larger = world_tokenizer()
    larger.add_tokens(["zebra"])
    toy_model(8).save_pretrained(tmp_path / "tokens", larger)
    with pytest.raises(ValueError, match="another tokenizer"):
        check_voters([voters[0], Voter("other", tmp_path / "tokens")])
    toy_model(9, model_type="olmo2").save_pretrained(tmp_path / "head", world_tokenizer())
    with pytest.raises(ValueError, match="another head"):
        check_voters([voters[0], Voter("other", tmp_path / "head")])


def test_a_run_is_found_by_its_weights(voters: list[Voter], tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path / "run" / "model" / "last", world_tokenizer())
    assert find_folder(tmp_path / "run", "last") == tmp_path / "run" / "model" / "last"
    assert find_folder(tmp_path / "run", "best") is None
    assert find_folder(voters[0].folder) == voters[0].folder


def test_a_folder_of_others_stays(voters: list[Voter], tmp_path: Path) -> None:
    own = tmp_path / "a.parquet.parts" / "thesis.txt"
    own.parent.mkdir()
    own.touch()
    with pytest.raises(ValueError, match=r"a\.parquet\.parts is there already, and what it holds is not of"):
        annotate(SOURCE, voters[:1], tmp_path / "a.parquet", POLICY, cache_dir=tmp_path / "cache")
    assert own.exists()


def test_where_parts_cannot_lie_is_said_before_any_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"there is a file in the place of the folder.*file'"):
        check_parts(tmp_path / "file" / "a.parquet.parts")
    monkeypatch.setattr("lightning_rm.drafts.os.access", lambda *_: False)
    with pytest.raises(PermissionError, match=rf"it cannot be written.*{tmp_path}'"):
        check_parts(tmp_path / "out" / "a.parquet.parts")


def test_a_conversation_that_voters_cannot_read_is_named(voters: list[Voter], tmp_path: Path) -> None:
    draw = random.Random(0)
    words = " ".join(draw.choice(["red", "apple", "crab"]) for _ in range(400))
    long = replace(next(iter(SOURCE)), chosen=({"role": "assistant", "content": words},))
    named = "a.jsonl:7: a conversation has [0-9]+ tokens and the voters read 256; set max_tokens=256"
    long = replace(long, origin="a.jsonl:7")
    with pytest.raises(ValueError, match=named):
        collect_votes(Rows([long]), voters, tmp_path / "parts", TokenizePolicy(1000), cache_dir=tmp_path)
    assert not (tmp_path / "parts").exists()


def test_runs_of_one_glob_are_of_one_training(voters: list[Voter], tmp_path: Path) -> None:
    """A sweep that was run into a folder of an older one leaves those that it does not write over."""
    for seed in range(3):
        toy_model(seed).save_pretrained(tmp_path / "vote" / str(seed) / "model" / "best", world_tokenizer())
        write_trained_on(tmp_path / "vote" / str(seed), "a", {"optimizer.lr": 1.0, "data.max_tokens": 8})
    pattern = f"{tmp_path}/vote/*"
    assert len(find_voters(pattern, "best")) == 3
    with pytest.raises(ValueError, match=r"vote/0 is one itself: voters=.*vote/0$"):
        find_voters(f"{tmp_path}/vote/0/*", "best")
    stranger = tmp_path / "vote" / "2"
    other = r"with other settings than .*\(optimizer\.lr=2\.0, not 1\.0\)"
    for data, rate, why in (("b", 1.0, "on other pairs"), ("a", 2.0, other)):
        write_trained_on(stranger, data, {"optimizer.lr": rate, "data.max_tokens": 8})
        with pytest.raises(ValueError, match=rf"vote/2 was trained {why}.*: is it left from an older sweep\? Remove"):
            find_voters(pattern, "best")
        assert len(find_voters([f"{tmp_path}/vote/{seed}" for seed in range(3)], "best")) == 3  # they are meant
    (stranger / TRAINED_ON).unlink()
    with pytest.raises(ValueError, match=r"vote/2 does not say what it was trained on, and .*vote/0 does"):
        find_voters(pattern, "best")
    for seed in range(2):
        (tmp_path / "vote" / str(seed) / TRAINED_ON).unlink()
    assert len(find_voters(pattern, "best")) == 3


def test_data_that_changes_while_it_is_scored_is_an_error(voters: list[Voter], tmp_path: Path) -> None:
    """Its rows are read again for the file that is written, and would get the strengths of others."""
    file = tmp_path / "pairs.jsonl"
    write_jsonl(file, SOURCE)
    first, *others = file.read_text().splitlines(keepends=True)
    with pytest.raises(ValueError, match="the data has changed while it was scored"):
        annotate(
            file, voters[:1], tmp_path / "out.parquet", progress=lambda *_: file.write_text("".join([*others, first]))
        )
    assert not (tmp_path / "out.parquet").exists()


def test_a_voter_that_is_trained_anew_meanwhile_leaves_no_vote_under_its_old_name(
    voters: list[Voter], tmp_path: Path
) -> None:
    """Parts are named by the weights that were there when the voters were checked."""
    folder = tmp_path / "voter"
    toy_model(7).save_pretrained(folder, world_tokenizer())
    again = Voter("again", folder)
    check_voters([voters[0], again])
    toy_model(8).save_pretrained(folder, world_tokenizer())
    with pytest.raises(ValueError, match="voter again has changed while it was in use"):
        collected(SOURCE, [voters[0], again], tmp_path)
    assert [path.parent.name.rpartition("-")[2] for path in tmp_path.rglob("000000.npz")] == [voters[0].digest]
    assert len(collected(SOURCE, [voters[0], Voter("again", folder)], tmp_path).voters) == 2


def test_a_shard_has_a_conversation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard_size=0; give 1 or more"):
        collect_votes(SyntheticSource(2), [], tmp_path, TokenizePolicy(), shard_size=0)


def test_an_option_that_an_older_run_does_not_know_is_no_difference_where_it_is_off(tmp_path: Path) -> None:
    known = {"optimizer.lr": 1.0}
    for number, settings in enumerate([known, known | {"new": False, "newer": None, "newest": 0.0}]):
        write_trained_on(tmp_path / str(number), "a", settings)
    runs = [tmp_path / "0", tmp_path / "1"]
    check_strangers("runs", runs)
    check_strangers("runs", runs[::-1])
    for settings, told in ((known | {"new": 3}, r"\(new=3, not None\)"), ({"optimizer.lr": 0.0}, "lr=0.0, not 1.0")):
        write_trained_on(runs[1], "a", settings)
        with pytest.raises(ValueError, match=told):
            check_strangers("runs", runs)
