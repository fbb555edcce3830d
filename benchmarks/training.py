"""What a comparison of training speed needs of our side: made pairs, a meter, the trainer, and the work of a step.

It knows Lightning, batches and models; not who else is measured, and nothing of TRL.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import lightning as L
import torch
from torch import nn
from transformers import PreTrainedModel

from lightning_rm.batch import TokenBatch
from lightning_rm.data.rows import BadRow, Message, PairRow
from lightning_rm.data.synthetic.words import VOCABULARY
from lightning_rm.digests import key_digest
from lightning_rm.models.attention.last_layer import TOKEN_WISE
from lightning_rm.models.attention.rectangle import starts_of
from lightning_rm.models.backbone.layers import transformer_layers


@dataclass(frozen=True)
class Pairs:
    """The pairs of a run: a `Source`."""

    rows: list[PairRow]

    def fingerprint(self) -> str:
        return key_digest([asdict(row) for row in self.rows])

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        return iter(self.rows)


def made_rows(lengths: Iterable[tuple[int, int, int]], seed: int = 0) -> list[PairRow]:
    """Pairs of random words of the made world, a token each: words of the prompt, of chosen and of rejected."""
    draw = random.Random(seed)
    words = sorted(word for word in VOCABULARY if word.isalpha())

    def turn(role: str, length: int) -> tuple[Message, ...]:
        return ({"role": role, "content": " ".join(draw.choices(words, k=max(length, 1)))},)

    return [
        PairRow(turn("user", prompt), turn("assistant", chosen), turn("assistant", rejected), str(place), str(place))
        for place, (prompt, chosen, rejected) in enumerate(lengths)
    ]


@dataclass
class Meter:
    """What so many steps take: seconds by both clocks, cells through the embeddings, peak of CUDA memory.

    It starts at the beginning of an epoch, so that reading and laying out batches counts, and stops at the end of the
    epoch's last step, when a GPU has done all that it was given.

    Args:
        num_steps: of the epoch that is measured.
        epoch: which it is; those before it warm up.
    """

    num_steps: int
    epoch: int = 0
    cells: int = 0
    peak: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    _epochs: int = 0
    _steps: int = 0
    _start: tuple[float, float] | None = field(default=None)

    @property
    def running(self) -> bool:
        """Whether the epoch that is measured has begun."""
        return self._start is not None

    def watch(self, embeddings: nn.Module) -> None:
        def count(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if self.running:
                self.cells += inputs[0].numel()

        embeddings.register_forward_pre_hook(count)

    def start_epoch(self) -> None:
        self._epochs += 1
        if self._epochs <= self.epoch:
            return
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._start = (time.process_time(), time.perf_counter())

    def step(self) -> None:
        if self._start is None:
            return
        self._steps += 1
        if self._steps == self.num_steps:  # a device is waited for at the end alone
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                self.peak = torch.cuda.max_memory_allocated()
            (cpu, wall), now = self._start, (time.process_time(), time.perf_counter())
            self.seconds = (now[0] - cpu, now[1] - wall)


class LightningMeter(L.Callback):
    """A meter that Lightning drives."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._steps = 0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.meter.start_epoch()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if trainer.global_step > self._steps:  # not every micro-batch steps
            self._steps = trainer.global_step
            self.meter.step()


def lightning_trainer(gpu: bool, callbacks: Sequence[L.Callback] = (), **options: Any) -> L.Trainer:
    """Lightning's trainer as `conf/trainer` has it, without what writes and shows; `options` are its own."""
    defaults: dict[str, Any] = {
        "accelerator": "gpu" if gpu else "cpu",
        "devices": 1,
        "precision": "bf16-mixed" if gpu else "32-true",
        "max_epochs": 1,
        "gradient_clip_val": 1.0,
        "log_every_n_steps": 10,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return L.Trainer(**{**defaults, **options}, callbacks=[*callbacks])


class Work(NamedTuple):
    """What a backbone computes, counted.

    Args:
        tokens: that run through it.
        seen: tokens that each of them attends to, itself among them, summed.
        read: tokens that all of the last layer is computed at; of the others it needs keys and values alone.
        seen_by_read: as `seen`, of those.
    """

    tokens: int
    seen: int
    read: int
    seen_by_read: int

    def __add__(self, other: object) -> Work:
        assert isinstance(other, Work)
        return Work(*(a + b for a, b in zip(self, other, strict=True)))


NO_WORK = Work(0, 0, 0, 0)


def work_of(tokens: TokenBatch, causal: bool) -> Work:
    """What a grid costs, with its padding and with everything that stands on it twice.

    A decoder's token sees those up to its own position, an encoder's its whole sequence.
    """
    rows, columns = tokens.input_ids.shape
    read = None if tokens.read_cells is None else tokens.read_cells.cpu()
    if tokens.segments is None:
        whole, lengths = rows_of(rows, columns, causal), (columns,) * rows
    else:
        lengths = tokens.segments.lengths
        starts = starts_of(lengths, tokens.segments.back)
        each = zip(starts, lengths, strict=True)
        seen = sum(length * start + length * (length + 1) // 2 if causal else length**2 for start, length in each)
        whole = Work(tokens.num_tokens, seen, tokens.num_tokens, seen)
    if read is None:
        return whole
    if causal:
        return whole._replace(read=len(read), seen_by_read=int((tokens.position_ids.flatten()[read] + 1).sum()))
    return whole._replace(read=len(read), seen_by_read=sum(lengths))  # each sequence is read once


def rows_of(rows: int, columns: int, causal: bool) -> Work:
    """What rows of so many columns cost where all of the last layer is computed."""
    cells = rows * columns
    seen = cells * (columns + 1) // 2 if causal else cells * columns
    return Work(cells, seen, cells, seen)


def operations(backbone: PreTrainedModel, work: Work, passes: int = 3) -> int:
    """Floating-point operations of training on so much work, nothing computed again.

    2 a number of a matrix and token, and 4 a layer, unit of its heads, token and token that it sees, times the passes;
    embeddings are looked up, norms and activations cost nothing beside. The head runs where rewards are read.

    Args:
        backbone: whose weights are counted, without adapters.
        work: of all its steps.
        passes: 3 for a forward and the backward's two, 2 where weights are frozen and only what runs through them has a
            gradient, 1 for a forward alone.
    """
    config, embeddings = backbone.config, backbone.get_input_embeddings().weight
    inside, last = (set(map(id, part.parameters())) for part in (backbone.base_model, transformer_layers(backbone)[-1]))
    everywhere = where_read = 0
    for name, weight in backbone.named_parameters():
        if weight.ndim != 2 or weight is embeddings or ".lora_" in name:
            continue
        if id(weight) not in inside or (id(weight) in last and not TOKEN_WISE.isdisjoint(name.split("."))):
            where_read += weight.numel()
        else:
            everywhere += weight.numel()
    products = 2 * (everywhere * work.tokens + where_read * work.read)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    width = config.num_attention_heads * head
    attention = 4 * width * ((config.num_hidden_layers - 1) * work.seen + work.seen_by_read)
    return passes * (products + attention)
