"""Every trainer's call gives the rewards of `score`: TRL's, OpenRLHF's and verl's, as their trainers make them."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from lightning_rm import RewardFunction, score
from lightning_rm.data.synthetic.tokenizer import CHAT_TEMPLATE, EOS, world_tokenizer
from lightning_rm.models.ensembles.aggregate import aggregate
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.rlhf.reward_function import response_ending
from lightning_rm.scoring.load import LoadedModel
from tests.float64 import roughly
from tests.rlhf.policies import tiny_policy, world_prompts
from tests.toy import toy_model

TOKENIZER = world_tokenizer()
MODEL = LoadedModel(toy_model(dtype="float64").eval(), TOKENIZER)
QUESTIONS = ("name two red fruits", "list a small animal", "name two red fruits")
ANSWERS = ("cherry and apple", "crab", "")


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


MESSAGES = [[turn("user", question)] for question in QUESTIONS]
SAID = [[turn("assistant", answer)] for answer in ANSWERS]


def expected(model: LoadedModel = MODEL, **options: Any) -> list[float]:
    conversations = [[*prompt, *said] for prompt, said in zip(MESSAGES, SAID, strict=True)]
    return score(*model, conversations, **options).tolist()


def by_trl(reward: RewardFunction, prompts: Any = MESSAGES, completions: Any = SAID, **columns: Any) -> Any:
    """The keywords of TRL 1.16: the data set's other columns, and what the trainer adds."""
    added: dict[str, Any] = {
        "completion_ids": [[5]] * len(prompts),
        "trainer_state": object(),
        "log_extra": lambda column, values: None,
        "log_metric": lambda name, value: None,
    }
    return reward(prompts=prompts, completions=completions, **columns, **added)


@pytest.mark.parametrize("prompts", [MESSAGES, list(QUESTIONS)])
@pytest.mark.parametrize("completions", [SAID, list(ANSWERS)])
def test_trl_gets_the_rewards_of_score(prompts: Any, completions: Any) -> None:
    """Conversational and standard data, an empty completion among them."""
    found = by_trl(RewardFunction(MODEL), prompts, completions, answer=["a", "b", "c"])
    assert [type(reward) for reward in found] == [float] * 3
    assert found == roughly(expected())


def test_trl_hands_over_columns_for_the_template() -> None:
    loud = world_tokenizer()
    loud.chat_template = CHAT_TEMPLATE.replace("message['content']", "(shout | default('')) + message['content']")
    model = LoadedModel(MODEL.model, loud)
    found = by_trl(RewardFunction(model), chat_template_kwargs=[{"shout": "please "}, None, {}], tools=[None, [], None])
    first = score(*model, [[*MESSAGES[0], *SAID[0]]], chat_template_kwargs={"shout": "please "}).tolist()
    assert found == roughly([*first, *expected(model)[1:]])
    assert found[0] != expected(model)[0]


@pytest.mark.parametrize(
    ("turn", "columns", "remark"),
    [
        ({"tool_calls": [{"function": {"name": "buy", "arguments": {"fruit": "crab"}}}]}, {}, "text left out by"),
        ({"reasoning_content": "red ones"}, {}, "text left out by"),
        ({}, {"chat_template_kwargs": [{"shout": True}]}, r"argument that the template does not read \(shout\)"),
    ],
)
def test_what_the_template_leaves_out_is_said(turn: Any, columns: Any, remark: str) -> None:
    """Its reward is that of what is left."""
    said = {"role": "assistant", "content": ANSWERS[0], **turn}
    with pytest.warns(UserWarning, match=rf"the reward model's chat template: responses with .*{remark}"):
        found = by_trl(RewardFunction(MODEL), MESSAGES[:1], [[said]], **columns)
    assert found == roughly(expected()[:1])


def test_an_empty_response_is_nothing_to_warn_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(by_trl(RewardFunction(MODEL))) == 3


def test_each_completion_has_a_prompt() -> None:
    with pytest.raises(ValueError, match="2 prompts and 1 completions"):
        RewardFunction(MODEL)(prompts=["a", "b"], completions=["c"])


def test_trl_logs_by_the_name() -> None:
    assert RewardFunction(MODEL).__name__ == "reward_model"
    assert RewardFunction(MODEL, name="helpful").__name__ == "helpful"


def test_openrlhf_gets_the_rewards_of_score() -> None:
    """Queries are decoded with special tokens kept; a response that was cut off has no EOS, a long one several."""
    prompts = [
        TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for messages in MESSAGES
    ]
    endings = (EOS, "", EOS + EOS)
    queries = [prompt + answer + end for prompt, answer, end in zip(prompts, ANSWERS, endings, strict=True)]
    found = RewardFunction(MODEL).openrlhf(queries, prompts, ["", "", ""], step=3)
    assert sorted(found) == ["extra_logs", "rewards", "scores"]
    for rewards in (found["rewards"], found["scores"], found["extra_logs"]["reward_model"]):
        assert rewards.dtype == torch.float32
        assert torch.equal(rewards, torch.tensor(expected()).float())


def test_openrlhf_reads_the_function_of_a_file(tmp_path: Path) -> None:
    """The file that `--reward.remote_url` names, loaded and called as OpenRLHF does: by place, one row at a time."""
    model, folder, file = LoadedModel(toy_model().eval(), TOKENIZER), tmp_path / "model", tmp_path / "reward.py"
    model.model.save_pretrained(folder, TOKENIZER)
    file.write_text(
        f"from lightning_rm import RewardFunction\nreward_func = RewardFunction({str(folder)!r}).openrlhf\n"
    )
    spec = importlib.util.spec_from_file_location("reward_func", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prompt = TOKENIZER.apply_chat_template(MESSAGES[0], tokenize=False, add_generation_prompt=True)
    found = module.reward_func([prompt + ANSWERS[0] + EOS], [prompt], [""])
    assert found["rewards"].shape == (1,)
    assert found["rewards"].tolist() == roughly(expected(model)[:1])


def test_openrlhf_prompts_and_queries_must_fit() -> None:
    with pytest.raises(ValueError, match="query 0 does not begin with its prompt"):
        RewardFunction(MODEL).openrlhf(["another"], ["prompt"], [""])


@pytest.mark.parametrize("field", ["prompt", "question"])
@pytest.mark.parametrize("prompts", [MESSAGES, QUESTIONS])
def test_verl_gets_the_rewards_of_score(field: str, prompts: Any) -> None:
    """One response a call, by keyword, with what verl's reward loop adds."""
    reward = RewardFunction(MODEL)
    found = [
        reward.verl(
            data_source="made",
            solution_str=answer,
            ground_truth="",
            extra_info={"index": 0, field: prompt},
            reward_router_address=None,
            reward_model_tokenizer=None,
        )
        for prompt, answer in zip(prompts, ANSWERS, strict=True)
    ]
    assert found == roughly(expected())


@pytest.mark.parametrize("extra_info", [None, {}, {"prompt": ""}])
def test_verl_must_say_the_prompt(extra_info: Mapping[str, Any] | None) -> None:
    with pytest.raises(ValueError, match="put its prompt into the data's extra_info"):
        RewardFunction(MODEL).verl("made", "crab", extra_info=extra_info)


def test_rewards_are_normalised_and_then_clipped() -> None:
    plain = torch.tensor(expected(), dtype=torch.float64)
    mean, std = float(plain.mean()), 2.0
    assert by_trl(RewardFunction(MODEL, normalize=(mean, std))) == roughly(((plain - mean) / std).tolist())
    spread = float((plain - mean).abs().max()) / 2
    bounded = by_trl(RewardFunction(MODEL, normalize=(mean, 1.0), clip=(-spread, spread)))
    assert bounded == roughly((plain - mean).clamp(-spread, spread).tolist())
    assert max(map(abs, bounded)) == roughly(spread)


def test_the_scale_of_the_reference_set_is_that_of_the_folder(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path, TOKENIZER, facts={"mean": 0.25, "std": 4.0})
    reward = RewardFunction(tmp_path, normalize=True)
    assert (reward.mean, reward.std) == (0.25, 4.0)


@pytest.mark.parametrize("how", ["mean", "worst", "mean_minus_variance"])
def test_members_are_made_one_reward(how: Any) -> None:
    members = LoadedModel(MemberRewardModel.of(toy_model(dtype="float64"), Members(3)).eval(), TOKENIZER)
    votes = torch.tensor(expected(members), dtype=torch.float64)
    plain = RewardFunction(members, how=how, lam=0.5)
    assert by_trl(plain) == roughly(aggregate(votes.T, how, 0.5).tolist())
    zeros = [0.5, -2.0, 1.0]
    centred = RewardFunction(members, how=how, lam=0.5, zeros=zeros)
    expect = aggregate((votes - torch.tensor(zeros, dtype=torch.float64)).T, how, 0.5)
    assert by_trl(centred) == roughly(expect.tolist())
    assert centred.digest() != plain.digest()


def test_an_ensemble_has_its_own_aggregate() -> None:
    ensemble = RewardEnsemble([toy_model(seed, dtype="float64") for seed in range(2)], "worst").eval()
    loaded = LoadedModel(ensemble, TOKENIZER)
    assert by_trl(RewardFunction(loaded)) == roughly(expected(loaded))


LONG = [turn("assistant", "apple " * 300)]


@pytest.mark.parametrize(("overlong", "given"), [(-3.0, -3.0), (None, None)])
def test_a_response_that_is_too_long_gets_what_was_set(overlong: float | None, given: float | None) -> None:
    """TRL leaves None out; the others have no such word, so there it is NaN. The rest is scored."""
    reward = RewardFunction(MODEL, overlong=overlong)
    found = by_trl(reward, MESSAGES, [SAID[0], LONG, SAID[2]])
    assert [found[0], found[2]] == roughly([expected()[0], expected()[2]])
    assert found[1] == given
    alone = reward.verl("made", LONG[0]["content"], extra_info={"prompt": QUESTIONS[0]})
    assert alone == given or math.isnan(alone)


def test_a_response_that_is_too_long_is_an_error_where_nothing_was_set() -> None:
    with pytest.raises(ValueError, match=r"response 1: overlong: \d+ tokens, and 256 are read; shorten"):
        by_trl(RewardFunction(MODEL), MESSAGES, [SAID[0], LONG, SAID[2]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"zeros": [0.0, 1.0]}, r"zeros=\[0.0, 1.0\] for a model of 1 rewards; give one for each"),
        ({"normalize": True}, "no mean and std of reference rewards"),
        ({"normalize": (0.0, 0.0)}, "a standard deviation, above 0"),
        ({"normalize": (0.0, math.nan)}, "a standard deviation, above 0"),
        ({"how": "mean_minus_variance", "lam": math.nan}, "lam=nan"),
        ({"clip": (1.0, -1.0)}, "give the lowest reward first"),
        ({"how": "best"}, "how='best'"),
    ],
)
def test_wrong_settings_are_errors_before_the_first_step(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RewardFunction(MODEL, **options)


def test_what_the_template_writes_after_a_response() -> None:
    assert response_ending(TOKENIZER) == EOS


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_trl_trains_on_the_rewards_of_score(kind: str, tmp_path: Path) -> None:
    """Two steps of a real trainer: what it logs as reward is the mean of `score` over the completions it drew."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[test]'")
    prompts = [[dict(message) for message in prompt] for prompt in world_prompts(4)]
    model = LoadedModel(toy_model().eval(), TOKENIZER)
    seen: list[tuple[list[Any], list[Any], list[float]]] = []

    class Recorded(RewardFunction):
        def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
            rewards = super().__call__(prompts, completions, **columns)
            seen.append((prompts, completions, rewards))
            return rewards

    arguments = getattr(trl, f"{kind}Config")(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        max_steps=2,
        logging_steps=1,
        beta=0.0,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = getattr(trl, f"{kind}Trainer")(
        model=tiny_policy().train(),
        reward_funcs=Recorded(model, device="cpu"),
        args=arguments,
        train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
        processing_class=world_tokenizer(),
    )
    trainer.train()
    assert trainer.state.global_step == 2
    logged = [line["rewards/reward_model/mean"] for line in trainer.state.log_history if "reward" in line]
    assert len(logged) == len(seen) == 2
    for (asked, said, rewards), mean in zip(seen, logged, strict=True):
        conversations = [[*prompt, *completion] for prompt, completion in zip(asked, said, strict=True)]
        assert rewards == roughly(score(*model, conversations).tolist())
        assert len(set(rewards)) > 1
        assert mean == roughly(sum(rewards) / 4)
