"""Fine-tuning on text: what is trained, what is not, and what a reward model makes of its folder."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from lightning_rm.callbacks import HuggingFaceCheckpoint, PairRecorder
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.supervised import SupervisedLM
from tests.float64 import same
from tests.toy import CONFIG, toy_data, toy_trainer

ADAMW = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)


def causal_model(tied: bool = False, **options: Any) -> RewardModel:
    tokenizer = world_tokenizer()
    model = RewardModel.from_config(
        CONFIG, vocab_size=len(tokenizer), pad_id=tokenizer.pad_token_id, keep_lm_head=True, **options
    )
    if tied:
        assert model.lm_head is not None
        model.lm_head.weight = model.backbone.get_input_embeddings().weight
    return model


def moved(module: PairwiseRM, folder: Path) -> set[str]:
    """The parameters that a run changes, by name."""
    before = {name: value.detach().clone() for name, value in module.model.named_parameters()}
    toy_trainer(folder, limit_val_batches=0).fit(module, toy_data())
    return {name for name, value in module.model.named_parameters() if not torch.equal(before[name], value)}


def test_text_trains_all_but_the_reward_head(tmp_path: Path) -> None:
    """All of a run's optimizer gets a gradient, which is what DDP asks for."""

    class Watched(SupervisedLM):
        without: list[Tensor] | None = None

        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            self.without = [weight for weight in self.parameters() if weight.requires_grad and weight.grad is None]

    module = Watched(causal_model(), ADAMW)
    names = {name for name, _ in module.model.named_parameters()}
    assert moved(module, tmp_path) == names - {"backbone.score.weight"}
    assert module.without == []


def test_text_is_measured_in_place_of_rewards(tmp_path: Path) -> None:
    """Over all tokens of batches of four and three pairs, as of pairs one by one; rewards are nowhere."""
    model = causal_model(dtype="float64")
    module, data = SupervisedLM(model, ADAMW), toy_data()
    trainer = toy_trainer(tmp_path, callbacks=[PairRecorder(tmp_path / "pairs")])
    trainer.fit(module, data)
    [found] = trainer.validate(module, data, verbose=False)
    one_by_one = toy_data(eval_batch_pairs=1)
    one_by_one.setup("validate")
    said: list[float] = []
    assert model.lm_head is not None
    for batch in one_by_one.val_dataloader()[0]:
        hidden = model(batch.tokens, keep_hidden=True).hidden.flatten(0, 1)
        for before, token in batch.tokens.response_index.T.tolist():
            said.append(model.lm_head(hidden[before]).log_softmax(-1)[batch.tokens.input_ids.flatten()[token]].item())
    loss = -sum(said) / len(said)
    assert found == same({"val/loss": loss, "val/perplexity": math.exp(loss), "val/num_tokens": len(said)})
    assert not (tmp_path / "pairs").exists()
    assert module.last_epoch.keys() == {"loss", "perplexity", "num_pairs"}
    assert module.last_epoch["perplexity"] == same(math.exp(module.last_epoch["loss"]))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("lm_loss", [0.0, 0.5])
def test_a_kept_lm_head_is_trained_where_its_loss_is(tmp_path: Path, lm_loss: float, tied: bool) -> None:
    """Without its loss it is frozen, but where it is the embeddings."""
    module = BaselineRM(causal_model(tied), ADAMW, lm_loss=lm_loss)
    frozen = {"lm_head.weight"} if not tied and not lm_loss else set[str]()
    assert {name for name, _ in module.model.named_parameters()} - moved(module, tmp_path) == frozen


def test_what_a_run_froze_the_next_may_train(tmp_path: Path) -> None:
    """One model in memory: fine-tuned on text, then trained as a reward model, then on text again."""
    model = causal_model()
    assert "backbone.score.weight" not in moved(SupervisedLM(model, ADAMW), tmp_path)
    assert "backbone.score.weight" in moved(BaselineRM(model, ADAMW), tmp_path)
    assert "lm_head.weight" in moved(SupervisedLM(model, ADAMW), tmp_path)


def test_what_adapters_froze_stays_frozen(tmp_path: Path) -> None:
    model = causal_model(lora=LoraAdapter(rank=2))
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert moved(BaselineRM(model, ADAMW), tmp_path) == trained
    assert {name for name, value in model.named_parameters() if value.requires_grad} == trained


def test_a_reward_model_starts_from_the_folder_and_trains_its_head(tmp_path: Path) -> None:
    callback = HuggingFaceCheckpoint(tmp_path / "sft", world_tokenizer(), monitor=None)
    toy_trainer(tmp_path, callbacks=[callback]).fit(SupervisedLM(causal_model(), ADAMW), toy_data())
    model = RewardModel.from_pretrained(tmp_path / "sft" / "last", tokenizer=world_tokenizer(), new_head=True)
    assert all(weight.requires_grad for weight in model.parameters())
    assert "backbone.score.weight" in moved(BaselineRM(model, ADAMW), tmp_path)


def test_a_resumed_run_is_the_one_that_never_stopped(tmp_path: Path) -> None:
    whole, rest = (SupervisedLM(causal_model(), ADAMW) for _ in range(2))
    saved = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    options: dict[str, Any] = {"max_epochs": 2, "limit_val_batches": 0}
    toy_trainer(tmp_path, callbacks=[saved], enable_checkpointing=True, **options).fit(whole, toy_data())
    toy_trainer(tmp_path, **options).fit(rest, toy_data(), ckpt_path=tmp_path / "step=4.ckpt", weights_only=True)
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)
