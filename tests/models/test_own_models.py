"""Models that a user brings: a classifier of their own that is registered, one that is none of transformers', and what
is no reward model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaModel,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, SequenceClassifierOutputWithPast

from lightning_rm import BaselineRM, RewardModel, RewardOutput, load_model, score
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.tokens import TokenBatch
from tests import methods
from tests.toy import toy_data, toy_trainer, weights

ADAMW: Any = methods.partial(torch.optim.AdamW, lr=1e-2)
TOKENIZER = world_tokenizer()
PAD: Any = TOKENIZER.pad_token_id
TURNS = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": text}] for text in ("b", "c d")]
LLAMA: dict[str, Any] = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": len(TOKENIZER),
    "pad_token_id": PAD,
}


class GruConfig(PretrainedConfig):
    model_type = "own-gru"

    def __init__(self, hidden_size: int = 8, vocab_size: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.hidden_size, self.vocab_size = hidden_size, vocab_size
        self.pad_token_id, self.eos_token_id = options.get("pad_token_id"), options.get("eos_token_id")


class GruModel(PreTrainedModel):
    config_class = GruConfig
    base_model_prefix = "model"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.gru = nn.GRU(config.hidden_size, config.hidden_size, batch_first=True)
        self.post_init()

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        return BaseModelOutputWithPast(last_hidden_state=self.gru(self.embed_tokens(input_ids))[0])


class GruClassifier(PreTrainedModel):
    config_class = GruConfig
    base_model_prefix = "model"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = GruModel(config)
        self.score = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Any = None, **_: Any) -> Any:
        scores = self.score(self.model(input_ids).last_hidden_state)
        last = torch.ones_like(input_ids).sum(-1) if attention_mask is None else attention_mask.sum(-1)
        return SequenceClassifierOutputWithPast(logits=scores[torch.arange(len(scores)), last - 1])


def test_a_registered_classifier_without_layers_trains_and_is_read_again(tmp_path: Path) -> None:
    AutoConfig.register("own-gru", GruConfig, exist_ok=True)
    AutoModel.register(GruConfig, GruModel, exist_ok=True)
    AutoModelForSequenceClassification.register(GruConfig, GruClassifier, exist_ok=True)
    model = RewardModel.from_config({"model_type": "own-gru"}, tokenizer=TOKENIZER)
    assert model.fast_layouts == ("padded",)
    toy_trainer(tmp_path).fit(BaselineRM(model, ADAMW), toy_data(8, reading=model.reading))
    model.save_pretrained(tmp_path / "model", TOKENIZER)
    again, tokenizer = load_model(tmp_path / "model")
    assert torch.equal(score(again, tokenizer, TURNS), score(model, TOKENIZER, TURNS))


class Recurrent(AnyRewardModel):
    """A reward model that is none of transformers'."""

    read_at = "last"
    fast_layouts = ("padded",)
    max_tokens = None
    hidden_size = 8
    plain_models = ()
    untrained_head = None
    reward_dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.pad_id = PAD
        self.embed = nn.Embedding(len(TOKENIZER), 8)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, tokens: TokenBatch, keep_hidden: bool = False) -> RewardOutput:
        hidden = self.gru(self.embed(tokens.input_ids))[0]
        feature = hidden.flatten(0, 1)[tokens.reward_index]
        return RewardOutput(self.head(feature)[..., 0], feature)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        return self.head.parameters()

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        return (parameter for part in (self.embed, self.gru) for parameter in part.parameters())

    def lm_loss(self, output: RewardOutput, tokens: TokenBatch) -> Tensor:
        raise NotImplementedError

    def save_pretrained(self, folder: Any, tokenizer: Any = None, **_: Any) -> None:
        torch.save(self.state_dict(), Path(folder) / "model.pt")


def test_a_model_that_is_none_of_transformers_trains_goes_on_and_scores(tmp_path: Path) -> None:
    def module() -> BaselineRM:
        torch.manual_seed(0)
        return BaselineRM(Recurrent(), ADAMW)

    whole = module()
    data = {"reading": whole.model.reading}
    toy_trainer(tmp_path, max_epochs=2).fit(whole, toy_data(8, **data))
    (first := toy_trainer(tmp_path, max_epochs=1)).fit(module(), toy_data(8, **data))
    first.save_checkpoint(tmp_path / "first.ckpt")
    later = module()
    toy_trainer(tmp_path, max_epochs=2).fit(later, toy_data(8, **data), ckpt_path=tmp_path / "first.ckpt")
    assert all(torch.equal(weights(later)[name], value) for name, value in weights(whole).items())
    assert torch.equal(score(later.model, TOKENIZER, TURNS), score(whole.model, TOKENIZER, TURNS))


def test_what_is_no_backbone_is_told() -> None:
    def classifier() -> Any:
        return LlamaForSequenceClassification(LlamaConfig(**LLAMA, num_labels=1))

    wrapped = classifier()
    get_peft_model(wrapped, LoraConfig(task_type="SEQ_CLS", r=2))
    wrong: dict[str, Any] = {
        "backbone is of the type Linear; give a sequence classifier .*AnyRewardModel": nn.Linear(2, 1),
        r"of the type PeftModelForSequenceClassification; .*adapter=LoraConfig": get_peft_model(
            classifier(), LoraConfig(task_type="SEQ_CLS", r=2)
        ),
        r"score of the backbone is wrapped by peft.*adapter=LoraConfig": wrapped,
        "LlamaModel has no head 'score': .* to RewardModel.from_pretrained, which draws": LlamaModel(
            LlamaConfig(**LLAMA, num_labels=1)
        ),
        "LlamaForCausalLM has no head 'score'": LlamaForCausalLM(LlamaConfig(**LLAMA)),
    }
    for told, backbone in wrong.items():
        with pytest.raises(ValueError, match=told):
            RewardModel(backbone)


def test_a_module_is_given_a_reward_model() -> None:
    """A compiled one is one; a module or a model of transformers or of peft is none."""
    classifier: Any = LlamaForSequenceClassification(LlamaConfig(**LLAMA, num_labels=1))
    for model in (nn.Linear(2, 1), classifier, get_peft_model(classifier, LoraConfig(task_type="SEQ_CLS", r=2))):
        with pytest.raises(ValueError, match=f"type {type(model).__name__}; give a reward model: RewardModel.from_pre"):
            BaselineRM(model, ADAMW)  # pyright: ignore[reportArgumentType]
    compiled: Any = torch.compile(Recurrent())
    BaselineRM(compiled, ADAMW)
