"""Part 1: rewards and gradients are those of scoring one by one, whatever computes them.

The truth of a backbone is transformers' own classifier in float64, one sequence at a time, without padding. Errors are
norms of differences to it over its norm, of all rewards and of all gradients. Beside each stands the error of plain
scoring: the same classifier one by one in the same dtype. A case is equal where its errors are within twice those in
bfloat16, and four times those in float32, whose sums end up in another order.

Adapters and 4-bit weights have no such classifier: their truth is the reward model itself, one by one in float32. Of a
step of each module, and of a resumed run, weights are compared instead.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import lightning as L
import torch
import transformers
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training import Pairs, lightning_trainer, made_rows
from transformers import PreTrainedModel

from gpu_parts.models import (
    PAD,
    SEED,
    batch_of,
    checkpoint,
    classifier,
    hh_lengths,
    made_samples,
    methods,
    reward_model,
    with_lora,
)
from gpu_parts.run import Missing, Run, begun, installed
from lightning_rm.batch import LayoutName, PreferenceBatch, Sample
from lightning_rm.data.batches.layouts import LAYOUTS, padded
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.attention import segments
from lightning_rm.models.attention.last_layer import LastLayer
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.kernels import use_liger
from lightning_rm.models.dropout import add_dropout
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.base import PairwiseRM
from lightning_rm.modules.baseline import BaselineRM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
FACTOR = {"float32": 4.0, "bfloat16": 2.0}
"""How many times the error of plain scoring an error may be."""
FLOOR = 5e-6
"""Plain scoring may be right by luck: errors below this are none."""
STEP_BOUND = 1e-4
"""Of a module's step on a device to the same on a CPU, in float32: the norm of the difference over that of the step. It
shows matrix products of rounded numbers (tf32), too."""
LORA = LoraAdapter(rank=4, alpha=8)


@dataclass(frozen=True)
class Scored:
    """Rewards, sample by sample, and every gradient of their weighted sum, in float64."""

    reward: Tensor
    gradient: dict[str, Tensor]


@dataclass(frozen=True)
class Errors:
    """Of rewards and of gradients, to a truth."""

    reward: float
    gradient: float

    @classmethod
    def of(cls, found: Scored, truth: Scored) -> Errors:
        gradient = sum(float((found.gradient[name] - true).square().sum()) for name, true in truth.gradient.items())
        norm = sum(float(true.square().sum()) for true in truth.gradient.values())
        return cls(
            float((found.reward - truth.reward).norm() / truth.reward.norm()),
            (gradient / norm) ** 0.5,
        )

    def within(self, plain: Errors, dtype: str) -> bool:
        pairs = ((self.reward, plain.reward), (self.gradient, plain.gradient))
        return all(error <= max(FACTOR[dtype] * allowed, FLOOR) for error, allowed in pairs)


def main(cases: Path, seconds: float, tiny: bool) -> None:
    measure(begun("equality", cases, seconds, tiny, transformers, L))


def measure(run: Run) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    subjects = {name: Subject(run, config) for name, config in backbones(run.tiny).items()}
    for name, subject in subjects.items():
        for dtype in DTYPES:
            for layout in LAYOUTS if subject.model().causal else ("padded", "packed"):
                for way in ways(layout):
                    run.case(f"{name}, {layout}, {way}, {dtype}", partial(subject.compared, layout, way, dtype))
    for method in methods(lambda: reward_model(small(run.tiny), "cpu"), SGD):
        steps = Steps(run, method)
        for layout in ("shared_prefix",) if run.tiny else LAYOUTS:
            run.case(f"a step of {method}, {layout}", partial(steps.compared, layout))
    llama = subjects["llama"]
    for dtype in DTYPES:
        checkpointed = partial(llama.compared, "shared_prefix", "as chosen", dtype, prepare=checkpoint)
        run.case(f"llama, checkpointed, {dtype}", checkpointed)
        run.case(f"llama, LoRA, {dtype}", partial(adapted, run, llama, dtype, four_bit=False))
        run.case(f"llama, QLoRA, {dtype}", partial(adapted, run, llama, dtype, four_bit=True))
    run.case("a resumed run", partial(resumed, run))
    run.case("llama, flash_attention_2, bfloat16", partial(flash, run, llama))
    for dtype in DTYPES:
        for layout in ("padded", "shared_prefix"):
            compiled = partial(llama.compared, layout, "as chosen", dtype, prepare=RewardModel.compile_backbone)
            with torch.compiler.set_stance("force_eager" if run.tiny else "default"):  # a CPU compiles for a minute
                run.case(f"llama, compiled, {layout}, {dtype}", compiled, needs=0 if run.tiny else 20)
    for dtype in DTYPES:  # last: Liger replaces rotary embeddings for the whole process
        fused = partial(llama.compared, "shared_prefix", "as chosen", dtype, prepare=partial(liger, run))
        run.case(f"llama, Liger, {dtype}", fused)


class Subject:
    """A backbone on the device, some pairs, and the truth about them."""

    def __init__(self, run: Run, config: dict[str, Any]) -> None:
        self.run = run
        self.config = config
        longest = 40 if run.tiny else 512
        self.samples = made_samples(hh_lengths(4 if run.tiny else 8, longest), config["vocab_size"])
        self.truth = one_by_one(exact(self.plain_classifier()), self.samples)
        self.plain = {
            dtype: Errors.of(one_by_one(self.plain_classifier(), self.samples, self.precision(dtype)), self.truth)
            for dtype in DTYPES
        }

    def plain_classifier(self) -> PreTrainedModel:
        return classifier(self.config, self.run.device, attention="sdpa")

    def model(self) -> RewardModel:
        return reward_model(self.config, self.run.device)

    def precision(self, dtype: str) -> AbstractContextManager[Any]:
        return torch.autocast(self.run.device.type, torch.bfloat16) if dtype == "bfloat16" else nullcontext()

    def compared(
        self, layout: LayoutName, way: str, dtype: str, prepare: Callable[[RewardModel], None] = lambda _: None
    ) -> dict[str, Any]:
        """A layout's errors with the last layer where it is read, and with all of it."""
        if way == "varlen" and (not self.run.gpu or dtype == "float32"):
            raise Missing("not on a CPU" if not self.run.gpu else "not in float32")
        found: dict[str, Any] = {}
        good = True
        for last_layer in get_args(LastLayer):
            model = reward_model(self.config, self.run.device, last_layer=last_layer)
            prepare(model)
            with attending(way):
                scored = scored_by(model, self.samples, layout, self.precision(dtype))
            errors = Errors.of(scored, self.truth)
            good &= errors.within(self.plain[dtype], dtype)
            found |= {f"reward, {last_layer}": errors.reward, f"gradient, {last_layer}": errors.gradient}
        plain = self.plain[dtype]
        found |= {"plain reward": plain.reward, "plain gradient": plain.gradient}
        return {"state": "equal" if good else "not equal", **found}


def small(tiny: bool) -> dict[str, Any]:
    """A Llama's sizes that show errors and cost nothing."""
    sizes: dict[str, Any] = {"model_type": "llama", "vocab_size": 512, "max_position_embeddings": 1024}
    if tiny:
        sizes |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        return sizes | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    sizes |= {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4}
    return sizes | {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64}


def backbones(tiny: bool) -> dict[str, dict[str, Any]]:
    """Decoders, one of them with a window, and an encoder."""
    sizes = small(tiny)
    encoder = {name: value for name, value in sizes.items() if name not in ("head_dim", "num_key_value_heads")}
    encoder |= {"model_type": "bert", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if tiny:
        return {"llama": sizes, "bert": encoder}
    windowed = sizes | {"model_type": "mistral", "sliding_window": 64}
    return {"llama": sizes, "qwen3": sizes | {"model_type": "qwen3"}, "mistral": windowed, "bert": encoder}


def ways(layout: LayoutName) -> tuple[str, ...]:
    """The kernels that attention by segments has; rows of one sequence need none of them."""
    return ("as chosen",) if layout == "padded" else ("one by one", "one call", "varlen")


@contextmanager
def attending(way: str) -> Iterator[None]:
    """Attention by segments takes one way, whatever it would choose on this device."""
    chosen = {
        "one by one": segments._one_by_one,
        "one call": segments._in_one_call,
        "varlen": segments._without_padding,
    }
    if way not in chosen:
        yield
        return
    with patch.object(segments, "_way", lambda *_: chosen[way]):
        yield


def exact(model: PreTrainedModel) -> PreTrainedModel:
    """The same classifier in float64, its norms too, which transformers computes in float32."""
    for norm in model.modules():
        if type(norm).__name__.endswith("RMSNorm"):
            norm.forward = partial(exact_norm, norm)
    return model.double()


def exact_norm(norm: Any, hidden: Tensor) -> Tensor:
    return norm.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + norm.variance_epsilon)


def one_by_one(
    model: PreTrainedModel, samples: Sequence[Sample], precision: AbstractContextManager[Any] | None = None
) -> Scored:
    """What transformers makes of each sequence by itself."""
    model.train()
    device = next(model.parameters()).device
    with precision or nullcontext():
        rewards = [
            model(input_ids=torch.tensor([list(sequence)], device=device)).logits[0, 0]
            for sample in samples
            for sequence in sample.sequences
        ]
    return differentiated(torch.stack(rewards), model)


def scored_by(
    model: RewardModel,
    samples: Sequence[Sample],
    layout: LayoutName,
    precision: AbstractContextManager[Any],
) -> Scored:
    """What a reward model makes of all of them on a layout."""
    tokens = LAYOUTS[layout](samples, model.read_at, model.pad_id).to(next(model.parameters()).device)
    with precision:
        reward = model(tokens).reward
    return differentiated(reward.T.flatten(), model.backbone)


def alone(model: RewardModel, samples: Sequence[Sample], precision: AbstractContextManager[Any]) -> Scored:
    """What a reward model makes of each sequence by itself."""
    device = next(model.parameters()).device
    with precision:
        rewards = [
            model(replace(padded([Sample([sequence])], model.read_at, model.pad_id), read_cells=None).to(device)).reward
            for sample in samples
            for sequence in sample.sequences
        ]
    return differentiated(torch.cat(rewards).flatten(), model.backbone)


def differentiated(reward: Tensor, model: nn.Module) -> Scored:
    """Rewards, and the gradient of a sum in which no two have one weight."""
    model.zero_grad()
    weight = torch.linspace(-1, 1, len(reward), device=reward.device, dtype=torch.float64)
    (reward.double() * weight).sum().backward()
    gradient = {
        name: torch.zeros_like(value, dtype=torch.float64) if value.grad is None else value.grad.double()
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    return Scored(reward.detach().double(), gradient)


def liger(run: Run, model: RewardModel) -> None:
    installed("liger_kernel")
    if not run.gpu:
        raise Missing("not on a CPU")
    use_liger(model.backbone)


def flash(run: Run, subject: Subject) -> dict[str, Any]:
    """Transformers' own FlashAttention, on rows of one sequence."""
    installed("flash_attn")
    if not run.gpu:
        raise Missing("not on a CPU")
    model = RewardModel(classifier(subject.config, run.device, "flash_attention_2"), PAD)
    errors = Errors.of(scored_by(model, subject.samples, "padded", subject.precision("bfloat16")), subject.truth)
    good = errors.within(subject.plain["bfloat16"], "bfloat16")
    return {"state": "equal" if good else "not equal", "reward, where_read": errors.reward}


def adapted(run: Run, subject: Subject, dtype: str, four_bit: bool) -> dict[str, Any]:
    """The worst of the layouts with adapters, on plain weights or on 4-bit ones."""

    def made(weights: str) -> RewardModel:
        model = quantised(subject.model(), weights) if four_bit else with_lora(subject.model(), LORA)
        generator = torch.Generator().manual_seed(SEED)
        for name, value in model.backbone.named_parameters():
            if ".lora_B." in name:  # zero at first: adapters that do nothing would prove little
                value.data.copy_(0.05 * torch.randn(value.shape, generator=generator))
        return model

    if four_bit:
        if not run.gpu:
            raise Missing("not on a CPU")
        installed("bitsandbytes")
    truth = alone(made("float32"), subject.samples, nullcontext())
    plain = Errors.of(alone(made(dtype), subject.samples, subject.precision(dtype)), truth)
    found = [
        Errors.of(scored_by(made(dtype), subject.samples, layout, subject.precision(dtype)), truth)
        for layout in LAYOUTS
    ]
    worst = Errors(max(errors.reward for errors in found), max(errors.gradient for errors in found))
    return {
        "state": "equal" if worst.within(plain, dtype) else "not equal",
        "reward, where_read": worst.reward,
        "gradient, where_read": worst.gradient,
        "plain reward": plain.reward,
        "plain gradient": plain.gradient,
    }


def quantised(model: RewardModel, compute: str) -> RewardModel:
    """QLoRA of a model, through a folder, as it is loaded."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return RewardModel.from_pretrained(folder, pad_id=PAD, dtype=compute, lora=LORA, load_in_4bit=True)


class FixedViews(nn.Module):
    """In place of dropout on features: the second half of a batch lacks every seventh number, on every device."""

    def forward(self, feature: Tensor) -> Tensor:
        kept = (torch.arange(feature.shape[-1], device=feature.device) % 7 > 0).to(feature.dtype)
        first, second = feature.chunk(2, dim=1)
        return torch.cat([first, second * kept], dim=1)


SGD = partial(torch.optim.SGD, lr=0.1)


class Steps:
    """A step of a method on the device on a layout, to what it changes on a CPU on padded rows, in float32."""

    def __init__(self, run: Run, method: str) -> None:
        self.run, self.method = run, method
        lengths = hh_lengths(4, 40 if run.tiny else 256)
        self.pairs = made_samples(lengths, small(run.tiny)["vocab_size"])
        self.groups = made_samples([(prompt, *two, *two) for prompt, *two in lengths], 512, seed=1)

    @cached_property
    def truth(self) -> dict[str, Tensor]:
        return self.change(False, "padded")

    def compared(self, layout: LayoutName) -> dict[str, Any]:
        truth, found = self.truth, self.change(self.run.gpu, layout)
        size = sum(float(value.double().square().sum()) for value in truth.values())
        off = sum(float((found[name] - value).double().square().sum()) for name, value in truth.items())
        error = (off / size) ** 0.5
        return {"state": "equal" if error <= STEP_BOUND else "not equal", "step": error}

    def change(self, gpu: bool, layout: LayoutName) -> dict[str, Tensor]:
        """What a step adds to every weight."""
        make = partial(reward_model, small(self.run.tiny), "cpu")
        module = methods(make, SGD, views=None, members=3)[self.method]()
        if self.method in ("simcse", "swav"):
            module.model.feature_dropout = FixedViews()
        before = {name: value.detach().clone() for name, value in module.state_dict().items()}
        fit(module, [batch_of(self.pairs, layout, self.groups if module.reads_responses else ())], gpu)
        return {name: value.cpu() - before[name] for name, value in module.state_dict().items()}


def fit(module: PairwiseRM, batches: Sequence[PreferenceBatch], gpu: bool) -> None:
    """Train on batches as they are, in float32."""
    trainer = lightning_trainer(gpu, precision="32-true", gradient_clip_val=None, log_every_n_steps=1)
    trainer.fit(module, DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch))


def resumed(run: Run) -> dict[str, Any]:
    """A run that goes on from its checkpoint, to one that was not interrupted, and that one to itself."""
    rows = made_rows(hh_lengths(12, 100))
    tokenizer = world_tokenizer()
    config = small(run.tiny) | {"vocab_size": len(tokenizer)}

    def trained(folder: Path, checkpoint: Path | None = None) -> list[Tensor]:
        L.seed_everything(SEED, verbose=False)
        model = reward_model(config, "cpu")
        add_dropout(model, "features", 0.1)  # whose masks go on too
        data = PreferenceDataModule(tokenizer, Pairs(rows), batch_pairs=2, layout="shared_prefix", cache_dir=folder)
        module = BaselineRM(model, partial(torch.optim.AdamW, lr=1e-3))
        middle = ModelCheckpoint(folder, filename="middle", every_n_train_steps=3, save_top_k=-1)
        lightning_trainer(run.gpu, [middle], enable_checkpointing=True).fit(module, data, ckpt_path=checkpoint)
        return [value.detach().double().cpu() for value in module.parameters()]

    with tempfile.TemporaryDirectory() as folder:
        straight, again = (trained(Path(folder, name)) for name in ("straight", "again"))
        resumed = trained(Path(folder, "resumed"), Path(folder, "straight", "middle.ckpt"))
    start = [value.detach().double() for value in reward_model(config, "cpu").parameters()]
    moved = distance(straight, start)
    error, itself = distance(resumed, straight) / moved, distance(again, straight) / moved
    return {"state": "equal" if error <= max(2 * itself, FLOOR) else "not equal", "step": error, "plain step": itself}


def distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    return sum(float((a - b).square().sum()) for a, b in zip(first, second, strict=True)) ** 0.5
