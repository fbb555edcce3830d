"""Importance weights of pairs: against naive references, as a file, after a kill, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from lightning_rm.data.rows import Message, PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.policy import TokenizePolicy
from lightning_rm.data.tokenize.templates import encode_conversation
from lightning_rm.rlhf import pair_log_probs
from lightning_rm.rlhf.importance import LogProbs, Weighing
from lightning_rm.rlhf.log_probs import response_log_probs
from lightning_rm.rlhf.pair_log_probs import split_at_response
from lightning_rm.rlhf.policy import load_policy
from lightning_rm.rlhf.prompts import encode_prompt
from lightning_rm.rlhf.weigh import Weighed, weigh, weighed_by
from tests.float64 import roughly
from tests.rlhf.policies import save_policy, tiny_policy
from tests.toy import write_annotated

PLAIN = Weighing(power=1.0, relative=0.0)


def log_probs(*pairs: tuple[float, float], num_tokens: tuple[float, float] = (1.0, 1.0)) -> LogProbs:
    return LogProbs(np.array(pairs), np.array([num_tokens] * len(pairs)))


def test_weights_turn_one_policys_expectation_into_anothers() -> None:
    """p says four responses equally often, so every pair of them stands once for its probability; q does not."""
    q = np.array([0.7, 0.2, 0.09, 0.01])
    places = [(first, second) for first in range(4) for second in range(4)]
    worth = np.random.default_rng(0).normal(size=(4, 4))
    weight = PLAIN.of(log_probs(*np.log(q[places]).tolist()), log_probs(*[(math.log(0.25),) * 2] * 16)).weight
    under_q = sum(q[first] * q[second] * worth[first, second] for first, second in places)
    assert np.mean([w * worth[place] for w, place in zip(weight, places, strict=True)]) == roughly(under_q)


def test_so_do_weights_by_two_language_models() -> None:
    """Of one token, all responses can be listed: pairs of p, weighed, give the expectation of q."""
    policy, reference = tiny_policy(seed=1).double(), tiny_policy(seed=2).double()
    num = len(world_tokenizer())
    prompt, said = [[1, 5, 7]] * num, [[token] for token in range(num)]
    q, p = (response_log_probs(model, prompt, said) for model in (policy, reference))
    assert np.exp(q).sum() == roughly(1.0)
    worth = np.random.default_rng(0).normal(size=(num, num))
    first, second = np.divmod(np.arange(num * num), num)
    tokens = np.ones((num * num, 2))
    weighing = PLAIN.of(
        LogProbs(np.stack([q[first], q[second]], 1), tokens), LogProbs(np.stack([p[first], p[second]], 1), tokens)
    )
    drawn = np.exp(p[first] + p[second])
    found = (drawn * weighing.weight * worth.ravel()).sum() / (drawn * weighing.weight).sum()
    assert found == roughly(float(np.exp(q) @ worth @ np.exp(q)))


@pytest.mark.parametrize(
    "weighing",
    [
        Weighing(),
        PLAIN,
        Weighing(0.3, 0.2, per_token=True),
        Weighing(0.5, 0.0, clip=1.5),
        Weighing(0.2, 0.9, per_token=True, clip=1.1),
    ],
)
def test_weights_against_loops(weighing: Weighing) -> None:
    rng = np.random.default_rng(3)
    own, other = -rng.uniform(1, 20, (7, 2)), -rng.uniform(1, 20, (7, 2))
    tokens = rng.integers(1, 9, (7, 2)).astype(float)
    found = weighing.of(LogProbs(own, tokens), LogProbs(other, tokens))
    plain = []
    for i in range(7):
        product = 1.0
        for side in range(2):
            length = tokens[i, side] if weighing.per_token else 1.0
            q, p = math.exp(own[i, side] / length), math.exp(other[i, side] / length)
            product *= q / (weighing.relative * q + (1 - weighing.relative) * p)
        plain.append(product**weighing.power)
    scaled = [value / (sum(plain) / 7) for value in plain]
    bounded = [min(value, weighing.clip or math.inf) for value in scaled]
    expected = [value / (sum(bounded) / 7) for value in bounded]
    assert found.weight.tolist() == roughly(expected)
    assert found.clipped.tolist() == [value > (weighing.clip or math.inf) for value in scaled]
    assert found.effective == roughly(sum(expected) ** 2 / sum(value**2 for value in expected))


def test_without_a_reference_and_at_the_ends() -> None:
    """log q sums to -3 and -1: weights e^-3 : e^-1. A power of 0, and a policy that has not moved, weigh all alike."""
    policy = log_probs((-1.0, -2.0), (-1.0, 0.0))
    ratio = math.exp(2.0)
    weight = PLAIN.of(policy, None).weight
    assert weight.tolist() == roughly([2 / (1 + ratio), 2 * ratio / (1 + ratio)])
    assert Weighing(0.0, 0.1).of(policy, log_probs((0.0, 0.0), (-9.0, 0.0))).weight.tolist() == [1.0, 1.0]
    assert Weighing().of(policy, policy).weight.tolist() == [1.0, 1.0]
    far = PLAIN.of(log_probs((-2000.0, 0.0), (-9.0, 0.0)), log_probs((0.0, 0.0), (0.0, 0.0)))
    assert far.weight.tolist() == [0.0, 2.0]
    assert far.effective == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": -1.0}, "power=-1.0"),
        ({"power": math.inf}, "power=inf"),
        ({"relative": 1.0}, "relative=1.0"),
        ({"clip": 0.5}, "clip=0.5: it bounds weights whose mean is 1"),
    ],
)
def test_settings_out_of_range(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Weighing(**options)


def test_a_response_begins_where_tokens_differ_and_ends_where_it_was_ended() -> None:
    assert split_at_response([1, 5, 7], [1, 5, 7, 4, 9, 2, 6], [2]) == ([1, 5, 7], [4, 9, 2])
    assert split_at_response([1, 5, 8], [1, 5, 7, 4], [2]) == ([1, 5], [7, 4])
    assert split_at_response([], [1, 5], [2]) == ([1], [5])


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("policies")
    return save_policy(folder / "now", seed=1), save_policy(folder / "before")


def pairs_of(num: int, **more: Any) -> list[dict[str, Any]]:
    names = ("prompt", "chosen", "rejected", "id", "prompt_id", "label")
    rows = [row for row in SyntheticSource(num, split="train") if isinstance(row, PairRow)]
    return [{name: getattr(row, name) for name in names} | more for row in rows]


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
    monkeypatch.delattr(pair_log_probs, "load_policy")
    with pytest.raises(ValueError, match=message):
        weighed(pairs_of(2, **rows), policies, tmp_path / "out.parquet", **options)


def test_rows_of_responses_and_other_files_are_refused(policies: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="weighed pairs are a Parquet file"):
        weighed(pairs_of(2), policies, tmp_path / "out.jsonl")
    path = tmp_path / "scored.jsonl"
    path.write_text(json.dumps({"prompt": "a", "responses": ["b", "c"], "scores": [1, 2]}) + "\n")
    with pytest.raises(ValueError, match=r"rows cannot be used|rows of responses"):
        weighed(path, policies, tmp_path / "out.parquet")
