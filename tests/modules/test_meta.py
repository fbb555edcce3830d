from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from lightning_rm.batch import GroupBatch, PreferenceBatch, group_batch
from lightning_rm.callbacks import ResumeCheckpoint
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.synthetic.policy import SyntheticGroups
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.losses import difference_loss, ranking_loss
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.ascent import Ascent, choose_parameters
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.contrast import SimCSE
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.meta import MetaRM
from lightning_rm.modules.strength_aware import StrengthAwareRM
from tests import reference
from tests.float64 import assert_same, same
from tests.toy import CONFIG, LossRecorder, toy_data, toy_model, toy_trainer, weights

SGD = partial(torch.optim.SGD, lr=0.1)
ADAMW = partial(torch.optim.AdamW, lr=5e-3)
DROPOUT = {"attention_dropout": 0.1}
wide_model = partial(toy_model, dtype="float64")


def batches(number: int, responses: bool = True, accumulate: int = 1, **columns: Any) -> list[PreferenceBatch]:
    """Pairs, and on the first micro-batch of each step as many response groups of four pairs' responses each."""
    data = toy_data(4 * number, order="random")
    data.setup("fit")
    plain = [replace(batch, **columns) for batch in data.train_dataloader()]
    groups = [groups_of(batch) for batch in reversed(plain)]
    if not responses:
        return plain
    return [
        replace(batch, responses=tuple(groups[place : place + accumulate]) if place % accumulate == 0 else ())
        for place, batch in enumerate(plain)
    ]


def groups_of(batch: PreferenceBatch) -> GroupBatch:
    """Two groups of four: the responses of pairs 0 and 1, of pairs 2 and 3."""
    index = batch.tokens.reward_index.T.reshape(2, 4).T.contiguous()
    return group_batch(replace(batch.tokens, reward_index=index))


def fit(trainer: L.Trainer, module: L.LightningModule, data: Sequence[PreferenceBatch]) -> None:
    loader: Any = DataLoader(data, batch_size=None, collate_fn=lambda batch: batch)  # pyright: ignore[reportArgumentType]
    trainer.fit(module, loader)


class Gradients(L.Callback):
    """The gradient of every parameter as the optimizer is given it, of every step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        self.steps.append(
            {name: value.grad.clone() for name, value in pl_module.named_parameters() if value.grad is not None}
        )


def gradients(tmp_path: Path, module: MetaRM, data: Sequence[PreferenceBatch], **options: Any) -> dict[str, Tensor]:
    """The gradient of the first optimizer step."""
    recorder = Gradients()
    fit(toy_trainer(tmp_path, callbacks=[recorder], max_steps=1, **options), module, data)
    return {name.removeprefix("model."): value for name, value in recorder.steps[0].items()}


def ranking(model: RewardModel, batch: PreferenceBatch) -> Tensor:
    output = model(batch.tokens)
    return ranking_loss(output.chosen, output.rejected, batch.label, batch.margin, batch.weight)


def climb(model: RewardModel, groups: Sequence[GroupBatch], rate: float) -> RewardModel:
    """A copy of a model a step up the mean difference loss."""
    moved = copy.deepcopy(model)
    parameters = list(moved.parameters())
    mean = sum(difference_loss(moved(one.tokens).reward, one.present) for one in groups) / len(groups)
    assert isinstance(mean, Tensor)
    with torch.no_grad():
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(mean, parameters, allow_unused=True), strict=True
        ):
            parameter.add_(0.0 if gradient is None else rate * gradient)
    return moved


def test_a_step_on_a_quadratic_by_hand() -> None:
    """theta = 1, J = theta^2 / 2, L = (theta - 3)^2 / 2, eta = .1: theta' = 1.1, L' = -1.9, at rate .5: 1.95."""
    theta = nn.Parameter(torch.tensor([1.0], dtype=torch.float64))
    ascent, optimizer = Ascent([theta]), torch.optim.SGD([theta], lr=0.5)
    climbed = torch.autograd.grad(theta.square().sum() / 2, theta)
    ascent.start(climbed, 0.1)
    assert theta.item() == same(1.1)
    ((theta - 3).square().sum() / 2).backward()
    compared = ascent.compared()
    assert compared is not None
    assert compared[0].item() == same(0.1)
    assert compared[1].item() == same(-1.0)  # up in J is down in L
    ascent.forget()
    assert ascent.compared() is None
    assert theta.item() == 1.0
    optimizer.step()
    assert theta.item() == same(1.95)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("contrast", [None, SimCSE])
def test_without_a_rate_it_is_the_plain_step_bit_for_bit(tmp_path: Path, accumulate: int, contrast: Any) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.5}
    columns = {"label": torch.tensor([1.0, 0.0, 0.8, 1.0]), "margin": torch.tensor([0.5, -1.0, 0.0, 2.0])}
    data = batches(4, accumulate=accumulate, **columns)
    trained: list[dict[str, Tensor]] = []
    plain = (
        StrengthAwareRM(toy_model(**DROPOUT), ADAMW)
        if contrast is None
        else ContrastiveRM(toy_model(**DROPOUT), ADAMW, contrast)
    )
    for module in (plain, MetaRM(toy_model(**DROPOUT), ADAMW, ascent_lr=0.0, contrast=contrast)):
        L.seed_everything(3, verbose=False)
        fit(toy_trainer(tmp_path, **options), module, data)
        trained.append(weights(module))
    assert all(torch.equal(trained[1][name], value) for name, value in trained[0].items())
    before = weights(ContrastiveRM(toy_model(), ADAMW, SimCSE))
    assert any(not torch.equal(value, before[name]) for name, value in trained[0].items())


@pytest.mark.parametrize(("accumulate", "rate"), [(1, 5.0), (2, 5.0), (1, -5.0)])
def test_the_gradient_is_the_pairs_at_a_step_along_the_difference_loss(
    tmp_path: Path, accumulate: int, rate: float
) -> None:
    data = batches(accumulate, accumulate=accumulate)
    moved = climb(wide_model(), data[0].responses, rate)
    loss = sum(ranking(moved, batch) for batch in data) / accumulate
    assert isinstance(loss, Tensor)
    loss.backward()
    found = gradients(tmp_path, MetaRM(wide_model(), SGD, ascent_lr=rate), data, accumulate_grad_batches=accumulate)
    plain = gradients(tmp_path, MetaRM(wide_model(), SGD, ascent_lr=0.0), data, accumulate_grad_batches=accumulate)
    for name, parameter in moved.named_parameters():
        assert parameter.grad is not None
        assert_same(found[name], parameter.grad)
    assert max(float((found[name] - plain[name]).abs().max()) for name in found) > 1e-3


def test_theta_is_restored_bit_for_bit(tmp_path: Path) -> None:
    module = MetaRM(toy_model(**DROPOUT), partial(torch.optim.SGD, lr=0.0), ascent_lr=3.0)
    before = weights(module)
    fit(toy_trainer(tmp_path, accumulate_grad_batches=2), module, batches(6, accumulate=2))
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())


def test_a_small_step_adds_the_hessian_times_the_ascent(tmp_path: Path) -> None:
    """(g(eta) - g(-eta)) / 2 eta = H_L grad J + O(eta^2), and H_L grad J by autograd."""
    data, eta = batches(1), 1e-4
    model = wide_model()
    parameters = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        first = torch.autograd.grad(ranking(model, data[0]), parameters, create_graph=True)
        groups = data[0].responses[0]
        direction = torch.autograd.grad(difference_loss(model(groups.tokens).reward), parameters)
        product = torch.autograd.grad(first, parameters, grad_outputs=direction)
    names = [name for name, _ in model.named_parameters()]
    up, down = (gradients(tmp_path, MetaRM(wide_model(), SGD, ascent_lr=sign * eta), data) for sign in (1, -1))
    found = torch.cat([((up[name] - down[name]) / (2 * eta)).flatten() for name in names])
    expected = torch.cat([value.flatten() for value in product])
    assert float((found - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("eta", [3.0, -3.0])
def test_a_pair_that_agrees_with_the_ascent_counts_for_less(tmp_path: Path, eta: float) -> None:
    """Where the head alone climbs, the pairs' gradient is -sum sigma(-z') grad z / P, z' = z + eta <grad z, grad J>."""
    (data,) = batches(1)
    model = wide_model()
    with torch.no_grad():
        features = model(data.tokens).feature
        groups = model(data.responses[0].tokens).feature.transpose(0, 1).tolist()
    pairs = features.transpose(0, 1).tolist()
    (head,) = next(model.head_parameters()).tolist()
    expected, alignments = reference.meta_weights(pairs, groups, head, eta)
    plain, _ = reference.meta_weights(pairs, groups, head, 0.0)

    module = MetaRM(wide_model(), SGD, ascent_lr=eta, ascent_part="head")
    gradient = gradients(tmp_path, module, [data])["backbone.score.weight"][0]
    apart = features[0] - features[1]  # (P, H): each pair's grad z
    found = torch.linalg.lstsq(apart.T, -len(pairs) * gradient).solution
    assert_same(gradient, -found @ apart / len(pairs))
    assert found.tolist() == same(expected)
    for weight, before, alignment in zip(found.tolist(), plain, alignments, strict=True):
        assert (weight < before) == (eta * alignment > 0)
    assert {alignment > 0 for alignment in alignments} == {True, False}


@pytest.mark.parametrize("kind", ["first order", "second order", "checkpointing"])
def test_the_difference_loss_is_climbed_without_dropout(tmp_path: Path, kind: str) -> None:
    """Asked for none, J is that of a model which drops nothing, and so is the step; the pairs are under dropout."""
    data = batches(1)
    logged: dict[str, dict[str, float]] = {}
    for name, options in {"none": {}, "aside": {}, "asked": {"ascent_dropout": True}}.items():
        model = wide_model(attention_dropout=0.0 if name == "none" else 0.3)
        if kind == "checkpointing":
            model.backbone.gradient_checkpointing_enable()
        trainer = toy_trainer(tmp_path, log_every_n_steps=1)
        fit(trainer, MetaRM(model, SGD, ascent_lr=2.0, second_order=kind == "second order", **options), data)
        logged[name] = {key.removeprefix("train/"): float(value) for key, value in trainer.callback_metrics.items()}
        assert all(part.training for part in model.modules())
    for key in ("difference_loss", "difference_loss_after", "difference", "ascent_length"):
        assert logged["aside"][key] == same(logged["none"][key]), key
        assert logged["asked"][key] != pytest.approx(logged["none"][key], rel=1e-6), key
    assert logged["aside"]["ranking"] != pytest.approx(logged["none"]["ranking"], rel=1e-6)


@pytest.mark.parametrize("eta", [0.002, -0.5])
def test_the_second_order_adds_the_hessian_of_the_ascent(tmp_path: Path, eta: float) -> None:
    """By the chain rule the exact gradient is (I + eta H_J(theta)) g, g = grad L(theta') the first order's."""
    data = batches(1)
    first = gradients(tmp_path, MetaRM(wide_model(), SGD, ascent_lr=eta), data)
    second = gradients(tmp_path, MetaRM(wide_model(), SGD, ascent_lr=eta, second_order=True), data)
    model = wide_model()
    names, parameters = zip(*model.named_parameters(), strict=True)
    with sdpa_kernel(SDPBackend.MATH):
        climbed = difference_loss(model(data[0].responses[0].tokens).reward)
        slopes = torch.autograd.grad(climbed, parameters, create_graph=True)
        products = torch.autograd.grad(slopes, parameters, grad_outputs=[first[name] for name in names])
    for name, product in zip(names, products, strict=True):
        assert_same(second[name], first[name] + eta * product)
    assert max(float(product.abs().max()) for product in products) > 1e-3


@pytest.mark.parametrize(("scale", "length"), [("norm", 0.3), ("relative", None)])
def test_the_step_is_as_long_as_its_scale_says(tmp_path: Path, scale: Any, length: float | None) -> None:
    module = MetaRM(wide_model(), SGD, ascent_lr=0.3, ascent_scale=scale)
    norm = torch.cat([parameter.flatten() for parameter in module.model.parameters()]).norm().item()
    trainer = toy_trainer(tmp_path, log_every_n_steps=1)
    fit(trainer, module, batches(1))
    logged = {name.removeprefix("train/"): float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["ascent_length"] == same(length or 0.3 * norm)
    assert logged["ascent_relative"] == same((length or 0.3 * norm) / norm)
    assert logged["difference_loss_after"] > logged["difference_loss"]
    assert -1 <= logged["gradient_cosine"] <= 1


def test_the_adapters_of_members_are_adapters_and_of_their_layer() -> None:
    model = MemberRewardModel.of(toy_model(), Members(num_members=2, lora_layers=1))
    adapters = {name for name, _ in choose_parameters(model, "adapters")}
    assert adapters == {name for name, _ in model.named_parameters() if name.startswith("lora.")} != set()
    last = {name for name, _ in choose_parameters(model, "last:1")}
    assert last == adapters | {name for name, _ in choose_parameters(model, "head")}


@pytest.mark.parametrize("rate", [2.0, -2.0])
def test_the_cosine_is_between_the_ascent_and_the_pairs_gradient(tmp_path: Path, rate: float) -> None:
    data = batches(1)
    model = wide_model()
    climbed = difference_loss(model(data[0].responses[0].tokens).reward)
    up = torch.cat([value.flatten() for value in torch.autograd.grad(climbed, list(model.parameters()))])
    moved = climb(model, data[0].responses, rate)
    ranking(moved, data[0]).backward()
    found = torch.cat([parameter.grad.flatten() for parameter in moved.parameters() if parameter.grad is not None])
    expected = float(torch.nn.functional.cosine_similarity(up, found, dim=0))
    trainer = toy_trainer(tmp_path, log_every_n_steps=1)
    fit(trainer, MetaRM(wide_model(), SGD, ascent_lr=rate), data)
    assert float(trainer.callback_metrics["train/gradient_cosine"]) == same(expected)
    assert float(trainer.callback_metrics["train/difference_loss"]) == same(float(climbed.detach()))


@pytest.mark.parametrize("rate", [0.5, -0.5])
def test_the_exact_step_logs_what_the_first_order_does(tmp_path: Path, rate: float) -> None:
    """The same walk; the cosine is with another gradient, the whole one, here held against autograd."""
    data, logged = batches(1), list[dict[str, float]]()
    for second_order in (False, True):
        trainer = toy_trainer(tmp_path, log_every_n_steps=1)
        fit(trainer, MetaRM(wide_model(), SGD, ascent_lr=rate, second_order=second_order), data)
        logged.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    first, second = logged
    for name in ("difference_loss", "difference_loss_after", "difference", "ascent_length", "ascent_relative"):
        assert second[f"train/{name}"] == same(first[f"train/{name}"]), name
    whole = gradients(tmp_path, MetaRM(wide_model(), SGD, ascent_lr=rate, second_order=True), data)
    model = wide_model()
    climbed = difference_loss(model(data[0].responses[0].tokens).reward)
    up = torch.cat([value.flatten() for value in torch.autograd.grad(climbed, list(model.parameters()))])
    found = torch.cat([whole[name].flatten() for name, _ in model.named_parameters()])
    expected = float(torch.nn.functional.cosine_similarity(up, found, dim=0))
    assert second["train/gradient_cosine"] == same(expected)


@pytest.mark.parametrize(("part", "expected"), [("head", {"score"}), ("last:1", {"score", "layers.1"})])
def test_a_part_of_the_weights_can_be_moved(part: str, expected: set[str]) -> None:
    names = {name for name, _ in choose_parameters(toy_model(), part)}
    assert all(any(piece in name for piece in expected) for name in names)
    assert all(any(piece in name for name in names) for piece in expected)


def test_adapters_are_moved_and_a_part_without_weights_is_an_error() -> None:
    tokenizer = world_tokenizer()
    options: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_id": tokenizer.pad_token_id}
    model = RewardModel.from_config(CONFIG, **options, lora=LoraAdapter(rank=2))
    names = [name for name, _ in choose_parameters(model, "adapters")]
    assert names
    assert all("lora_" in name for name in names)
    with pytest.raises(ValueError, match="ascent_part='adapters': the model has no trainable parameter"):
        MetaRM(toy_model(), SGD, ascent_part="adapters")
    with pytest.raises(ValueError, match="say all, head, adapters or last:N"):
        MetaRM(toy_model(), SGD, ascent_part="layers")


def test_options_against_rewarding_noise() -> None:
    groups = batches(1)[0].responses[0]
    module = MetaRM(wide_model(), SGD, reward_penalty=0.5, difference_cap=0.1, agreed_only=True)
    agreed = torch.zeros(4, 4, 2, dtype=torch.bool)
    agreed[0, 3] = agreed[3, 0] = True
    present = torch.tensor([[True, True], [True, True], [True, False], [True, False]])
    groups = replace(groups, agreed=agreed, present=present)
    reward = module.model(groups.tokens).reward.detach()
    expected = float(difference_loss(reward, present, agreed, 0.1))
    square = sum(sum(float(reward[i, g]) ** 2 for i in range(k)) / k for g, k in ((0, 4), (1, 2))) / 2
    climbed, height = module.climb.height(groups, is_logged=True)
    assert climbed.item() == same(expected - 0.5 * square)
    assert height.item() == same(expected)
    pairs = [
        (reward[i, g] - reward[j, g]).abs().item() for g, k in ((0, 4), (1, 2)) for i in range(k) for j in range(i)
    ]
    assert module.climb.seen["difference"].item() == same((sum(pairs[:6]) / 6 + pairs[6]) / 2)


class Spread(MetaRM):
    """Climbs the variance of rewards in place of the difference loss."""

    def difference(self, responses: GroupBatch, reward: Tensor) -> Tensor:
        return reward.var(0, correction=0).mean()


@pytest.mark.parametrize("second_order", [False, True])
def test_a_difference_of_ones_own_is_what_is_climbed_and_logged(tmp_path: Path, second_order: bool) -> None:
    """In a copy and in what is unpickled too, each by its own weights."""
    [batch] = batches(1)
    made = Spread(wide_model(), SGD, ascent_lr=0.5, second_order=second_order)
    reward = made.model(batch.responses[0].tokens).reward
    expected = reward.var(0, correction=0).mean().item()
    assert expected != same(float(difference_loss(reward, batch.responses[0].present)))
    for module in (made, copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        fit(toy_trainer(tmp_path, max_steps=1, log_every_n_steps=1), module, [batch])
        assert module.climb.seen["difference_loss"].item() == same(expected)
        assert module.climb.seen["difference_loss_after"].item() > expected


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path: Path) -> None:
    data = batches(3)
    data[1] = replace(data[1], weight=torch.full((4,), float("nan")))
    module = MetaRM(toy_model(), ADAMW, ascent_lr=1.0)
    after: list[dict[str, Tensor]] = []

    class Weights(L.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            after.append(weights(module))

    trainer = toy_trainer(tmp_path, callbacks=[Weights()], log_every_n_steps=1)
    fit(trainer, module, data)
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])
    assert any(not torch.equal(after[1][name], after[2][name]) for name in after[0])
    assert float(trainer.callback_metrics["train/skipped_steps"]) == 1.0


@pytest.mark.parametrize("half", ["pairs", "responses"])
def test_a_run_of_steps_that_are_not_finite_ends_with_its_weights_whole_and_saved(tmp_path: Path, half: str) -> None:
    data = batches(4)
    module = MetaRM(toy_model(), ADAMW, ascent_lr=1.0, max_skipped=3)
    if half == "pairs":
        data = [replace(batch, weight=torch.full((4,), float("inf"))) for batch in data]
    else:
        module.climb.reward_penalty = float("inf")
    before = weights(module)
    with pytest.raises(ValueError, match=r"3 optimizer steps in a row.*or lower ascent_lr=1.0"):
        fit(toy_trainer(tmp_path, callbacks=[ResumeCheckpoint(tmp_path / "resume.ckpt")]), module, data)
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())
    saved = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    assert all(torch.equal(value, before[name]) for name, value in saved["state_dict"].items())
    assert saved["skipped_steps"] == 3
    assert saved["global_step"] == 3


@pytest.mark.parametrize("hook", ["on_before_backward", "on_train_batch_end"])
def test_a_run_that_is_stopped_leaves_the_model_at_theta(tmp_path: Path, hook: str) -> None:
    module = MetaRM(toy_model(), SGD, ascent_lr=3.0)
    before = weights(module)

    class Stop(L.Callback):
        pass

    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    setattr(Stop, hook, stop)
    with pytest.raises(SystemExit):
        fit(toy_trainer(tmp_path, callbacks=[Stop()], accumulate_grad_batches=2), module, batches(2))
    found = dict(module.model.named_parameters())
    assert all(torch.equal(found[name], before[f"model.{name}"]) for name in found)


def test_a_trainer_that_goes_on_with_another_method_says_what_failed(tmp_path: Path) -> None:
    """What MetaRM asks of a trainer stays with it, and is for a MetaRM alone."""

    class Failing(BaselineRM):
        def losses(self, batch: PreferenceBatch, output: Any) -> dict[str, Tensor]:
            raise RuntimeError("what failed")

    trainer = toy_trainer(tmp_path, max_epochs=1)
    fit(trainer, MetaRM(toy_model(), SGD), batches(1))
    trainer.fit_loop.max_epochs = 2
    with pytest.raises(RuntimeError, match="what failed"):
        fit(trainer, Failing(toy_model(), SGD), batches(1))


def test_theta_is_restored_when_a_step_is_interrupted(tmp_path: Path) -> None:
    class Interrupted(MetaRM):
        def losses(self, batch: PreferenceBatch, output: Any) -> dict[str, Tensor]:
            raise RuntimeError("stop")

    module = Interrupted(toy_model(), SGD, ascent_lr=3.0)
    before = weights(module)
    with pytest.raises(RuntimeError, match="stop"):
        fit(toy_trainer(tmp_path), module, batches(1))
    assert all(torch.equal(value, before[name]) for name, value in weights(module).items())


def test_what_is_saved_in_the_middle_of_a_step_is_theta(tmp_path: Path) -> None:
    """A cluster's signal may save at any time: here when the pairs' loss is computed at theta'."""
    saved: list[dict[str, Tensor]] = []

    class Saved(MetaRM):
        def losses(self, batch: PreferenceBatch, output: Any) -> dict[str, Tensor]:
            saved.append(weights(self))
            raise KeyboardInterrupt

    module = Saved(toy_model(), SGD, ascent_lr=3.0)
    before = weights(module)
    with pytest.raises(SystemExit):
        fit(toy_trainer(tmp_path), module, batches(1))
    for after in (saved[0], weights(module)):
        assert all(torch.equal(value, before[name]) for name, value in after.items())


def test_under_autocast_the_gradient_is_at_theta_prime_too(tmp_path: Path) -> None:
    """Autocast keeps rounded copies of weights: those of theta must not serve at theta'."""
    data = batches(1)
    moved = toy_model()
    with torch.autocast("cpu", torch.bfloat16):
        climbed = difference_loss(moved(data[0].responses[0].tokens).reward)
    up = torch.autograd.grad(climbed, list(moved.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(moved.parameters(), up, strict=True):
            parameter.add_(2.0 * gradient)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ranking(moved, data[0])
    loss.backward()
    found = gradients(tmp_path, MetaRM(toy_model(), SGD, ascent_lr=2.0), data, precision="bf16-mixed")
    stale = gradients(tmp_path, MetaRM(toy_model(), SGD, ascent_lr=0.0), data, precision="bf16-mixed")
    names = [name for name, _ in moved.named_parameters()]
    expected = torch.cat([parameter.grad.flatten() for parameter in moved.parameters() if parameter.grad is not None])
    distance = [
        float((torch.cat([one[name].flatten() for name in names]) - expected).norm() / expected.norm())
        for one in (found, stale)
    ]
    assert distance[0] < 0.05
    assert distance[1] > 0.2


def test_what_does_not_go_together_is_said_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the data module responses="):
        fit(toy_trainer(tmp_path), MetaRM(toy_model(), SGD), batches(1, responses=False))
    module = MetaRM(toy_model(), SGD, second_order=True)
    with pytest.raises(ValueError, match=r"second_order=true .* without gradient accumulation"):
        fit(toy_trainer(tmp_path, accumulate_grad_batches=2), module, batches(2, accumulate=2))
    transformer_layers(module.model.backbone)[0].compile()
    with pytest.raises(ValueError, match=r"second_order=true .* compiled layers"):
        fit(toy_trainer(tmp_path), module, batches(1))
    with pytest.raises(ValueError, match="agreed_only=true needs the votes"):
        fit(toy_trainer(tmp_path), MetaRM(toy_model(), SGD, agreed_only=True), batches(1))
    with pytest.raises(ValueError, match="second_order=true needs the plain step"):
        MetaRM(toy_model(), SGD, second_order=True, ascent_scale="norm")
    with pytest.raises(ValueError, match="difference_cap=0"):
        MetaRM(toy_model(), SGD, difference_cap=0)
    with pytest.raises(ValueError, match="say last:2 or all"):
        MetaRM(toy_model(), SGD, ascent_part="last:3")
    with pytest.raises(ValueError, match="leave out the members"):
        MetaRM(MemberRewardModel.of(toy_model(), Members(num_members=2)), SGD, contrast=SimCSE)
    with pytest.raises(ValueError, match="reward_penalty=-1; give 0 or more"):
        MetaRM(toy_model(), SGD, reward_penalty=-1)
    with pytest.raises(ValueError, match="ascent_scale='adam'"):
        MetaRM(toy_model(), SGD, ascent_scale="adam")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kind", ["contrast", "members", "checkpointing", "packed", "shared_prefix", "lora"])
def test_it_goes_with_the_rest(tmp_path: Path, kind: str) -> None:
    tokenizer = world_tokenizer()
    options: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_id": tokenizer.pad_token_id}
    options |= {"gradient_checkpointing": kind == "checkpointing", "lora": LoraAdapter() if kind == "lora" else None}
    model: RewardModel = RewardModel.from_config(CONFIG, **options)
    if kind == "members":
        model = MemberRewardModel.of(model, Members(num_members=2))
    parts = {"contrast": {"contrast": SimCSE, "dropout_at": "features"}, "lora": {"ascent_part": "adapters"}}
    extra: dict[str, Any] = parts.get(kind, {})
    data = toy_data(16, layout=kind if kind in LAYOUTS else "padded")
    data.setup("fit")
    pairs = [replace(batch, responses=(groups_of(batch),)) for batch in data.train_dataloader()]
    module = MetaRM(model, ADAMW, ascent_lr=0.1, **extra)
    before = weights(module)
    trainer = toy_trainer(tmp_path, log_every_n_steps=1)
    fit(trainer, module, pairs)
    assert float(trainer.callback_metrics["train/skipped_steps"]) == 0
    moved = {name for name, value in weights(module).items() if not torch.equal(value, before[name])}
    assert moved
    assert kind != "lora" or all("lora" in name or "score" in name for name in moved)
    assert ("train/contrast" in trainer.callback_metrics) == (kind == "contrast")


def test_a_run_that_logs_no_step_trains(tmp_path: Path) -> None:
    module = MetaRM(toy_model(), SGD, ascent_lr=0.1)
    before = weights(module)
    trainer = toy_trainer(tmp_path, log_every_n_steps=0)
    fit(trainer, module, batches(1))
    assert "train/difference_loss" not in trainer.callback_metrics
    assert any(not torch.equal(value, before[name]) for name, value in weights(module).items())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resume_is_bit_exact_with_responses(tmp_path: Path, accumulate: int) -> None:
    """Six micro-batches an epoch, stopped after four; seven groups, so that the two streams' epochs differ."""

    def run(folder: str, resume: Path | None = None, **options: Any) -> tuple[list[float], L.LightningModule]:
        L.seed_everything(1 if resume is None else 999, verbose=False)
        module = MetaRM(toy_model(**DROPOUT), ADAMW, ascent_lr=0.05, ascent_scale="relative")
        recorder = LossRecorder()
        callbacks = [recorder, *options.pop("callbacks", [])]
        data = toy_data(responses=SyntheticGroups(7, k=3, shift=0.5), batch_groups=2)
        options = {"accumulate_grad_batches": accumulate, "max_epochs": 2, **options}
        toy_trainer(tmp_path / folder, callbacks=callbacks, **options).fit(
            module, data, ckpt_path=resume, weights_only=True
        )
        return recorder.losses, module

    whole, finished = run("whole")
    checkpoint = ModelCheckpoint(
        tmp_path / "ckpt",
        filename="{step}",
        every_n_train_steps=4 // accumulate,
        save_top_k=-1,
        save_on_train_epoch_end=False,
    )
    first, _ = run("first", callbacks=[checkpoint], enable_checkpointing=True, max_steps=4 // accumulate)
    rest, resumed = run("rest", resume=tmp_path / "ckpt" / f"step={4 // accumulate}.ckpt")
    assert len(whole) == 12
    assert first + rest == whole
    expected, found = weights(finished), weights(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
