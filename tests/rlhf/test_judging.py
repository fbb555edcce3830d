"""What is measured of a policy: log-probabilities, divergence, variety, agreement, against naive references."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.rlhf.answering import Answering
from lightning_rm.rlhf.diversity import distinct_ngrams, self_bleu
from lightning_rm.rlhf.judges import Judgement, PlantedJudge, RewardJudge
from lightning_rm.rlhf.judging import judge_policy
from lightning_rm.rlhf.log_probs import divergence, perplexity, response_log_probs
from lightning_rm.rlhf.measures import agreement, measure
from lightning_rm.rlhf.prompts import Prompt
from lightning_rm.rlhf.reward_function import RewardFunction
from lightning_rm.rlhf.sampling import sample_responses
from lightning_rm.scoring.load import LoadedModel
from tests.float64 import roughly
from tests.rlhf.policies import save_policy, tiny_policy, world_prompts
from tests.toy import toy_model


def test_log_probabilities_are_those_of_single_forwards() -> None:
    """Batches pad; here each sequence goes alone, token by token."""
    policy = tiny_policy().double()
    prompts, responses = [[1, 5, 7], [2, 4], [3, 9, 9, 9]], [[6, 8, 2], [5], []]
    found = response_log_probs(policy, prompts, responses, temperature=0.7, batch_tokens=12)
    for value, prompt, response in zip(found, prompts, responses, strict=True):
        expected = 0.0
        for place, token in enumerate(response):
            logits = policy(torch.tensor([[*prompt, *response[:place]]])).logits[0, -1] / 0.7
            expected += float(torch.log_softmax(logits, -1)[token].detach())
        assert value == roughly(expected)


def test_what_was_sampled_has_the_tokens_that_it_was_sampled_by() -> None:
    policy, tokenizer = tiny_policy(), world_tokenizer()
    (said,) = next(sample_responses(policy, tokenizer, world_prompts(1), 6, max_new_tokens=12))
    for text, ids, finished in zip(said.responses, said.ids, said.finished, strict=True):
        assert (ids[-1] == tokenizer.eos_token_id) == finished
        assert len(ids) <= 12
        assert str(tokenizer.decode(ids[: len(ids) - finished], skip_special_tokens=True)).strip() == text


def test_the_divergence_of_two_known_policies() -> None:
    """p = (.5, .5), q = (.8, .2): KL(p || q) = .5 log(.5 / .8) + .5 log(.5 / .2); both estimates are exact here."""
    policy, start = np.log([[0.5], [0.5]]), np.log([[0.8], [0.2]])
    found = divergence(policy, start)
    expected = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert found.kl == roughly(expected)
    assert found.k3 == roughly(expected)
    assert found.std_err == roughly(float(np.std(policy - start, ddof=1) / math.sqrt(2)))
    assert perplexity(np.log([0.25, 0.25]), 4) == roughly(2.0)


def test_the_standard_error_of_a_divergence_is_over_prompts() -> None:
    """Differences 1 1 1, 3 3 3: prompts of the means 1 and 3, and not six responses of a standard error of .447."""
    found = divergence(np.repeat([[1.0], [3.0]], 3, axis=1), np.zeros((2, 3)))
    assert (found.kl, found.std_err) == (roughly(2.0), roughly(1.0))
    assert math.isnan(divergence(np.ones((1, 3)), np.zeros((1, 3))).std_err)


def test_distinct_ngrams() -> None:
    assert distinct_ngrams(["a b a", "a b"], 1) == roughly(2 / 5)
    assert distinct_ngrams(["a b a", "a b"], 2) == roughly(2 / 3)
    assert math.isnan(distinct_ngrams(["a"], 2))


def naive_bleu(text: str, others: list[str]) -> float:
    words, references = text.split(), [other.split() for other in others]
    logs = []
    for n in range(1, min(4, len(words)) + 1):
        grams = Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
        matches = 0
        for gram, count in grams.items():
            counts = [sum(tuple(r[i : i + n]) == gram for i in range(len(r) - n + 1)) for r in references]
            matches += min(count, max(counts))
        logs.append(math.log((matches if matches else 0.5) / (len(words) - n + 1)))
    nearest = sorted((abs(len(r) - len(words)), len(r)) for r in references)[0][1]
    return math.exp(sum(logs) / len(logs)) * min(1.0, math.exp(1 - nearest / len(words)))


def test_self_bleu() -> None:
    texts = ["a b c d e", "a b c f", "g h", "a b c d e"]
    expected = [naive_bleu(text, texts[:place] + texts[place + 1 :]) for place, text in enumerate(texts)]
    assert self_bleu(texts) == roughly(sum(expected) / 4)
    assert self_bleu(["a b c", "a b c"]) == roughly(1.0)
    assert self_bleu(["", ""]) == 1.0
    assert self_bleu(["", "a"]) == roughly((0 + 0.5 * 1.0) / 2)
    assert math.isnan(self_bleu(["a"]))


@pytest.mark.parametrize(
    ("rewards", "expected"), [([1.0, 2.0, 3.0], 1.0), ([3.0, 2.0, 1.0], 0.0), ([1.0, 1.0, 2.0], 0.75)]
)
def test_agreement_of_rewards_with_gold(rewards: list[float], expected: float) -> None:
    """Gold 0, 1, 1: two pairs differ."""
    assert agreement([{"gold": [0.0, 1.0, 1.0], "rewards": rewards}]) == roughly(expected)
    assert agreement([{"gold": [1.0, 1.0, 1.0], "rewards": rewards}]) is None
    assert agreement([{"rewards": rewards}]) is None


@pytest.mark.parametrize(
    "said",
    [
        {"prompt": [{"role": "user", "content": "another"}], "responses": ["a", "b"]},
        {"prompt": [{"role": "user", "content": "hello"}], "responses": ["a", "b", "c"]},
    ],
)
def test_a_policy_is_held_against_what_the_start_policy_says_to_the_same_prompts(said: dict[str, Any]) -> None:
    prompt = Prompt(({"role": "user", "content": "hello"},), id="0", prompt_id="0")
    with pytest.raises(ValueError, match=r"judge round 0 anew first \(stage=judge round=0 overwrite=true\)"):
        judge_policy("none", "none", world_tokenizer(), [prompt], PlantedJudge(), Answering(k=2), start_said=[said])


def test_a_reward_is_held_against_that_of_the_same_place() -> None:
    """The model reads both of one pair of three, 5 and 3; the mean of all others would be 9 less."""
    row = {
        "responses": ["a", "b", "c"],
        "num_tokens": [1, 1, 1],
        "log_prob": [0.0] * 3,
        "start_log_prob": [0.0] * 3,
        "finished": [True] * 3,
    }
    ties = [Judgement("tie")] * 3
    found = measure([row], ties, [5.0, None, 1.0], [3.0, 20.0, None])
    assert (found.reward, found.num_overlong) == (2.0, 1)
    assert measure([row], ties, [None, None, 1.0], [3.0, 20.0, None]).reward is None
    assert measure([row], ties, None, None).reward is None


def test_a_judge_that_says_nothing_judges_nothing(tmp_path: Path) -> None:
    """Else every round would be worth 0."""
    prompts = [Prompt(world_prompts(1)[0], id="0", prompt_id="0")]
    silent = RewardJudge(
        RewardFunction(LoadedModel(toy_model(max_position_embeddings=2), world_tokenizer()), overlong=None)
    )
    policy = save_policy(tmp_path)
    with pytest.raises(ValueError, match=r"no verdict on any of 2 responses; can it read them whole\?"):
        judge_policy(policy, policy, world_tokenizer(), prompts, silent, Answering(k=2, max_new_tokens=2))
