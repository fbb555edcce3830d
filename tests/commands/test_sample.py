"""Sampling as a user meets it: a policy's folder, a data set's prompts, a file that grows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_rm.annotation.voters import Voter
from lightning_rm.commands import sample as command
from lightning_rm.commands.sample import sample
from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.data.sources.groups import GroupFile
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.scoring.conversations import score
from tests.commands.test_conf import composed
from tests.float64 import roughly
from tests.processes import lightning_rm
from tests.rlhf.policies import save_policy
from tests.toy import toy_model, write_jsonl

SMALL = ["k=3", "max_new_tokens=6", "batch_prompts=3", "accelerator=cpu"]
WORLD = ["data=synthetic", "data.num_pairs=7"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy"))


def sampled(policy: Path, out: Path, *overrides: str) -> list[dict[str, Any]]:
    data = [] if "data=jsonl" in overrides else WORLD
    sample(composed(*SMALL, *data, f"policy={policy}", f"out={out}", *overrides, command="sample"))
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_every_prompt_gets_k_responses_and_the_file_is_a_source(policy: Path, tmp_path: Path) -> None:
    rows = sampled(policy, tmp_path / "out.jsonl")
    pairs = [row for row in SyntheticSource(7, split="train") if isinstance(row, PairRow)]
    assert [(row["id"], row["prompt_id"], tuple(row["prompt"])) for row in rows] == [
        (pair.id, pair.prompt_id, pair.prompt) for pair in pairs
    ]
    assert all(len(row["responses"]) == len(row["finished"]) == 3 for row in rows)
    assert not any("votes" in row for row in rows)
    groups = [row for row in GroupFile(tmp_path / "out.jsonl") if isinstance(row, GroupRow)]
    assert [[turns[-1]["content"] for turns in group.responses] for group in groups] == [r["responses"] for r in rows]


def test_a_prompt_that_stands_twice_is_asked_once_and_rows_are_counted(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = list(SyntheticSource(4, split="train"))
    write_jsonl(tmp_path / "pairs.jsonl", [*rows, rows[0]])
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write('{"prompt": "no responses"}\n')
    data = ["data=jsonl", f"data.file={tmp_path}/pairs.jsonl", "data.on_bad_row=drop"]
    rows = sampled(policy, tmp_path / "out.jsonl", *data)
    assert len(rows) == 4
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "left out: unknown format",
        "left out: prompt of a pair before",
        "4 groups of responses, 0 with fewer than two different",
    ):
        assert words in shown
    assert len(sampled(policy, tmp_path / "two.jsonl", *data, "num_prompts=2")) == 2


def test_long_prompts_are_left_out(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    everything = sampled(policy, tmp_path / "all.jsonl")
    lengths = sorted(len(row["prompt"][-1]["content"].split()) for row in everything)
    some = sampled(policy, tmp_path / "some.jsonl", f"max_prompt_tokens={lengths[3] + 8}")
    assert 0 < len(some) < 7
    assert [row for row in everything if row in some] == some
    assert "overlong" in capsys.readouterr().out


def test_responses_alike_are_kept_and_counted(policy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = sampled(policy, tmp_path / "out.jsonl", "temperature=0.0001")
    assert all(len(row["responses"]) == 3 and len(set(row["responses"])) == 1 for row in rows)
    assert "7 groups of responses, 7 with fewer than two different ones" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("left", [0.0, 0.05, 0.3, 0.5, 0.99])
def test_a_file_cut_anywhere_is_made_whole_byte_for_byte(policy: Path, tmp_path: Path, left: float) -> None:
    out = tmp_path / "out.jsonl"
    sampled(policy, out)
    whole = out.read_bytes()
    out.write_bytes(whole[: int(left * len(whole))])
    sampled(policy, out)
    assert out.read_bytes() == whole


def test_a_killed_run_keeps_whole_batches_and_does_not_do_them_again(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled(policy, tmp_path / "whole.jsonl")
    asked: list[int] = []
    sample_responses = command.sample_responses

    def interrupted(*arguments: Any, **options: Any) -> Any:
        asked.append(len(arguments[2]))
        yield next(iter(sample_responses(*arguments, **options)))
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "sample_responses", interrupted)
    for lines in (3, 6):
        with pytest.raises(SystemExit):
            sampled(policy, tmp_path / "out.jsonl")
        assert len((tmp_path / "out.jsonl").read_text().splitlines()) == lines
    monkeypatch.undo()
    sampled(policy, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert asked == [7, 4]


def test_a_finished_file_says_so_and_loads_no_policy(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = sampled(policy, tmp_path / "out.jsonl")

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(command, "load_policy", load)
    assert sampled(policy, tmp_path / "out.jsonl", "batch_prompts=2") == rows
    assert "is finished" in " ".join(capsys.readouterr().out.split())


def test_a_policy_that_is_written_before_it_is_loaded_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, load = save_policy(tmp_path / "mine"), command.load_policy
    monkeypatch.setattr(command, "load_policy", lambda path, **how: load(save_policy(path, seed=1), **how))
    with pytest.raises(ValueError, match="policy has changed while it was in use"):
        sampled(mine, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == b""


def test_other_settings_are_refused_unless_the_file_may_go(policy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    rows = sampled(policy, out)
    with pytest.raises(ValueError, match=r"made with temperature=1\.0, now 1\.2; give the same, name another file, or"):
        sampled(policy, out, "temperature=1.2")
    with pytest.raises(ValueError, match="made with prompts="):
        sampled(policy, out, "data.world_seed=1")
    other = save_policy(tmp_path / "policy", seed=1)
    with pytest.raises(ValueError, match="policy_version="):
        sampled(other, out)
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert sampled(other, out, "overwrite=true") != rows
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_text('{"precious": 1}\n')
    with pytest.raises(ValueError, match=r"and no foreign\.jsonl\.json beside it says how it was made"):
        sampled(policy, foreign)
    assert foreign.read_text() == '{"precious": 1}\n'


def test_voters_say_what_they_think_of_each_response(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = world_tokenizer()
    for seed in range(2):
        toy_model(seed).save_pretrained(tmp_path / "voters" / str(seed), tokenizer)
    members = MemberRewardModel.of(toy_model(2), Members(num_members=3))
    members.save_pretrained(tmp_path / "voters" / "members", tokenizer)
    folders = [tmp_path / "voters" / name for name in ("0", "1", "members")]
    with monkeypatch.context() as patch:  # members are asked all at once, none is copied
        patch.delattr(MemberRewardModel, "member")
        rows = sampled(policy, tmp_path / "out.jsonl", f"voters=[{','.join(map(str, folders))}]")
    assert rows == [
        row | {"votes": rows[place]["votes"]} for place, row in enumerate(sampled(policy, tmp_path / "plain.jsonl"))
    ]
    models = [Voter(str(seed), tmp_path / "voters" / str(seed)).load(tokenizer) for seed in range(2)]
    models += [members.member(number) for number in range(3)]
    for row in rows:
        assert [len(votes) for votes in row["votes"]] == [5] * 3
        conversations = [[*row["prompt"], {"role": "assistant", "content": text}] for text in row["responses"]]
        expected = [score(model, tokenizer, conversations).tolist() for model in models]
        for place, votes in enumerate(row["votes"]):
            assert votes == roughly([column[place] for column in expected])


def thinking_policy(folder: Path) -> Path:
    """One whose template writes `apple` before a response where it is told that there is no thinking."""
    tokenizer = world_tokenizer()
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "{{- '<|assistant|>' -}}", "{{- '<|assistant|>' -}}{%- if enable_thinking is false -%}apple{%- endif -%}"
    )
    tokenizer.save_pretrained(save_policy(folder))
    return folder


def test_template_arguments_reach_the_policy_and_are_settings(tmp_path: Path) -> None:
    policy, out = thinking_policy(tmp_path / "policy"), tmp_path / "out.jsonl"
    closed = "chat_template_kwargs={enable_thinking: false}"
    rows = sampled(policy, tmp_path / "thinking.jsonl")
    assert sampled(policy, tmp_path / "null.jsonl", "chat_template_kwargs={}") == rows
    assert [row["responses"] for row in sampled(policy, out, closed)] != [row["responses"] for row in rows]
    assert not any("chat_template_kwargs" in row for row in rows)
    with pytest.raises(ValueError, match=r"made with chat_template_kwargs=\{'enable_thinking': False\}, now \{\};"):
        sampled(policy, out)
    with pytest.raises(ValueError, match="reads no 'enable_thinkng'"):
        sampled(policy, out, "chat_template_kwargs={enable_thinkng: false}")


def test_template_arguments_of_a_row_go_first_and_stay_with_its_responses(tmp_path: Path) -> None:
    policy = thinking_policy(tmp_path / "policy")
    texts = [{"prompt": "red fruits", "chosen": "apple", "rejected": "crab"} for _ in range(2)]
    texts[1] |= {"chat_template_kwargs": {"enable_thinking": False}}
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    data = ["data=jsonl", f"data.file={tmp_path}/pairs.jsonl"]
    thinking, closed = sampled(policy, tmp_path / "out.jsonl", *data)
    assert "chat_template_kwargs" not in thinking
    assert closed["chat_template_kwargs"] == {"enable_thinking": False}
    assert closed["responses"] != thinking["responses"]
    again = sampled(policy, tmp_path / "told.jsonl", *data, "chat_template_kwargs={enable_thinking: false}")
    assert [row["responses"] for row in again] == [closed["responses"]] * 2
    again = sampled(policy, tmp_path / "own.jsonl", *data, "chat_template_kwargs={enable_thinking: true}")
    assert [row["responses"] for row in again] == [thinking["responses"], closed["responses"]]
    groups = [row for row in GroupFile(tmp_path / "out.jsonl") if isinstance(row, GroupRow)]
    assert [group.chat_template_kwargs for group in groups] == [{}, {"enable_thinking": False}]
    toy_model().save_pretrained(tmp_path / "voter", world_tokenizer())
    with pytest.raises(ValueError, match=r"has chat_template_kwargs, which voters are not told; ask none, or hide"):
        sampled(policy, tmp_path / "votes.jsonl", *data, f"voters={tmp_path}/voter")
    hidden = [*data, "data.columns={chat_template_kwargs: null}", f"voters={tmp_path}/voter"]
    assert len(sampled(policy, tmp_path / "votes.jsonl", *hidden)) == 1


def test_a_voter_of_a_shorter_context_says_how_to_sample_for_it(policy: Path, tmp_path: Path) -> None:
    toy_model(max_position_embeddings=16).save_pretrained(tmp_path / "voter", world_tokenizer())
    message = (
        r"a voter cannot read a response: conversation \d+ has \d+ tokens and the model reads 16; .*"
        r"set max_prompt_tokens= or max_new_tokens= lower, to another out="
    )
    with pytest.raises(ValueError, match=message):
        sampled(policy, tmp_path / "out.jsonl", f"voters={tmp_path}/voter", "max_new_tokens=30")


@pytest.mark.parametrize("option", ["k=0", "temperature=0", "top_p=1.5", "max_new_tokens=0", "batch_prompts=0"])
def test_options_are_checked_before_anything_is_read_or_written(tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option}"):
        sampled(tmp_path / "no policy", tmp_path / "out.jsonl", option)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy=none"], "path='none': there is no folder of that name"),
        (["out=a.parquet"], r"give a name that ends in \.jsonl"),
        (["set=tset"], "set='tset': the data has train"),
        (["voters=none/*"], r"voters='none/\*' names no run"),
        (["max_prompt_tokens=1"], "no prompt is left to use"),
        (["max_new_tokens=256"], "leaves no room for a prompt"),
        (["dtype=float8"], "dtype='float8'"),
        (["k=0"], "k=0; give 1 or more"),
    ],
)
def test_mistakes_are_named_and_leave_nothing_in_the_way(
    policy: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sampled(policy, tmp_path / "out.jsonl", *overrides)
    assert len(sampled(policy, tmp_path / "out.jsonl")) == 7


def test_a_reward_model_is_no_policy_and_the_command_says_so(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path / "reward", world_tokenizer())
    result = lightning_rm(tmp_path, "sample", "policy=reward", *WORLD, "out=out.jsonl")
    assert result.returncode == 1
    words = "error: path='reward' is a reward model, whose language-model head is gone"
    assert words in " ".join(result.stderr.split())
