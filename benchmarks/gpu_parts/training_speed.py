"""Part 3: pairs a second of training, ours beside TRL at its best, on models of real shapes and HH-RLHF's lengths.

Both sides train the same weights on the same pairs by the same fused AdamW, clipping and bfloat16 autocast, weights in
float32 (of 8B with LoRA: weights in bfloat16, adapters in float32), TRL by `RewardTrainer`, ours by Lightning's
trainer, the data module and every metric. A block trains two epochs from fresh weights and times the second, which has
seen every shape: from its beginning to the end of its last step, the device waited for there alone. Contenders take
turns; those that count most have two blocks, the second in reverse order.

An optimizer step is over the same number of pairs on both sides. Each contender has the largest micro-batch that fits:
where memory ends it is halved, and steps accumulate. Both sides sort pairs by length.

    trl_sorted          TRL, SDPA, no checkpointing, pairs from long to short: its least padding
    trl_checkpointed    the same with gradient checkpointing, as TRL ships, and larger micro-batches
    trl_grouped         TRL's own group_by_length
    trl_flash           trl_sorted by FlashAttention 2, where it is installed
    trl_liger           trl_sorted with Liger's kernels, where they are installed
    trl_compiled        trl_sorted with torch_compile
    padded, packed, shared_prefix    our layouts; the others are shared_prefix with what they are called:
                        `checkpointed`, `compiled`, `liger`, and the last layer computed `where_read` or `whole`

Operations are those of matrix products and attention in a forward and a backward (`training.operations`), nothing
computed again: 6 a weight and token, 12 a layer, unit of its heads, token and token that it sees; 4 and 8 where weights
are frozen. `mfu_needed` counts what is left when every common beginning is computed once and the last layer where it
is read, the same for all contenders; `mfu_computed` counts what went through the model, padding and repeats with it.
Both are shares of the device's data sheet, of 989.4 TFLOP/s for an H100 SXM.
"""

from __future__ import annotations

import gc
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import transformers
from torch import nn
from training import (
    NO_WORK,
    LightningMeter,
    Meter,
    Pairs,
    Work,
    lightning_trainer,
    made_rows,
    operations,
    rows_of,
    work_of,
)
from transformers import PreTrainedModel

from gpu_parts.models import PAD, checkpoint, classifier, hh_lengths, reward_model, shape_of, with_lora
from gpu_parts.run import Missing, Run, begun, installed
from lightning_rm.batch import LayoutName, Sample
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.attention.last_layer import LastLayer
from lightning_rm.models.backbone.adapters import LoraAdapter
from lightning_rm.models.backbone.kernels import use_liger
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.baseline import BaselineRM

LR = 1e-5
EPOCHS = 2
LORA = LoraAdapter(rank=16, alpha=32)


@dataclass(frozen=True)
class Setting:
    """What contenders are measured on.

    Args:
        model: a name of `SHAPES`.
        length: the context.
        pairs: of an optimizer step.
        steps: of an epoch.
        lora: whether adapters are trained in place of the weights, which are in bfloat16.
    """

    model: str
    length: int
    pairs: int
    steps: int = 6
    lora: bool = False


@dataclass(frozen=True)
class Contender:
    """A way to train.

    Args:
        layout: ours; None is TRL.
        order: TRL's.
        checkpointed: whether layers are computed again in the backward.
        compiled: whether torch compiles layers.
        liger: whether Liger's kernels run.
        flash: whether FlashAttention 2 runs.
        last_layer: ours, where it is not what the depth calls for.
    """

    layout: LayoutName | None = None
    order: str = "sequential"
    checkpointed: bool = False
    compiled: bool = False
    liger: bool = False
    flash: bool = False
    last_layer: LastLayer | None = None


CONTENDERS = {
    "trl_sorted": Contender(),
    "trl_checkpointed": Contender(checkpointed=True),
    "trl_grouped": Contender(order="group_by_length"),
    "trl_flash": Contender(flash=True),
    "trl_liger": Contender(liger=True),
    "trl_compiled": Contender(compiled=True),
    "padded": Contender("padded"),
    "packed": Contender("packed"),
    "shared_prefix": Contender("shared_prefix"),
    "where_read": Contender("shared_prefix", last_layer="where_read"),
    "whole": Contender("shared_prefix", last_layer="whole"),
    "checkpointed": Contender("shared_prefix", checkpointed=True),
    "compiled": Contender("shared_prefix", compiled=True),
    "liger": Contender("shared_prefix", liger=True),
}
FIRST = ("trl_sorted", "shared_prefix", "trl_flash", "trl_checkpointed", "shared_prefix", "trl_sorted")
THEN = ("compiled", "padded", "packed", "trl_grouped", "checkpointed")
LAST = ("trl_liger", "liger")
"""In the end, for all settings: Liger replaces a part of transformers' models for the whole process."""

ONE_B, HALF_B, EIGHT_B = "Llama-3.2-1B", "Qwen3-0.6B", "Llama-3.1-8B"
PLAN = (
    (Setting(ONE_B, 1024, 32), (*FIRST, *THEN, "whole")),
    (Setting(HALF_B, 1024, 32), (*FIRST, *THEN, "where_read")),
    (Setting(ONE_B, 2048, 16), (*FIRST, "compiled")),
    (Setting(HALF_B, 2048, 16), (*FIRST, "compiled")),
    (Setting(EIGHT_B, 1024, 16, 4, lora=True), ("trl_sorted", "shared_prefix", "trl_checkpointed", "checkpointed")),
    (Setting(ONE_B, 4096, 8), FIRST),
    (Setting(HALF_B, 4096, 8), FIRST),
    (Setting(ONE_B, 1024, 32), LAST),
    (Setting(HALF_B, 1024, 32), LAST),
    (Setting(ONE_B, 1024, 32), ("trl_compiled",)),
)
TINY = (
    (Setting(ONE_B, 64, 4, 2), tuple(CONTENDERS)),
    (Setting(EIGHT_B, 64, 4, 2, lora=True), ("trl_sorted", "shared_prefix")),
)
COMPILES = 60.0
"""Seconds that compiling may take, more than the block itself."""


def main(cases: Path, seconds: float, tiny: bool) -> None:
    measure(begun("training_speed", cases, seconds, tiny, transformers, L))


def measure(run: Run) -> None:
    took = 10.0
    for setting, names in TINY if run.tiny else PLAN:
        with tempfile.TemporaryDirectory() as folder:
            blocks = Blocks(run, setting, Path(folder))
            labels = {"model": setting.model, "length": setting.length}
            origin = f"{setting.model} at {setting.length}" + (", LoRA" if setting.lora else "")
            if "trl_sorted" in names:
                run.case(f"{origin}, TRL's rewards and ours", blocks.agreement, needs=took)
            for name in names:
                needs = 1.5 * took + (COMPILES if CONTENDERS[name].compiled and not run.tiny else 0.0)
                start = time.monotonic()
                with torch.compiler.set_stance("force_eager" if run.tiny else "default"):
                    run.case(f"{origin}, {name}", partial(blocks.measured, name), needs, contender=name, **labels)
                took = max(time.monotonic() - start, 0.5 * took) if not CONTENDERS[name].compiled else took


class Blocks:
    """The contenders on one setting.

    Args:
        run: the part.
        setting: the model and the pairs.
        folder: for tokenised pairs.
    """

    def __init__(self, run: Run, setting: Setting, folder: Path) -> None:
        self.run, self.setting, self.folder = run, setting, folder
        self.tokenizer = world_tokenizer()
        self.config = shape_of(setting.model, run.tiny)
        # A token a word; the template adds BOS and a role to the prompt, a role and EOS to a response.
        lengths = hh_lengths(setting.pairs * setting.steps, setting.length)
        self.pairs = Pairs(made_rows([(max(a - 2, 1), max(b - 2, 1), max(c - 2, 1)) for a, b, c in lengths]))
        self.fits: dict[str, int] = {}

    def measured(self, name: str) -> dict[str, Any]:
        """A block with the largest micro-batch that fits."""
        contender = CONTENDERS[name]
        if contender.layout is None:
            installed("trl")
        if contender.flash:
            installed("flash_attn")
        if contender.liger:
            installed("liger_kernel")
        if (contender.flash or contender.liger) and not self.run.gpu:
            raise Missing("not on a CPU")
        pairs = self.fits.get(name, self.setting.pairs)
        while True:
            gc.collect()
            if self.run.gpu:
                torch.cuda.empty_cache()
            try:
                meter, work = (self.trl if contender.layout is None else self.ours)(contender, pairs)
            except torch.OutOfMemoryError:
                if pairs == 1:
                    raise
                pairs //= 2  # outside of this clause the error, and all that it holds, is gone
            else:
                self.fits[name] = pairs
                return self.summary(meter, work, pairs)

    def ours(self, contender: Contender, pairs: int) -> tuple[Meter, Work]:
        """Lightning's trainer."""
        model = self.model(contender.last_layer)
        if contender.checkpointed:
            checkpoint(model)
        if contender.liger:
            use_liger(model.backbone)
        if contender.compiled:
            model.compile_backbone()
        meter = self.meter(model.backbone.get_input_embeddings())
        trainer = lightning_trainer(
            self.run.gpu,
            [LightningMeter(meter)],
            max_epochs=EPOCHS,
            accumulate_grad_batches=self.setting.pairs // pairs,
        )
        trainer.fit(
            BaselineRM(model, partial(torch.optim.AdamW, lr=LR, fused=True)), self.data(contender.layout, pairs)
        )
        assert contender.layout is not None
        return meter, self.work(contender.layout, pairs, model.last_layer)

    def trl(self, contender: Contender, pairs: int) -> tuple[Meter, Work]:
        """TRL's trainer."""
        from trl_training import TrlMeter  # only here is TRL imported

        trainer = self.trl_trainer(contender, pairs)
        meter = self.meter(trainer.model.get_input_embeddings())
        work: list[Work] = []

        def count(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if meter.running:
                work.append(rows_of(*inputs[0].shape, causal=True))

        trainer.model.get_input_embeddings().register_forward_pre_hook(count)
        trainer.add_callback(TrlMeter(meter))
        trainer.train()
        return meter, sum(work, NO_WORK)

    def meter(self, embeddings: nn.Module) -> Meter:
        meter = Meter(self.setting.steps, epoch=EPOCHS - 1)
        meter.watch(embeddings)
        return meter

    def model(self, last_layer: LastLayer | None = None) -> RewardModel:
        """Ours, fresh."""
        dtype = "bfloat16" if self.setting.lora else "float32"
        model = reward_model(self.config, self.run.device, dtype, last_layer)
        return with_lora(model, LORA) if self.setting.lora else model

    def data(self, layout: LayoutName, pairs: int) -> PreferenceDataModule:
        return PreferenceDataModule(
            self.tokenizer,
            self.pairs,
            max_tokens=self.setting.length + 8,
            layout=layout,
            order="length",
            batch_pairs=pairs,
            cache_dir=self.folder / "cache",
        )

    @cached_property
    def tokenised(self) -> Any:
        """Our ids as a data set for TRL: both sides train on the same tokens."""
        import datasets

        data = self.data("padded", self.setting.pairs)
        data.setup("fit")
        pairs = data.datasets["train"]
        ids = [[list(sequence) for sequence in pairs.sample(row).sequences] for row in range(len(pairs))]
        rows = {
            "chosen_ids": [chosen for chosen, _ in ids],
            "rejected_ids": [rejected for _, rejected in ids],
            "length": [max(map(len, pair)) for pair in ids],
        }
        if len(pairs) != self.setting.pairs * self.setting.steps:
            raise ValueError(f"{len(pairs)} pairs are left of {self.setting.pairs * self.setting.steps}")
        return datasets.Dataset.from_dict(rows)

    def trl_trainer(self, contender: Contender, pairs: int) -> Any:
        from trl_training import longest_first, trl_trainer

        lora: Any = None
        if self.setting.lora:
            from peft import LoraConfig, TaskType

            lora = LoraConfig(
                task_type=TaskType.SEQ_CLS,
                r=LORA.rank,
                lora_alpha=int(LORA.alpha),
                target_modules="all-linear",
                modules_to_save=["score"],
            )
        return trl_trainer(
            self.plain_model("flash_attention_2" if contender.flash else "sdpa"),
            longest_first(self.tokenised) if contender.order == "sequential" else self.tokenised,
            self.tokenizer,
            self.folder / "trl",
            order=contender.order,
            peft_config=lora,
            per_device_train_batch_size=pairs,
            gradient_accumulation_steps=self.setting.pairs // pairs,
            num_train_epochs=EPOCHS,
            max_length=None,
            learning_rate=LR,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            use_cpu=not self.run.gpu,
            bf16=self.run.gpu,
            gradient_checkpointing=contender.checkpointed,
            use_liger_kernel=contender.liger,
            torch_compile=contender.compiled,
        )

    def plain_model(self, attention: str) -> PreTrainedModel:
        """The same weights as a model of transformers."""
        dtype = "bfloat16" if self.setting.lora else "float32"
        return classifier(self.config, self.run.device, attention, dtype)

    def work(self, layout: LayoutName, pairs: int, last_layer: LastLayer) -> Work:
        """Of an epoch."""
        grids = (batch.tokens for batch in self.data(layout, pairs).train_dataloader())
        if last_layer == "whole":
            grids = (replace(tokens, read_cells=None) for tokens in grids)
        return sum((work_of(tokens, causal=True) for tokens in grids), NO_WORK)

    def summary(self, meter: Meter, work: Work, pairs: int) -> dict[str, Any]:
        """What is said of a block."""
        seconds, num_pairs = meter.seconds[1], self.setting.pairs * self.setting.steps
        needed = self.needed
        found = {
            "micro_batch": pairs,
            "pairs_a_second": num_pairs / seconds,
            "tokens_a_second": work.tokens / seconds,
            "tokens_a_pair": work.tokens / num_pairs,
            "step_ms": 1000 * seconds / self.setting.steps,
        }
        if self.run.peak is not None:
            count = partial(operations, self.meta_model, passes=2 if self.setting.lora else 3)
            found["mfu_needed"] = count(needed) / seconds / self.run.peak
            found["mfu_computed"] = count(work) / seconds / self.run.peak
        if meter.peak:
            found["peak_gb"] = meter.peak / 1e9
        return found

    @cached_property
    def needed(self) -> Work:
        """Of an epoch where nothing is computed twice."""
        return self.work("shared_prefix", self.setting.pairs, "where_read")

    @cached_property
    def meta_model(self) -> PreTrainedModel:
        """The model's sizes."""
        return classifier(self.config, "meta")

    def agreement(self) -> dict[str, Any]:
        """TRL's rewards of the shortest pairs and ours, of one set of weights; the largest difference of a layout."""
        installed("trl")
        ids = self.tokenised.sort("length")[:4]
        trainer = self.trl_trainer(CONTENDERS["trl_sorted"], 1)
        examples = trainer.data_collator([{name: ids[name][row] for name in ids} for row in range(4)])
        model = self.model().eval()
        samples = [Sample(pair) for pair in zip(ids["chosen_ids"], ids["rejected_ids"], strict=True)]
        with torch.no_grad():
            examples = {name: value.to(self.run.device) for name, value in examples.items()}
            theirs = trainer.model(**examples).logits.float().view(2, -1)
            off = [
                (model(layout(samples, "last", PAD).to(self.run.device)).reward - theirs).norm() / theirs.norm()
                for layout in LAYOUTS.values()
            ]
        error = float(torch.stack(off).max())
        bound = 0.05 if self.setting.lora else 1e-4  # weights in bfloat16
        return {"state": "equal" if error <= bound else "not equal", "difference": error}
