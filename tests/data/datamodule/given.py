"""Given rows, a data module over them, and a recorder of what a Trainer is handed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lightning_rm.batch import GroupBatch, PreferenceBatch
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import GroupRow, PairRow
from lightning_rm.data.tokenize.templates import DECODER_TEMPLATE
from tests.toy import Rows

NUM_TRAIN = 23
"""12 micro-batches of 2 pairs an epoch, the last of one."""
NUM_GROUPS = 11
"""Groups of responses, read by threes."""


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; words it does not know are one token too."""
    words = ["[UNK]", "[PAD]", "[EOS]", "User", "Assistant", ":", *(f"w{i}" for i in range(60))]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    made = PreTrainedTokenizerFast(tokenizer_object=model, unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]")
    made.chat_template = DECODER_TEMPLATE
    return made


def pair(i: int, prompt: int | None = None, **columns: Any) -> PairRow:
    """Pair i: chosen `wi`, rejected i + 2 words `w0`, so that all pairs differ in length."""
    prompt = i if prompt is None else prompt
    return PairRow(
        prompt=({"role": "user", "content": f"w{prompt % 60}"},),
        chosen=({"role": "assistant", "content": f"w{i % 60}"},),
        rejected=({"role": "assistant", "content": " ".join(["w0"] * (i + 2))},),
        id=str(i),
        prompt_id=str(prompt),
        **columns,
    )


def source(num_pairs: int, **columns: Any) -> Rows:
    return Rows([pair(i, **columns) for i in range(num_pairs)])


def group(i: int, k: int = 3) -> GroupRow:
    """Group i: k responses to prompt `wi`."""
    return GroupRow(
        prompt=({"role": "user", "content": f"w{i}"},),
        responses=tuple(({"role": "assistant", "content": f"w{i} w{j}"},) for j in range(k)),
        id=str(i),
        prompt_id=str(i),
        gold=tuple(float(j) for j in range(k)),
    )


def groups(num_groups: int) -> Rows:
    return Rows([group(i, 2 + i % 2) for i in range(num_groups)])


def data(**options: Any) -> PreferenceDataModule:
    sets = {"train": source(NUM_TRAIN), "val": source(5), "test": {"one": source(3), "two": source(4)}}
    return PreferenceDataModule(tokenizer(), **({"batch_pairs": 2} | sets | options))


class Recorder(L.LightningModule):
    """One weight, whose loss is the mean over pairs of weight * row; remembers all that it is shown."""

    def __init__(self, asks_for_steps: bool = False, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.asks_for_steps = asks_for_steps
        self.fail_at = fail_at
        self.read: list[tuple[int, ...]] = []
        self.said: list[list[tuple[int, ...]]] = []  # the groups of responses that came with each micro-batch
        self.gradients: list[float] = []
        self.shown: dict[tuple[str, str, int], list[int]] = {}

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        if len(self.read) == self.fail_at:
            raise RuntimeError("the machine fails")
        self.read.append(tuple(batch.row.tolist()))
        self.said.append([tuple(responses.row.tolist()) for responses in batch.responses])
        return (self.weight * batch.row).mean() * batch.scale

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        assert self.weight.grad is not None
        self.gradients.append(self.weight.grad.item())

    def validation_step(self, batch: PreferenceBatch | GroupBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.shown.setdefault(("val", batch.data_set, dataloader_idx), []).extend(batch.row[batch.valid].tolist())

    def test_step(self, batch: PreferenceBatch | GroupBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.shown.setdefault(("test", batch.data_set, dataloader_idx), []).extend(batch.row[batch.valid].tolist())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.asks_for_steps:  # Lightning makes the train loader for this, before it reads a checkpoint
            assert self.trainer.estimated_stepping_batches > 0
        return torch.optim.SGD(self.parameters(), lr=0.0)


def trainer(folder: Path, **options: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    defaults = {"accelerator": "cpu", "max_epochs": 2, "enable_checkpointing": "callbacks" in options}
    return L.Trainer(**(quiet | defaults | {"default_root_dir": folder, "use_distributed_sampler": False} | options))


def every_step(folder: Path) -> ModelCheckpoint:
    """Keeps a checkpoint of every optimizer step: `step=4.ckpt`."""
    return ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=1)


def every_epoch(folder: Path, at_epoch_end: bool) -> ModelCheckpoint:
    """Keeps a checkpoint of every epoch's end, or of every end of a validation."""
    return ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_epochs=1, save_on_train_epoch_end=at_epoch_end)


def with_responses(**options: Any) -> dict[str, Any]:
    return {"responses": groups(NUM_GROUPS), "batch_groups": 3, **options}
