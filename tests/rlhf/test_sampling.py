from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.pairs import load_tokenizer
from lightning_rm.data.tokenize.templates import DECODER_TEMPLATE
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.rlhf.policy import load_policy, policy_version
from lightning_rm.rlhf.prompts import distinct_prompts, encode_prompt, heeding_generation_prompt
from lightning_rm.rlhf.sampling import Sampled, sample_responses
from tests.rlhf.policies import save_policy, tiny_policy, world_prompts
from tests.tiny import tiny_model
from tests.toy import Rows, toy_model

PROMPTS = world_prompts(5)
POLICY, TOKENIZER = tiny_policy(), world_tokenizer()


def sampled(policy=POLICY, tokenizer=TOKENIZER, prompts=PROMPTS, k=3, **options) -> list[Sampled]:
    options = {"max_new_tokens": 12, "batch_prompts": 2, **options}
    return [said for batch in sample_responses(policy, tokenizer, prompts, k, **options) for said in batch]


def test_k_responses_a_prompt_and_none_alike() -> None:
    said = sampled()
    assert [len(group.responses) for group in said] == [3] * 5
    assert len({response for group in said for response in group.responses}) == 15


def test_batches_come_one_by_one() -> None:
    batches = sample_responses(POLICY, TOKENIZER, PROMPTS, 2, max_new_tokens=4, batch_prompts=2)
    assert [len(batch) for batch in batches] == [2, 2, 1]


def test_a_seed_and_a_prompt_say_what_comes_whatever_the_batch() -> None:
    whole = sampled()
    assert sampled() == whole
    assert sampled(batch_prompts=5) == whole
    assert sampled(prompts=PROMPTS[::-1], batch_prompts=3) == whole[::-1]
    assert [group.responses[:2] for group in sampled(k=2)] == [group.responses[:2] for group in whole]
    assert all(one.responses != other.responses for one, other in zip(sampled(seed=1), whole, strict=True))


def test_the_global_random_state_is_neither_read_nor_moved() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = sampled()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert sampled() == first


MINIMAX = {"model_type": "minimax", "layer_types": ["linear_attention", "full_attention"], "num_local_experts": 2}
"""Its first layer keeps a state, and no keys that could be counted."""


@pytest.mark.parametrize("changes", [{}, MINIMAX])
def test_near_temperature_0_all_responses_are_the_likeliest(changes: dict[str, Any]) -> None:
    policy = tiny_policy(**changes)
    said = sampled(policy, temperature=1e-4)
    assert sampled(policy, temperature=1e-4, batch_prompts=5) == said
    for prompt, group in zip(PROMPTS, said, strict=True):
        ids = torch.tensor([encode_prompt(TOKENIZER, prompt)])
        start = ids.shape[1]
        with torch.no_grad():
            for _ in range(12):
                ids = torch.cat([ids, policy(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
                if ids[0, -1] == TOKENIZER.eos_token_id:
                    break
        assert group.responses == (TOKENIZER.decode(ids[0, start:], skip_special_tokens=True).strip(),) * 3


def test_first_tokens_are_distributed_as_the_policy_says() -> None:
    """Of 4000 first tokens each comes within five standard errors of its probability, at T = 1.5 and top-p = .7."""
    prompt, k = PROMPTS[0], 4000
    with torch.no_grad():
        logits = POLICY(input_ids=torch.tensor([encode_prompt(TOKENIZER, prompt)])).logits[0, -1].double()
    expected: dict[str, float] = {}
    ranked = sorted(enumerate((logits / 1.5).softmax(0).tolist()), key=lambda item: -item[1])
    total = 0.0
    for token, probability in ranked:
        if total >= 0.7:
            break
        total += probability
        text = TOKENIZER.decode([token], skip_special_tokens=True).strip()
        expected[text] = expected.get(text, 0.0) + probability
    [group] = sampled(prompts=[prompt], k=k, temperature=1.5, top_p=0.7, max_new_tokens=1)
    assert set(group.responses) <= set(expected)
    for text, probability in expected.items():
        p = probability / total
        assert abs(group.responses.count(text) / k - p) < 5 * (p * (1 - p) / k) ** 0.5 + 1e-9, text


def test_a_response_ends_before_an_end_of_sequence_and_says_whether_it_did() -> None:
    policy = tiny_policy()
    likely = TOKENIZER.encode("apple")[0]
    with torch.no_grad():
        policy.lm_head.weight[likely] = policy.lm_head.weight[TOKENIZER.eos_token_id]
    policy.generation_config.eos_token_id = [likely, TOKENIZER.eos_token_id]
    said = sampled(policy, max_new_tokens=60)
    finished = [end for group in said for end in group.finished]
    assert any(finished)
    assert not any("apple" in response.split() for group in said for response in group.responses)
    cut_off = sampled(policy, max_new_tokens=1)
    for group in cut_off:
        assert all(response == "" for response, end in zip(group.responses, group.finished, strict=True) if end)


def test_the_policys_own_generation_config_shapes_nothing_and_is_left_as_it_was() -> None:
    policy = tiny_policy()
    own = GenerationConfig(
        do_sample=True, temperature=0.1, top_k=1, repetition_penalty=9.0, eos_token_id=TOKENIZER.eos_token_id
    )
    policy.generation_config = own
    assert sampled(policy) == sampled()
    assert policy.generation_config is own


def test_the_policy_is_left_in_the_mode_it_was_in() -> None:
    policy = tiny_policy(attention_dropout=0.5).train()
    assert sampled(policy) == sampled()
    assert policy.training


def test_a_prompt_is_what_stands_before_a_response() -> None:
    """The made world's template has a generation prompt; the default one has none, and ends with no space."""
    prompt = [{"role": "user", "content": "red fruits"}]
    assert TOKENIZER.decode(encode_prompt(TOKENIZER, prompt)) == "<s> <|user|> red fruits <|assistant|>"
    plain = world_tokenizer()
    plain.chat_template = DECODER_TEMPLATE
    answered = [*prompt, {"role": "assistant", "content": "apple"}]
    whole = plain(plain.apply_chat_template(answered, tokenize=False), add_special_tokens=False)["input_ids"]
    assert whole == [*encode_prompt(plain, prompt), plain.convert_tokens_to_ids("apple"), plain.eos_token_id]


THINKING = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is false %}apple{% endif %}{% endif %}"
)
"""Writes what ends thinking (as Qwen3 does) only where it is told that there is none: here the word `apple`."""


def test_a_template_is_told_of_further_arguments() -> None:
    tokenizer = world_tokenizer()
    tokenizer.chat_template = THINKING
    prompt = [{"role": "user", "content": "red fruits"}]
    thinking, closed = "<|user|> red fruits <|assistant|>", "<|user|> red fruits <|assistant|> apple"
    assert tokenizer.decode(encode_prompt(tokenizer, prompt)) == thinking
    assert tokenizer.decode(encode_prompt(tokenizer, prompt, {"enable_thinking": False})) == closed
    told = [{"enable_thinking": False}, {}]
    assert sampled(tokenizer=tokenizer, prompts=[prompt, prompt], chat_template_kwargs=told) == [
        *sampled(tokenizer=tokenizer, prompts=[prompt], chat_template_kwargs=told[:1]),
        *sampled(tokenizer=tokenizer, prompts=[prompt]),
    ]


def test_a_template_without_generation_prompt_is_told_too() -> None:
    tokenizer = world_tokenizer()
    tokenizer.chat_template = "{{ style }}" + DECODER_TEMPLATE
    prompt = [{"role": "user", "content": "red"}]
    ids = encode_prompt(tokenizer, prompt, {"style": "apple "})
    assert tokenizer.decode(ids) == "apple user : red assistant :"
    # So are trainers that ask the template themselves; what they ask of answered conversations stays.
    whole = tokenizer.apply_chat_template([*prompt, *prompt], style="apple ")
    tokenizer.chat_template = heeding_generation_prompt(tokenizer, prompt)
    assert tokenizer.apply_chat_template(prompt, add_generation_prompt=True, style="apple ")["input_ids"] == ids
    assert tokenizer.apply_chat_template([*prompt, *prompt], style="apple ") == whole
    assert heeding_generation_prompt(world_tokenizer(), prompt) == world_tokenizer().chat_template


def test_prompts_keep_the_arguments_of_their_rows_which_go_first() -> None:
    """At most three tokens: `<|user|> red <|assistant|>`; a fourth, `apple`, ends thinking."""
    tokenizer = world_tokenizer()
    tokenizer.chat_template = THINKING
    turns = ({"role": "user", "content": "red"},)
    row = replace(next(iter(SyntheticSource(1, split="train"))), prompt=turns, chat_template_kwargs={})
    own = [{}, {"enable_thinking": True}, {"enable_thinking": False}, {"enable_thinking": True}]
    rows = Rows([replace(row, id=str(place), chat_template_kwargs=told) for place, told in enumerate(own)])
    prompts, report = distinct_prompts(rows, tokenizer)
    assert [(prompt.id, prompt.chat_template_kwargs) for prompt in prompts] == [
        (str(place), own[place]) for place in (0, 1, 2)
    ]
    assert report.reasons == {"prompt of a pair before": 1}
    prompts, report = distinct_prompts(
        rows, tokenizer, max_prompt_tokens=3, chat_template_kwargs={"enable_thinking": False}
    )
    assert [prompt.id for prompt in prompts] == ["1"]
    assert report.reasons == {"overlong": 2, "prompt of a pair before": 1}


def test_an_argument_that_the_template_does_not_read_is_named() -> None:
    with pytest.raises(ValueError, match="the policy's chat template reads no 'enable_thinking'; leave it out"):
        distinct_prompts(
            SyntheticSource(1, split="train"), world_tokenizer(), chat_template_kwargs={"enable_thinking": False}
        )


def test_a_tokenizer_without_template_samples_with_the_default(tmp_path: Path) -> None:
    tokenizer = world_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    said = sampled(tokenizer=load_tokenizer(tmp_path))
    assert all(len(set(group.responses)) == 3 for group in said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k=0; give 1 or more"),
        ({"temperature": 0.0}, "temperature=0.0; it must be above 0"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0; give 1 or more"),
        ({"batch_prompts": 0}, "batch_prompts=0; give 1 or more"),
        ({"max_new_tokens": 250}, r"prompt 0 has \d+ tokens, and the policy's context has room for 6 beside"),
        (
            {"max_new_tokens": 256},
            "max_new_tokens=256 leaves no room for a prompt, the policy's context has 256 tokens",
        ),
    ],
)
def test_numbers_out_of_range_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampled(**options)


def test_logits_that_are_not_numbers_are_an_error() -> None:
    broken = tiny_policy()
    torch.nn.init.constant_(broken.get_input_embeddings().weight, float("nan"))
    with pytest.raises(ValueError, match="prompt 0: the policy's logits are not numbers"):
        sampled(broken)


def test_a_policy_reads_back_as_it_was_saved(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "policy")
    assert sampled(load_policy(folder)) == sampled()
    other = save_policy(tmp_path / "other", seed=1)
    versions = [policy_version(path) for path in (folder, folder, other)]
    assert versions[0] == versions[1] != versions[2]


def test_a_policy_of_the_hub_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the hub's cache has it: a name for the branch, a folder for the commit."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--someone--policy"
    for commit in ("abc123", "def456"):
        (model / "snapshots" / commit).mkdir(parents=True)
        (model / "snapshots" / commit / "config.json").write_text("{}")
        (model / "refs").mkdir(exist_ok=True)
        (model / "refs" / "main").write_text(commit)
        assert policy_version("someone/policy") == commit


def test_models_that_write_no_text_are_refused(tmp_path: Path) -> None:
    toy_model().save_pretrained(tmp_path / "reward", world_tokenizer())
    with pytest.raises(ValueError, match=r"is a reward model, whose language-model head is gone.*AutoModelForCausalLM"):
        load_policy(tmp_path / "reward")
    encoder: RewardModel = tiny_model("bert")
    encoder.backbone.config.architectures = None
    encoder.backbone.base_model.save_pretrained(tmp_path / "encoder")
    with pytest.raises(ValueError, match="is a BertModel and writes no text"):
        load_policy(tmp_path / "encoder")
    with pytest.raises(ValueError, match="there is no folder of that name"):
        load_policy(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"there is no config\.json in it"):
        load_policy(tmp_path / "empty")


def test_a_policy_without_all_of_its_weights_is_refused(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "policy", tie_word_embeddings=False)
    policy = load_policy(folder)
    state = {name: value for name, value in policy.state_dict().items() if not name.startswith("lm_head")}
    policy.save_pretrained(folder, state_dict=state)
    with pytest.raises(ValueError, match=r"weights of the language model are missing: lm_head\.weight"):
        load_policy(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="the weights cannot be read"):
        load_policy(folder)
