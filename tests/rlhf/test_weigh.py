"""Weighed pairs: the file against the policies' own log-probabilities, after a kill, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from lightning_rm.data.rows import Message, PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.encoding import encode_conversation
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.rlhf import pair_log_probs, pair_reader
from lightning_rm.rlhf.importance import Weighing
from lightning_rm.rlhf.log_probs import response_log_probs
from lightning_rm.rlhf.policy import load_policy
from lightning_rm.rlhf.prompts import encode_prompt
from lightning_rm.rlhf.weigh import weigh
from lightning_rm.rlhf.weighed_file import Weighed, weighed_by
from tests.rlhf.policies import save_policy
from tests.toy import write_annotated


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("policies")
    return save_policy(folder / "now", seed=1), save_policy(folder / "before")


def pairs_of(num: int, **more: Any) -> list[dict[str, Any]]:
    names = ("prompt", "chosen", "rejected", "id", "prompt_id", "label")
    return [{name: getattr(row, name) for name in names} | more for row in SyntheticSource(num, split="train")]


def weighed(rows: Any, policies: tuple[Path, Path], out: Path, **options: Any) -> Weighed:
    given: dict[str, Any] = {"reference": policies[1], "shard_pairs": 2, "device": "cpu", **options}
    return weigh(rows, policies[0], out, **given)


def test_the_file_has_the_log_probabilities_of_what_the_policies_would_say(
    policies: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = pairs_of(5, weight=2.0, source="a forum", score=7)
    rows[3]["weight"] = 0.5
    found = weighed(rows, policies, tmp_path / "out.parquet", weighing=Weighing(0.2, 0.1), temperature=0.8)
    tokenizer = world_tokenizer()
    for name, path in zip(("policy", "reference"), policies, strict=True):
        policy = load_policy(path)
        for i, row in enumerate(rows):
            for side, key in enumerate(("chosen", "rejected")):
                before = encode_prompt(tokenizer, row["prompt"])
                said = encode_conversation(tokenizer, [*row["prompt"], *row[key]])[len(before) :]
                assert said[-1] == tokenizer.eos_token_id
                with torch.no_grad():
                    logits = policy(torch.tensor([[*before, *said]])).logits[0, len(before) - 1 : -1] / 0.8
                expected = float(torch.log_softmax(logits, -1)[range(len(said)), said].sum())
                assert getattr(found, name).total[i, side] == pytest.approx(expected, rel=1e-5)
                assert getattr(found, name).num_tokens[i, side] == len(said)
    table = pq.read_table(found.path).to_pylist()
    assert [row["importance"] for row in table] == found.importance.weight.tolist()
    assert [row["weight"] for row in table] == [
        own["weight"] * factor for own, factor in zip(rows, found.importance.weight, strict=True)
    ]
    assert {(row["source"], row["score"]) for row in table} == {("a forum", 7)}
    again = [row for row in FileSource(found.path) if isinstance(row, PairRow)]
    assert [(row.id, row.chosen, row.weight) for row in again] == [
        (own["id"], tuple(own["chosen"]), row["weight"]) for own, row in zip(rows, table, strict=True)
    ]
    told = weighed_by(found.path)
    assert told["power"] == 0.2
    assert told["num_pairs"] == 5
    assert told["effective"] == found.importance.effective
    assert not (tmp_path / "out.parquet.parts").exists()


def test_strengths_and_votes_stay(policies: tuple[Path, Path], tmp_path: Path) -> None:
    write_annotated(tmp_path / "in.parquet", 3)
    weighed(tmp_path / "in.parquet", policies, tmp_path / "out.parquet")
    before, after = (pq.read_table(tmp_path / name).to_pylist() for name in ("in.parquet", "out.parquet"))
    names = ("strength_mean", "strength_std", "strength_quantile", "votes", "gold_margin", "clean")
    for own, row in zip(before, after, strict=True):
        assert {name: row[name] for name in names} == {name: own[name] for name in names}
        assert row["chosen_rewards"] == own["chosen_rewards"]


def test_turns_of_others_are_not_the_policys(policies: tuple[Path, Path], tmp_path: Path) -> None:
    """Of a response of three turns, the assistant's two count, each after all that stands before it."""

    def turn(role: str, content: str) -> Message:
        return {"role": role, "content": content}

    long = [turn("assistant", "a frog."), turn("user", "another?"), turn("assistant", "a crab.")]
    prompt = [turn("user", "name an animal.")]
    parts = [
        {"prompt": prompt, "chosen": long[:1], "rejected": [turn("assistant", "no.")]},
        {"prompt": [*prompt, *long[:2]], "chosen": long[2:], "rejected": [turn("assistant", "no.")]},
    ]
    whole = weighed([{**parts[0], "chosen": long}], policies, tmp_path / "whole.parquet")
    apart = weighed(parts, policies, tmp_path / "apart.parquet")
    assert whole.policy.total[0, 0] == pytest.approx(apart.policy.total[:, 0].sum(), rel=1e-6)
    assert whole.policy.num_tokens[0, 0] == apart.policy.num_tokens[:, 0].sum()


def test_a_policy_that_has_not_moved_changes_nothing_and_is_read_once(
    policies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(pair_log_probs, "response_log_probs", counted(calls))
    found = weighed(pairs_of(4), (policies[1], policies[1]), tmp_path / "out.parquet", kept=tmp_path / "kept")
    assert found.importance.weight.tolist() == [1.0] * 4
    assert len(calls) == 2
    weighed(pairs_of(4), policies, tmp_path / "next.parquet", kept=tmp_path / "kept")
    assert len(calls) == 4  # of the reference nothing is computed again


def counted(calls: list[int], killed_at: int | None = None) -> Any:
    def call(*arguments: Any, **options: Any) -> Any:
        if len(calls) == killed_at:
            raise KeyboardInterrupt
        calls.append(len(arguments[1]))
        return response_log_probs(*arguments, **options)

    return call


def test_a_killed_weighing_goes_on_to_the_same_file(
    policies: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weighed(pairs_of(5), policies, tmp_path / "whole.parquet").path.read_bytes()
    for killed_at in range(6):  # three shards of each policy
        calls: list[int] = []
        out = tmp_path / f"{killed_at}.parquet"
        monkeypatch.setattr(pair_log_probs, "response_log_probs", counted(calls, killed_at))
        with pytest.raises(KeyboardInterrupt):
            weighed(pairs_of(5), policies, out)
        assert not out.exists()
        monkeypatch.setattr(pair_log_probs, "response_log_probs", counted(calls))
        assert weighed(pairs_of(5), policies, out).path.read_bytes() == whole
        assert len(calls) == 6


def test_a_policy_that_is_written_meanwhile_is_not_kept_under_its_old_name(
    policies: tuple[Path, Path], tmp_path: Path
) -> None:
    mine = save_policy(tmp_path / "mine", seed=2)

    def train_again(name: str, done: int, total: int) -> None:
        if done == total:
            save_policy(mine, seed=3)

    with pytest.raises(ValueError, match="mine has changed while it was in use"):
        weighed(
            pairs_of(4),
            policies,
            tmp_path / "out.parquet",
            reference=mine,
            kept=tmp_path / "kept",
            progress=train_again,
        )
    assert len(list((tmp_path / "kept").rglob("*.npz"))) == 2  # those of the other policy


def test_rows_that_a_policy_cannot_read_are_counted_or_refused(policies: tuple[Path, Path], tmp_path: Path) -> None:
    rows = pairs_of(4)
    rows[1]["chosen"] = [{"role": "assistant", "content": "frog " * 300}]
    rows[2]["chosen"] = None
    out = tmp_path / "out.parquet"
    found = weighed(rows, policies, out, tokenize=TokenizePolicy(on_bad_row="drop"))
    assert found.report.reasons == {"missing field": 1, "overlong": 1}
    assert [row["id"] for row in pq.read_table(out).to_pylist()] == [rows[0]["id"], rows[3]["id"]]
    out.unlink()
    for policy in (TokenizePolicy(), TokenizePolicy(overlong="error", on_bad_row="drop")):
        with pytest.raises(ValueError, match="1 of 4 rows cannot be used"):
            weighed(rows, policies, out, tokenize=policy)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ({}, {"reference": None}, "relative=0.1: there is no reference policy"),
        ({}, {"tokenize": TokenizePolicy(overlong="truncate_prompt")}, "overlong=truncate_prompt"),
        ({}, {"temperature": 0.0}, "temperature=0.0"),
        ({}, {"chat_template_kwargs": {"thinking": True}}, "reads no 'thinking'"),
        ({}, {"shard_pairs": 0}, "shard_pairs=0"),
        ({"importance": 1.0}, {}, "has a field 'importance', whose place"),
    ],
)
def test_what_cannot_be_weighed_is_said_before_a_policy_is_loaded(
    rows: dict[str, Any],
    options: dict[str, Any],
    message: str,
    policies: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(pair_reader, "load_policy")
    with pytest.raises(ValueError, match=message):
        weighed(pairs_of(2, **rows), policies, tmp_path / "out.parquet", **options)


def test_rows_of_responses_and_other_files_are_refused(policies: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weighed pairs are a Parquet file"):
        weighed(pairs_of(2), policies, tmp_path / "out.jsonl")
    path = tmp_path / "scored.jsonl"
    path.write_text(json.dumps({"prompt": "a", "responses": ["b", "c"], "scores": [1, 2]}) + "\n")
    with pytest.raises(ValueError, match="a pair needs chosen and rejected"):
        weighed(path, policies, tmp_path / "out.parquet")
    with pytest.raises(ValueError, match="rows of responses are not pairs"):
        weighed(SyntheticGroups(2, k=2), policies, tmp_path / "out.parquet")
