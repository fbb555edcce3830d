from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

from lightning_rm.batch import PreferenceBatch, preference_batch
from lightning_rm.models.dropout import add_dropout
from lightning_rm.models.ensembles.members import MemberRewardModel, Members
from lightning_rm.modules.contrast import SimCSE, SwAV
from lightning_rm.modules.contrasted import Contrast, samples_of
from lightning_rm.modules.contrastive import ContrastiveRM
from lightning_rm.modules.objective import Objective
from lightning_rm.modules.views import doubled, two_views
from tests import reference
from tests.float64 import assert_same, same
from tests.toy import LossRecorder, toy_data, toy_model, toy_trainer, weights

ADAMW = partial(torch.optim.AdamW, lr=5e-3)
CONTRASTS = {
    "simcse": partial(SimCSE),
    "simcse_diff": partial(SimCSE, samples="difference", other_weight=0.0, projection=6),
    "swav": partial(SwAV, num_prototypes=5, queue=24),
    "swav_diff": partial(SwAV, samples="difference", num_prototypes=3, frozen=2, projection=6),
}


def one_batch(**options: Any) -> PreferenceBatch:
    data = toy_data(4, **options)
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def features(seed: int = 0, pairs: int = 4, size: int = 6) -> Tensor:
    return torch.randn(2, pairs, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


INDEX = torch.arange(8).view(2, 4)


def rows(feature: Tensor, samples: str) -> list[list[float]]:
    chosen, rejected = feature.double().tolist()
    if samples == "responses":
        return chosen + rejected
    difference = [[a - b for a, b in zip(c, r, strict=True)] for c, r in zip(chosen, rejected, strict=True)]
    return difference + [[-x for x in row] for row in difference]


@pytest.mark.parametrize("samples", ["responses", "difference"])
@pytest.mark.parametrize("other_weight", [1.0, 0.0, 4.0])
def test_simcse_is_the_paper_s_over_its_samples(samples: Any, other_weight: float) -> None:
    first, second = features(0), features(1)
    contrast = SimCSE(6, samples, temperature=0.2, other_weight=other_weight)
    weight = [[other_weight if (i - j) % 8 == 4 else 1.0 for j in range(8)] for i in range(8)]
    expected = reference.simcse(rows(first, samples), rows(second, samples), 0.2, weight)
    assert contrast(first, second, INDEX).loss.item() == same(expected)


def test_a_response_of_several_pairs_is_no_negative_of_itself() -> None:
    """Pairs (a, b), (a, c), (d, a), (e, f): rows 0, 1 and 6 are one response, whatever was dropped from each."""
    first, second = features(0), features(1)
    index = torch.tensor([[0, 0, 1, 2], [3, 4, 0, 5]])
    alike = {0, 1, 6}
    weight = [[0.0 if i != j and {i, j} <= alike else 1.0 for j in range(8)] for i in range(8)]
    expected = reference.simcse(rows(first, "responses"), rows(second, "responses"), 0.05, weight)
    assert SimCSE(6)(first, second, index).loss.item() == same(expected)


def test_a_pair_of_two_responses_is_no_negative_of_itself_nor_of_its_reverse() -> None:
    """Pairs (a, b), (b, a), (a, b), (a, c): rows 0, 2 and 5 are a less b, rows 1, 4 and 6 b less a."""
    first, second = features(0), features(1)
    index = torch.tensor([[0, 1, 0, 0], [1, 0, 1, 2]])
    sides = [{0, 2, 5}, {1, 4, 6}]
    weight = [[0.0 if i != j and any({i, j} <= side for side in sides) else 1.0 for j in range(8)] for i in range(8)]
    expected = reference.simcse(rows(first, "difference"), rows(second, "difference"), 0.05, weight)
    assert SimCSE(6, "difference")(first, second, index).loss.item() == same(expected)


@pytest.mark.parametrize("name", ["simcse_diff", "swav_diff"])
def test_a_response_alone_makes_no_difference(name: str) -> None:
    """Pairs (a, b), (c, c), (d, e), (f, f): of the batch's mean the first and the third have their loss, the others 0.
    Neither are these negatives, take a share of the prototypes' use, or have a gradient; a batch
    of them alone has a loss of 0, also in half precision.
    """
    index = torch.tensor([[0, 2, 3, 5], [1, 2, 4, 5]])
    views = [features(0), features(1)]
    for view in views:
        view[1, [1, 3]] = view[0, [1, 3]]
    alone = CONTRASTS[name](6).double()
    expected = alone(*(view[:, [0, 2]] for view in views), index[:, [0, 2]])
    contrast = CONTRASTS[name](6).double()
    found = contrast(*views, index, torch.ones(4))
    assert_same(found.loss, expected.loss / 2)
    assert found.counted.tolist() == [True, False, True, False] * 2
    assert_same(found.first[found.counted], expected.first)
    objective = Objective(6, CONTRASTS[name], beta=1.0)
    objective.last = found
    geometry = objective.geometry()
    objective.last = expected
    for key, value in objective.geometry().items():
        assert_same(geometry[key], value)
    half = [view[:, [1, 3]].half().requires_grad_() for view in views]
    loss = CONTRASTS[name](6)(*half, index[:, [1, 3]]).loss
    loss.backward()
    assert loss.item() == 0
    assert all(view.grad is not None and not view.grad.any() for view in half)


def test_the_queue_is_made_of_differences_of_two_responses() -> None:
    """A response alone takes a place in it, and no share of the codes."""
    index, views = torch.tensor([[0, 2, 3, 5], [1, 2, 4, 5]]), [features(0), features(1)]
    for view in views:
        view[1, [1, 3]] = view[0, [1, 3]]
    whole, paired = (SwAV(6, "difference", num_prototypes=3, queue=16).double() for _ in range(2))
    whole(*views, index)
    paired(*(view[:, [0, 2]] for view in views), index[:, [0, 2]])
    assert_same(whole.queue[:, : int(whole.queued)][:, [0, 1, 4, 5]], paired.queue[:, : int(paired.queued)])
    more = features(2), features(3)
    assert_same(whole(*more, INDEX).loss, paired(*more, INDEX).loss)


def test_a_grid_made_by_hand_has_its_cells_for_names() -> None:
    batch = one_batch()
    module = ContrastiveRM(toy_model(dtype="float64"), ADAMW, SimCSE, dropout_at="features", dropout=0.2)
    output = module(batch)
    by_hand = replace(batch, tokens=replace(batch.tokens, response_key=None))
    losses = [module.losses(one, output)["contrast"] for one in (batch, by_hand)]
    assert_same(*losses)


@pytest.mark.parametrize("samples", ["responses", "difference"])
def test_swav_is_the_paper_s_over_its_samples(samples: Any) -> None:
    first, second = features(0), features(1)
    contrast = SwAV(6, samples, num_prototypes=3, temperature=0.2, epsilon=0.1).double()
    prototypes = contrast.prototypes.double().tolist()
    scores = [
        [[reference.cosine(row, prototype) for prototype in prototypes] for row in rows(view, samples)]
        for view in (first, second)
    ]
    codes = [reference.sinkhorn(one, 0.1, 3) for one in scores]
    expected = reference.swav(*scores, *codes, 0.2)
    assert contrast(first, second, INDEX).loss.item() == same(expected)


def test_the_queue_joins_the_codes_and_forgets_the_oldest() -> None:
    contrast = SwAV(6, num_prototypes=3, epsilon=0.1, queue=12).double()
    views = [features(seed) for seed in range(4)]
    contrast(views[0], views[1], INDEX)
    contrast(views[2], views[3], INDEX)
    unit = [torch.nn.functional.normalize(view, dim=-1).transpose(0, 1).flatten(0, 1) for view in views]
    assert int(contrast.queued) == 12
    assert_same(contrast.queue[0], torch.cat([unit[2], unit[0]])[:12])
    assert_same(contrast.queue[1], torch.cat([unit[3], unit[1]])[:12])
    held = contrast.queue.clone()
    contrast.eval()
    new = features(9)
    prototypes = contrast.prototypes.detach()
    pool = torch.cat([torch.nn.functional.normalize(samples_of(new, "responses"), dim=-1), held[0]])
    expected = reference.sinkhorn((pool @ prototypes.T).double().tolist(), 0.1, 3)[:8]
    found = contrast._codes(torch.stack([pool[:8], pool[:8]]), prototypes)
    assert_same(found[0], torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(contrast.queue, held)
    contrast.train()
    contrast(torch.full_like(new, float("nan")), new, INDEX)
    assert torch.equal(contrast.queue, held)


@pytest.mark.parametrize("name", CONTRASTS)
def test_a_pair_that_only_fills_a_batch_is_no_sample(name: str) -> None:
    module = ContrastiveRM(toy_model(), ADAMW, CONTRASTS[name], dropout_at="embeddings", dropout=0.2)
    filler = replace(one_batch(), scale=0.0)
    losses = module.objective(filler, module.objective.output(module.model, filler))
    assert losses["contrast"].item() == 0
    assert module.objective.last is not None
    assert len(module.objective.last.first) == 0
    losses["loss"].backward()


@pytest.mark.parametrize("name", CONTRASTS)
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    order = torch.tensor([2, 0, 3, 1])
    contrast = CONTRASTS[name](6).double()
    first, second = features(0), features(1)
    expected = contrast(first, second, INDEX).loss
    found = CONTRASTS[name](6).double()(first[:, order], second[:, order], INDEX[:, order]).loss
    assert_same(found, expected)


def test_a_share_of_a_run_without_an_end_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"frozen=0\.5 is a share of a run.*give steps"):
        SwAV(6, frozen=0.5).before_step(0, float("inf"))
    SwAV(6, frozen=5).before_step(0, float("inf"))


@pytest.mark.parametrize("layout", ["padded", "packed", "shared_prefix"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_two_views_are_two_forwards(layout: Any, attention: str) -> None:
    """Without dropout both views are the plain forward, whatever the layout."""
    model = toy_model(dtype="float64")
    model.backbone.set_attn_implementation(attention if attention == "eager" else "sdpa_by_segment")
    batch = one_batch(layout=layout)
    alone, views = model(batch.tokens), two_views(model, batch.tokens)
    assert views.reward.shape == (2, 2, 4)
    for view in range(2):
        assert_same(views.reward[:, view], alone.reward)
        assert_same(views.feature[:, view], alone.feature)
    assert doubled(batch.tokens).reward_index.shape == (2, 8)


@pytest.mark.parametrize("at", ["embeddings", "features"])
def test_a_dropout_of_ours_makes_views_in_training_alone(at: Any, tmp_path: Path) -> None:
    model, batch = toy_model(dtype="float64"), one_batch()
    before = model(batch.tokens)
    add_dropout(model, at, 0.2)
    views = two_views(model, batch.tokens)
    assert not torch.equal(views.feature[:, 0], views.feature[:, 1])
    model.eval()
    assert_same(model(batch.tokens).reward, before.reward)
    model.save_pretrained(tmp_path)
    model.train()
    add_dropout(model, at, 0.0)  # in place of the first, not on it
    assert torch.equal(*two_views(model, batch.tokens).feature.unbind(1))
    with pytest.raises(ValueError, match="dropout_at='head'"):
        add_dropout(model, "head", 0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="dropout=1"):
        add_dropout(model, at, 1.0)


def test_equal_views_are_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    module = ContrastiveRM(toy_model(), ADAMW, SimCSE)
    with pytest.raises(ValueError, match=r"views of a batch are equal.*dropout_at='embeddings'"):
        toy_trainer(tmp_path).fit(module, toy_data(8))
    with pytest.raises(ValueError, match="leave out the members"):
        ContrastiveRM(MemberRewardModel.of(toy_model(), Members(num_members=2)), ADAMW, SimCSE)


class Scalar(Contrast):
    """Forgets to say what it compared."""

    def __init__(self, size: int) -> None:
        super().__init__()

    def forward(self, first: Tensor, second: Tensor, index: Tensor, weight: Tensor | None = None) -> Any:
        return (first - second).square().mean()


@pytest.mark.parametrize(
    ("contrast", "told"),
    [
        (SimCSE(32), "it is a SimCSE that is made already"),
        (partial(SimCSE, size=8), "called with 32 alone: .*'size'"),
        (nn.Identity, "it made a Identity: inherit from lightning_rm.modules.contrasted.Contrast"),
        (Scalar, r"Scalar.forward has returned a Tensor; it has to return Contrasted\(loss, first, second\)"),
    ],
)
def test_what_is_no_contrast_is_told(contrast: Any, told: str, tmp_path: Path) -> None:
    def train() -> None:
        module = ContrastiveRM(toy_model(), ADAMW, contrast, dropout_at="features")
        toy_trainer(tmp_path).fit(module, toy_data(8))

    with pytest.raises(ValueError, match=told):
        train()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": "pairs"}, "samples='pairs'"), ({"temperature": 0}, "temperature=0"), ({"other_weight": -1}, "-1")],
)
def test_options_out_of_range_are_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimCSE(6, **options)


def test_the_loss_is_ranking_over_both_views_and_beta_times_the_contrast() -> None:
    label, margin = torch.tensor([1.0, 0.0, 0.8, 1.0]), torch.tensor([0.5, -2.0, 0.0, 3.0])
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0])
    batch = preference_batch(one_batch().tokens, label=label, margin=margin, weight=weight)
    for views in ("both", "first"):
        module = ContrastiveRM(
            toy_model(dtype="float64"), ADAMW, SimCSE, beta=0.3, dropout_at="features", dropout=0.2, ranking_views=views
        )
        output = module(batch)
        losses = module.losses(batch, output)
        ranking = [
            reference.ranking_loss(
                output.chosen[view].tolist(),
                output.rejected[view].tolist(),
                label.tolist(),
                margin.tolist(),
                weight.tolist(),
            )
            for view in range(2)
        ]
        expected = sum(ranking) / 2 if views == "both" else ranking[0]
        first, second = output.feature.unbind(1)
        contrast = reference.simcse(rows(first, "responses"), rows(second, "responses"), 0.05)
        assert losses["ranking"].item() == same(expected)
        assert losses["contrast"].item() == same(contrast)
        assert losses["loss"].item() == same(expected + 0.3 * contrast)


@pytest.mark.parametrize("name", CONTRASTS)
def test_a_run_logs_every_part_and_exports_the_reward_model_alone(name: str, tmp_path: Path) -> None:
    module = ContrastiveRM(toy_model(), ADAMW, CONTRASTS[name], dropout_at="embeddings")
    before = weights(module)
    trainer = toy_trainer(tmp_path, max_epochs=2, log_every_n_steps=1, gradient_clip_val=1.0)
    trainer.fit(module, toy_data(16))
    logged = {"train/ranking", "train/contrast", "train/alignment", "train/uniformity", "train/effective_rank"}
    assert logged <= trainer.callback_metrics.keys()
    assert ("train/prototype_entropy" in trainer.callback_metrics) == name.startswith("swav")
    after = weights(module)
    learned = {key for key in after if not torch.equal(before[key], after[key])}
    assert {key for key in after if "prototypes" in key or "projection" in key} <= learned
    module.model.save_pretrained(tmp_path / "model")
    plain = toy_model()
    plain.save_pretrained(tmp_path / "plain")
    assert (tmp_path / "model" / "config.json").read_text() == (tmp_path / "plain" / "config.json").read_text()
    from safetensors.torch import load_file

    exported, expected = (load_file(tmp_path / folder / "model.safetensors") for folder in ("model", "plain"))
    assert exported.keys() == expected.keys()


def test_prototypes_stay_as_they_are_while_frozen(tmp_path: Path) -> None:
    for frozen, moves in ((4, False), (0.5, True), (2, True)):
        module = ContrastiveRM(
            toy_model(), ADAMW, partial(SwAV, num_prototypes=4, frozen=frozen), dropout_at="embeddings"
        )
        contrast = module.objective.contrast
        assert isinstance(contrast, SwAV)
        before = contrast.prototypes.detach().clone()
        toy_trainer(tmp_path).fit(module, toy_data(16))
        assert torch.equal(contrast.prototypes, before) != moves


@pytest.mark.parametrize("name", ["swav", "simcse_diff"])
def test_resume_is_bit_exact_with_queue_prototypes_and_projection(name: str, tmp_path: Path) -> None:
    def run(folder: str, resume: Path | None = None, **options: Any) -> tuple[list[float], L.LightningModule]:
        L.seed_everything(1 if resume is None else 999, verbose=False)
        module = ContrastiveRM(toy_model(), ADAMW, CONTRASTS[name], dropout_at="embeddings")
        recorder = LossRecorder()
        trainer = toy_trainer(tmp_path / folder, callbacks=[recorder, *options.pop("callbacks", [])], **options)
        trainer.fit(module, toy_data(), ckpt_path=resume, weights_only=True)
        return recorder.losses, module

    whole, finished = run("whole", max_epochs=2)
    checkpoint = ModelCheckpoint(
        tmp_path / "ckpt", filename="{step}", every_n_train_steps=4, save_top_k=-1, save_on_train_epoch_end=False
    )
    first, _ = run("first", callbacks=[checkpoint], enable_checkpointing=True, max_steps=4, max_epochs=2)
    rest, resumed = run("rest", resume=tmp_path / "ckpt" / "step=4.ckpt", max_epochs=2)
    assert first + rest == whole
    expected, found = weights(finished), weights(resumed)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_contrast_separates_what_ranking_alone_leaves_together() -> None:
    """Eight features that lie together, four chosen and four rejected, and a head: the ranking loss drives the four
    apart from the four, all chosen one way. With the contrast they rank as well and spread over the sphere."""
    rewards: list[Tensor] = []
    cosines: list[Tensor] = []
    for beta in (0.0, 1.0):
        torch.manual_seed(0)
        points = nn.Parameter(torch.tensor([1.0, 0, 0]).repeat(2, 4, 1) + 1e-3 * torch.randn(2, 4, 3))
        head = nn.Parameter(torch.tensor([0.0, 0, 1]))
        contrast = SimCSE(3, temperature=0.5)
        optimizer = torch.optim.SGD([points, head], lr=0.5)
        for _ in range(100):
            optimizer.zero_grad()
            chosen, rejected = points @ head
            ranking = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
            (ranking + beta * contrast(points, points, INDEX).loss).backward()
            optimizer.step()
        unit = torch.nn.functional.normalize(points.detach(), dim=-1)
        rewards.append((points @ head).detach())
        cosines.append(unit @ unit.mT)  # of chosen among themselves and of rejected
    for reward in rewards:
        assert (reward[0] - reward[1]).min() > 3
    assert cosines[0].min() > 0.999
    assert (cosines[1] - torch.eye(4)).max() < 0.6
