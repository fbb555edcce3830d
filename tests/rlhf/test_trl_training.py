"""TRL's GRPO and RLOO on our rewards: it receives what `score` gives, shaped, and makes its own advantages of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_rm import RewardFunction, score
from lightning_rm.data.rows import GroupRow
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.backbone.loading import weight_files
from lightning_rm.rlhf.improving import Shaping
from lightning_rm.rlhf.policy import load_policy
from lightning_rm.rlhf.trl_training import PolicyRewards, check_options, on_one_device, one_template, train_by_trl
from lightning_rm.scoring.load import LoadedModel
from tests.float64 import roughly
from tests.rlhf.policies import save_policy, world_prompts
from tests.toy import toy_model

TOKENIZER = world_tokenizer()
MODEL = LoadedModel(toy_model().eval(), TOKENIZER)
GROUPS = [GroupRow(prompt, (), str(place), str(place)) for place, prompt in enumerate(world_prompts(2))]
OPTIONS = {
    "per_device_train_batch_size": 4,
    "max_completion_length": 6,
    "max_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
    "logging_steps": 1,
    "learning_rate": 1e-2,
}


class Worked(RewardFunction):
    """Gives a group 1, 2, 4, 5."""

    def __call__(self, prompts: Any, completions: Any, **columns: Any) -> Any:
        return [1.0, 2.0, 4.0, 5.0]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def advantages(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """What TRL's trainers make of rewards, step by step."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[test]'")
    seen: list[list[float]] = []
    for trainer in (trl.GRPOTrainer, trl.RLOOTrainer):

        def recorded(self: Any, inputs: Any, original: Any = trainer._generate_and_score_completions) -> Any:
            output = original(self, inputs)
            seen.append(output["advantages"].tolist())
            return output

        monkeypatch.setattr(trainer, "_generate_and_score_completions", recorded)
    return seen


def rewards_of(function: RewardFunction, **shaping: Any) -> PolicyRewards:
    return PolicyRewards(function, Shaping(**shaping), (0.25, 2.0), [int(TOKENIZER.eos_token_id)], 4)  # pyright: ignore[reportArgumentType]


def expected_advantages(trainer: str, rewards: Sequence[float]) -> list[float]:
    """GRPO: (r - mean) / (standard deviation + 1e-4); RLOO: r less the mean of the others."""
    values = np.array(rewards)
    if trainer == "GRPO":
        return ((values - values.mean()) / (values.std(ddof=1) + 1e-4)).tolist()
    return (values - (values.sum() - values) / (len(values) - 1)).tolist()


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [("GRPO", [-1.0954, -0.5477, 0.5477, 1.0954]), ("RLOO", [-2.6667, -1.3333, 1.3333, 2.6667])],
)
def test_advantages_of_a_worked_group(
    trainer: Any, expected: list[float], policy: Path, tmp_path: Path, advantages: list[list[float]]
) -> None:
    """Its prompts are written as those that were sampled from are."""
    rewards = rewards_of(Worked(MODEL), normalize=False)
    rewards.scale = (0.0, 1.0)
    told: list[Any] = []

    class Told(type(TOKENIZER)):
        def apply_chat_template(self, *args: Any, **options: Any) -> Any:
            if options["tokenize"]:
                told.append(options.get("enable_thinking"))
            return super().apply_chat_template(*args, **options)

    tokenizer = copy.copy(TOKENIZER)
    tokenizer.__class__ = Told
    options = {**OPTIONS, "beta": 0.0}
    arguments = {"enable_thinking": False}
    out = tmp_path / "out"
    train_by_trl(trainer, policy, tokenizer, GROUPS, rewards, out, options=options, chat_template_kwargs=arguments)
    assert set(told) == {False}
    assert advantages[0] == pytest.approx(expected, abs=2e-4)
    assert expected_advantages(trainer, [1, 2, 4, 5]) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize(("trainer", "beta"), [("GRPO", 0.05), ("RLOO", 0.0)])
def test_trl_receives_the_rewards_of_score_shaped(
    trainer: Any, beta: float, policy: Path, tmp_path: Path, advantages: list[list[float]]
) -> None:
    """Normalised by what the model's rewards are about, 1.82 and .01, and clipped at .8, which one of four meets."""
    seen: list[tuple[Any, Any, list[float | None]]] = []

    class Recorded(PolicyRewards):
        def __call__(self, prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> Any:
            given = super().__call__(prompts, completions, completion_ids, **columns)
            seen.append((prompts, completions, given))
            return given

    plain = rewards_of(RewardFunction(MODEL, overlong=None, device="cpu"), clip=0.8)
    rewards = Recorded(plain.rewards, plain.shaping, (1.824, 0.01), plain.ends, plain.group_size)
    counts = train_by_trl(
        trainer, policy, TOKENIZER, GROUPS, rewards, tmp_path / "out/last", options={**OPTIONS, "beta": beta}, seed=3
    )
    (prompts, completions, given), *_ = seen
    conversations = [[*prompt, *said] for prompt, said in zip(prompts, completions, strict=True)]
    scores = score(*MODEL, conversations).double().numpy()
    assert given == pytest.approx(np.clip((scores - 1.824) / 0.01, -0.8, 0.8).tolist(), abs=5e-4)
    assert advantages[0] == pytest.approx(expected_advantages(trainer, given), abs=1e-3)  # pyright: ignore[reportArgumentType]
    assert counts["num_steps"] == 1
    assert counts["num_responses"] == 4
    assert counts["num_groups"] == 1
    lines = [json.loads(line) for line in (tmp_path / "out/trl_log.jsonl").read_text().splitlines()]
    assert any("reward" in line for line in lines)
    assert [file.name for file in weight_files(tmp_path / "out/last")] == ["model.safetensors"]  # and no pickle
    trained, start = load_policy(tmp_path / "out/last"), load_policy(policy)
    moved = [not after.equal(before) for after, before in zip(trained.parameters(), start.parameters(), strict=True)]
    assert any(moved)


def test_what_is_counted_and_punished() -> None:
    rewards = rewards_of(RewardFunction(MODEL, overlong=None, device="cpu"), unfinished=-1.0, empty=-2.0, overlong=-3.0)
    end = int(TOKENIZER.eos_token_id)  # pyright: ignore[reportArgumentType]
    said = [[{"role": "assistant", "content": text}] for text in ("apple", "", "lime", "apple " * 300)]
    prompts = [GROUPS[0].prompt] * 4
    given = rewards(prompts, said, [[5, end], [end], [5, 6], [5, end]])
    assert given[1:] == [-2.0, -1.0, -3.0]
    alone = score(*MODEL, [[*prompts[0], *said[0]]]).tolist()[0]
    assert given[0] == roughly((alone - 0.25) / 2)
    rewards(prompts, [said[0]] * 4, [[5, end]] * 4)
    expected = {"num_responses": 8, "num_unfinished": 1, "num_empty": 1, "num_left_out": 0}
    assert rewards.counts == expected | {"num_groups": 2, "num_equal_groups": 1}


@pytest.mark.parametrize(
    ("trainer", "options", "message"),
    [
        ("GRPO", {"betta": 1}, "GRPOConfig has no such option"),
        (
            "RLOO",
            {"num_generations": 3, "per_device_train_batch_size": 8},
            "does not take these: .*divisible",
        ),
        ("PPO", {}, "give GRPO or RLOO"),
    ],
)
def test_what_trl_does_not_know(trainer: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(trainer, options)


def test_one_process_trains_on_one_device(tmp_path: Path) -> None:
    """Where it sees eight GPUs, too, which transformers counts in this name."""
    trl = pytest.importorskip("trl", reason="TRL is not installed: pip install -e '.[test]'")
    config = trl.GRPOConfig(output_dir=tmp_path, use_cpu=True, bf16=False)
    assert on_one_device(config).n_gpu == 0
    config._n_gpu = 8
    assert on_one_device(config).n_gpu == 1


def test_template_arguments_are_those_of_all_prompts() -> None:
    thinking = [replace(group, chat_template_kwargs={"enable_thinking": True}) for group in GROUPS]
    assert one_template({"enable_thinking": False, "tone": "kind"}, thinking) == {
        "chat_template_kwargs": {"enable_thinking": True, "tone": "kind"}
    }
    assert one_template(None, GROUPS) == {}
    with pytest.raises(ValueError, match=r"chat_template_kwargs of their own.*policy_optimizer=best_of_n"):
        one_template(None, [*GROUPS, *thinking])
