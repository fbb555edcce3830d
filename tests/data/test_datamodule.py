"""The data module under a real Trainer: what is read, in which order, on which rank, and what a resumed run reads."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import RunningStage
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lightning_rm.batch import GroupBatch, PreferenceBatch, Reading
from lightning_rm.data.batches.group_stream import GroupStream
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.batches.repeats import sequence_index
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import BadRow, GroupRow, PairRow
from lightning_rm.data.store.report import RowsLeftOut
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.templates import DECODER_TEMPLATE
from lightning_rm.strength import adaptive_margin, flip, label_smoothing
from tests.float64 import same

NUM_TRAIN = 23
"""12 micro-batches of 2 pairs an epoch, the last of one."""
NUM_GROUPS = 11
"""Groups of responses, read by threes."""


@dataclass(frozen=True)
class Rows:
    """A source of given rows."""

    rows: Sequence[PairRow | GroupRow | BadRow]

    def fingerprint(self) -> str:
        return repr(self.rows)

    def __iter__(self) -> Iterator[PairRow | GroupRow | BadRow]:
        return iter(self.rows)


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


@pytest.fixture(autouse=True)
def _no_advice() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*(does not have many workers|Checkpoint directory|when using `ckpt_path`).*"
        )
        yield


# What is read


def test_a_batch_is_layout_columns_and_place() -> None:
    data_module = data(train=Rows([replace(pair(i), margin=i / 2, subset=f"s{i % 2}") for i in range(4)]), seed=3)
    data_module.setup("fit")
    (first, second) = data_module.train_dataloader()
    assert (first.num_pairs, first.data_set, first.scale) == (2, "train", 1.0)
    assert first.subset_names == ("s0", "s1")
    assert sorted([*first.row.tolist(), *second.row.tolist()]) == [0, 1, 2, 3]
    assert (first.margin * 2).tolist() == first.row.tolist()
    assert (first.subset == first.row % 2).all()
    assert first.valid.tolist() == [True, True]
    assert first.tokens.reward_index.shape == (2, 2)
    lengths = data_module.datasets["train"].lengths[first.row.numpy()]
    assert first.tokens.mask.sum() == lengths.sum()
    eos = data_module.tokenizer.eos_token_id
    assert (first.tokens.input_ids.flatten()[first.tokens.reward_index] == eos).all()


def test_layout_and_reading_place_are_handed_on() -> None:
    data_module = data(layout="packed", reading=Reading("first"), batch_pairs=None, batch_tokens=100)
    batch = next(iter(data_module.train_dataloader()))
    assert batch.tokens.input_ids.shape[0] == 1
    assert batch.num_pairs > 2
    assert batch.tokens.num_tokens <= 100
    assert (batch.tokens.position_ids.flatten()[batch.tokens.reward_index] == 0).all()


LONG_PROMPT = ({"role": "user", "content": " ".join(["w1"] * 20)},)


def test_a_shared_prompt_is_read_once() -> None:
    rows = [replace(pair(i), prompt=LONG_PROMPT, prompt_id=str(i)) for i in range(4)]
    grids = [next(iter(data(train=Rows(rows), layout=layout).train_dataloader())) for layout in LAYOUTS]
    padded, packed, shared = (batch.tokens for batch in grids)
    assert shared.num_tokens < packed.num_tokens <= padded.num_tokens
    read = {tuple(tokens.input_ids.flatten()[tokens.reward_index].flatten().tolist()) for tokens in (packed, shared)}
    assert len(read) == 1


@pytest.mark.parametrize(
    ("options", "prompt", "layout", "reason"),
    [
        ({"reading": Reading(fast_layouts=("padded",))}, LONG_PROMPT, "padded", "at a cost or not at all"),
        ({"reading": Reading("first")}, LONG_PROMPT, "packed", "tokens see what follows them"),
        ({}, LONG_PROMPT, "shared_prefix", "saves [1-9][0-9]% of its tokens"),
        ({}, pair(1).prompt, "packed", "would save only 0.0%"),
    ],
)
def test_layout_auto_says_what_it_took_and_why(options: dict[str, Any], prompt: Any, layout: str, reason: str) -> None:
    rows = [replace(pair(i), prompt=prompt) for i in range(4)]
    data_module = data(train=Rows(rows), layout="auto", **options)
    assert data_module.layout == layout
    assert re.search(reason, data_module.choice.reason)


def test_a_layout_opens_no_set_that_is_not_read() -> None:
    for layout in ("padded", "auto"):
        data_module = data(layout=layout)
        data_module.setup("validate")
        assert len(list(data_module.val_dataloader()[0])) == 3
        assert list(data_module.datasets) == ["val"]


def test_responses_alone_have_a_layout() -> None:
    data_module = PreferenceDataModule(tokenizer(), test_responses=groups(3), layout="auto")
    (loader,) = data_module.test_dataloader()
    assert next(iter(loader)).num_groups == 3
    assert data_module.layout == "shared_prefix"


def test_a_token_budget_knows_prompts_by_their_tokens() -> None:
    """Twenty prompts of equal length under one prompt_id are twenty prompts."""
    words = [({"role": "user", "content": " ".join([f"w{i}"] * 20)},) for i in range(20)]
    rows = [replace(pair(1), id=str(i), prompt=prompt, prompt_id="same") for i, prompt in enumerate(words)]
    batches = list(data(train=Rows(rows), layout="shared_prefix", batch_tokens=160).train_dataloader())
    assert sum(batch.num_pairs for batch in batches) == 20
    assert max(batch.tokens.num_tokens for batch in batches) <= 160


def test_an_encoder_shares_no_prefix() -> None:
    with pytest.raises(ValueError, match="use layout=packed, padded or auto"):
        data(layout="shared_prefix", reading=Reading("first"))


def test_every_train_pair_once_an_epoch(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path).fit(module, data())
    first, second = module.read[:12], module.read[12:]
    assert sorted(row for batch in first for row in batch) == list(range(NUM_TRAIN))
    assert sorted(row for batch in second for row in batch) == list(range(NUM_TRAIN))
    assert first != second


def test_the_seed_alone_decides_the_order(tmp_path: Path) -> None:
    def read(seed: int) -> list[tuple[int, ...]]:
        module = Recorder()
        trainer(tmp_path, max_epochs=1).fit(module, data(seed=seed))
        return module.read

    assert read(0) == read(0)
    assert read(0) != read(1)


def test_torch_random_numbers_are_left_alone() -> None:
    data_module = data()
    data_module.setup()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert sum(batch.num_pairs for batch in data_module.train_dataloader()) == NUM_TRAIN
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("accumulate", [1, 3, 5])
def test_every_step_is_on_the_mean_over_its_pairs(tmp_path: Path, accumulate: int) -> None:
    """12 micro-batches: the last window is short for accumulate 5, and the last micro-batch has one pair."""
    module = Recorder()
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=accumulate).fit(module, data())
    steps = [module.read[i : i + accumulate] for i in range(0, 12, accumulate)]
    means = [float(np.mean([row for batch in step for row in batch])) for step in steps]
    assert module.gradients == same(means)


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    """Steps of 6 pairs, in micro-batches of 2 or at once."""
    parts, whole = Recorder(), Recorder()
    trainer(tmp_path, accumulate_grad_batches=3).fit(parts, data(order="random"))
    trainer(tmp_path).fit(whole, data(order="random", batch_pairs=6))
    assert parts.gradients == same(whole.gradients)
    assert len(whole.gradients) == 8


def test_a_limit_ends_the_last_step(tmp_path: Path) -> None:
    """5 of 12 micro-batches with accumulate 2: the third step holds one micro-batch and is on its mean."""
    module = Recorder()
    trainer(tmp_path, max_epochs=1, accumulate_grad_batches=2, limit_train_batches=5).fit(module, data())
    assert len(module.read) == 5
    assert module.gradients[-1] == same(np.mean(module.read[-1]))


def test_overfitting_reads_the_same_batches_every_epoch(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path, overfit_batches=2, max_epochs=3).fit(module, data())
    assert module.read[:2] * 3 == module.read


def test_prompt_order_shares_responses() -> None:
    """All 28 pairs of 8 responses, 14 a batch: 8 sequences a batch at most instead of 28."""
    chosen_rejected = [(a, b) for a in range(8) for b in range(a)]
    rows = [
        replace(pair(0), id=f"{a}{b}", chosen=pair(a).chosen, rejected=({"role": "assistant", "content": f"w{b}"},))
        for a, b in chosen_rejected
    ]
    data_module = data(train=Rows(rows), order="prompt", batch_pairs=14)
    batches = list(data_module.train_dataloader())
    assert [batch.tokens.input_ids.shape[0] <= 8 for batch in batches] == [True, True]
    index = sequence_index(data_module.datasets["train"])
    assert index.tolist()[:3] == [[0, 1], [2, 1], [2, 0]]


# Evaluation and sets


def test_named_sets_are_told_apart_by_their_place(tmp_path: Path) -> None:
    module, data_module = Recorder(), data()
    trainer(tmp_path, max_epochs=1).fit(module, data_module)
    trainer(tmp_path).test(module, data_module, verbose=False)
    assert (data_module.val_names, data_module.test_names) == (("val",), ("one", "two"))
    assert {key: sorted(rows) for key, rows in module.shown.items()} == {
        ("val", "val", 0): [0, 1, 2, 3, 4],
        ("test", "one", 0): [0, 1, 2],
        ("test", "two", 1): [0, 1, 2, 3],
    }


def test_evaluation_batches_have_a_size_of_their_own() -> None:
    assert [batch.num_pairs for batch in data(eval_batch_pairs=4).val_dataloader()[0]] == [4, 1]
    assert [batch.num_pairs for batch in data().val_dataloader()[0]] == [2, 2, 1]
    budget = data(batch_tokens=100, eval_batch_pairs=3)
    assert [batch.num_pairs for batch in budget.val_dataloader()[0]] == [3, 2]


def test_a_run_without_validation(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path, max_epochs=1).fit(module, data(val=None))
    assert len(module.read) == 12
    assert module.shown == {}


def test_held_out_prompts_stand_on_one_side(tmp_path: Path) -> None:
    rows = Rows([pair(i, prompt=i // 3) for i in range(60)])
    data_module = data(train=rows, val=None, val_fraction=0.25)
    data_module.setup("fit")

    def prompts(name: str) -> set[str]:
        pairs = data_module.datasets[name]
        return {pairs.text(i).prompt for i in range(len(pairs))}

    assert data_module.val_names == ("val",)
    assert prompts("train") | prompts("val") == {f"w{i}" for i in range(20)}
    assert not prompts("train") & prompts("val")
    assert 1 <= len(prompts("val")) <= 10


def test_the_split_does_not_depend_on_the_seed() -> None:
    def held_out(seed: int) -> list[str]:
        data_module = data(val=None, val_fraction=0.3, seed=seed)
        data_module.setup("validate")
        pairs = data_module.datasets["val"]
        return [pairs.text(i).id for i in range(len(pairs))]

    assert held_out(0) == held_out(1)


def test_a_path_is_a_source(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "w1", "chosen": "w2", "rejected": "w3 w3"}) + "\n")
    data_module = PreferenceDataModule(tokenizer(), train=path, val=str(path), test={"again": path})
    data_module.setup()
    assert {name: len(pairs) for name, pairs in data_module.datasets.items()} == {"train": 1, "val": 1, "again": 1}


def test_only_what_a_stage_needs_is_opened() -> None:
    data_module = data()
    data_module.setup("validate")
    assert list(data_module.datasets) == ["val"]
    data_module.setup("fit")
    opened = data_module.datasets["val"]
    data_module.setup("fit")
    assert list(data_module.datasets) == ["val", "train"]
    assert data_module.datasets["val"] is opened
    data_module.prepare_data()
    assert list(data_module.datasets) == ["val", "train", "one", "two"]


def test_reports_count_what_was_left_out() -> None:
    data_module = data(max_tokens=12)
    data_module.setup("fit")
    report = data_module.reports["train"]
    assert (report.name, report.read) == ("train", NUM_TRAIN)
    assert 0 < report.kept < NUM_TRAIN
    assert report.reasons == {"overlong": NUM_TRAIN - report.kept}


def test_workers_read_the_same(tmp_path: Path) -> None:
    alone, helped = Recorder(), Recorder()
    trainer(tmp_path).fit(alone, data())
    trainer(tmp_path).fit(helped, data(num_workers=2))
    assert helped.read == alone.read
    assert helped.shown == alone.shown


def test_sizes_that_are_hardly_meant_are_said() -> None:
    rows = [{"prompt": f"name {n}", "chosen": "axe", "rejected": "cat"} for n in range(20)]
    data = PreferenceDataModule(world_tokenizer(), rows, val_fraction=0.9, batch_pairs=64)
    with pytest.warns(UserWarning, match="pairs are held out as val, more than the") as said:
        data.train_dataloader()
    num_pairs = len(data.datasets["train"])
    assert any(f"there are {num_pairs} training pairs, one batch holds them all" in str(one.message) for one in said)


# Responses


def said(num_epochs: int, accumulate: int, rank: int = 0, world_size: int = 1, num_steps: int = 12) -> list[Any]:
    """The naive way, micro-batch by micro-batch: a window's groups come with its first."""
    stream = GroupStream(NUM_GROUPS, 3, rank, world_size)
    expected: list[Any] = []
    for step in range(num_epochs * num_steps):
        place = step % num_steps
        window = min(accumulate, num_steps - place) if place % accumulate == 0 else 0
        expected.append([stream.rows(step + later) for later in range(window)])
    return expected


def with_responses(**options: Any) -> dict[str, Any]:
    return {"responses": groups(NUM_GROUPS), "batch_groups": 3, **options}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 3, 5])
def test_a_step_begins_with_responses_for_each_of_its_micro_batches(
    tmp_path: Path, accumulate: int, num_workers: int
) -> None:
    """The last window of accumulate 5 has two micro-batches, and two batches of responses."""
    module, plain = Recorder(), Recorder()
    options = {"accumulate_grad_batches": accumulate}
    trainer(tmp_path, **options).fit(module, data(**with_responses(num_workers=num_workers)))
    trainer(tmp_path, **options).fit(plain, data())
    assert module.said == said(2, accumulate)
    assert plain.said == [[]] * 24
    assert (module.read, module.gradients) == (plain.read, plain.gradients)


def test_a_limit_ends_the_responses_too(tmp_path: Path) -> None:
    module = Recorder()
    options = {"accumulate_grad_batches": 3, "limit_train_batches": 5}
    trainer(tmp_path, **options).fit(module, data(**with_responses()))
    assert [len(batches) for batches in module.said] == [3, 0, 0, 2, 0] * 2
    assert module.said[5] == said(2, 3)[12]


def test_overfitting_reads_the_same_responses_every_epoch(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path, overfit_batches=2, max_epochs=3).fit(module, data(**with_responses()))
    assert module.said[:2] * 3 == module.said == said(1, 1)[:2] * 3


def test_a_batch_of_responses_is_layout_columns_and_place() -> None:
    data_module = data(**with_responses(layout="packed"))
    batch = next(iter(data_module.train_dataloader()))
    (responses,) = batch.responses
    assert (responses.data_set, responses.num_groups, responses.tokens.input_ids.shape[0]) == ("responses", 3, 1)
    assert responses.present.sum(0).tolist() == [2 + row % 2 for row in responses.row.tolist()]
    eos = data_module.tokenizer.eos_token_id
    assert (responses.tokens.input_ids.flatten()[responses.tokens.reward_index] == eos).all()
    assert batch.to("cpu").responses[0].gold.shape == responses.gold.shape


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_a_resumed_run_reads_the_same_responses(tmp_path: Path, accumulate: int, num_workers: int) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate}
    kept = {"callbacks": [every_step(tmp_path)]}
    whole = Recorder()
    trainer(tmp_path, **options, **kept).fit(whole, data(**with_responses()))
    steps_an_epoch = -(-12 // accumulate)
    for step in (1, 2, steps_an_epoch, steps_an_epoch + 1):
        epoch, within = divmod(step, steps_an_epoch)
        done = 12 * epoch + min(12, within * accumulate)
        rest = Recorder(asks_for_steps=True)
        trainer(tmp_path, **options).fit(
            rest,
            data(**with_responses(num_workers=num_workers)),
            ckpt_path=tmp_path / f"step={step}.ckpt",
            weights_only=True,
        )
        assert (rest.read, rest.said) == (whole.read[done:], whole.said[done:]), f"resumed after step {step}"


def test_a_run_resumed_within_a_step_begins_with_the_responses_of_that_step(tmp_path: Path) -> None:
    options: dict[str, Any] = {"val_check_interval": 3, "accumulate_grad_batches": 2}
    whole, rest = Recorder(), Recorder()
    trainer(tmp_path, **options, callbacks=[every_epoch(tmp_path, False)]).fit(whole, data(**with_responses()))
    with pytest.warns(UserWarning, match="gradients of 1 micro-batches are lost"):
        trainer(tmp_path, **options).fit(
            rest, data(**with_responses()), ckpt_path=tmp_path / "step=1.ckpt", weights_only=True
        )
    assert (whole.said[2], whole.said[3]) == (rest.said[0], [])
    assert rest.said[1:] == whole.said[4:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_groups": 2}, "batch_groups=3, now 2"),
        ({"responses": groups(4)}, "groups=11, now 4"),
        ({"responses": Rows([*groups(10).rows, group(99)])}, r"written with responses=\w{12}, now \w{12}\. Resume"),
        ({"responses": None}, "groups=11, now None; batch_groups=3, now None"),
    ],
)
def test_resuming_with_other_responses_is_an_error(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    trainer(tmp_path, callbacks=[every_step(tmp_path)], max_epochs=1).fit(Recorder(), data(**with_responses()))
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(
            Recorder(), data(**with_responses(**options)), ckpt_path=tmp_path / "step=4.ckpt", weights_only=True
        )


def test_sets_of_responses_follow_those_of_pairs(tmp_path: Path) -> None:
    """Every group once, as the rows stand."""
    module = Recorder()
    sets = {"val_responses": groups(4), "test_responses": {"near": groups(7), "far": groups(2)}}
    data_module = data(**with_responses(**sets))
    trainer(tmp_path, max_epochs=1).fit(module, data_module)
    trainer(tmp_path).test(module, data_module, verbose=False)
    assert (data_module.val_names, data_module.val_response_names) == (("val",), ("val_responses",))
    assert (data_module.test_names, data_module.test_response_names) == (("one", "two"), ("near", "far"))
    assert {
        key: rows for key, rows in module.shown.items() if "one" not in key and "two" not in key and key[1] != "val"
    } == {
        ("val", "val_responses", 1): [0, 1, 2, 3],
        ("test", "near", 2): [0, 1, 2, 3, 4, 5, 6],
        ("test", "far", 3): [0, 1],
    }
    assert {name: report.kept for name, report in data_module.reports.items()} == {
        "train": 23,
        "val": 5,
        "one": 3,
        "two": 4,
        "responses": 11,
        "val_responses": 4,
        "near": 7,
        "far": 2,
    }


def test_only_the_responses_that_a_stage_needs_are_opened() -> None:
    data_module = data(**with_responses(val_responses=groups(2), test_responses=groups(2)))
    data_module.setup("validate")
    assert list(data_module.responses.opened) == ["val_responses"]
    data_module.setup("fit")
    assert list(data_module.responses.opened) == ["val_responses", "responses"]
    data_module.prepare_data()
    assert list(data_module.responses.opened) == ["val_responses", "responses", "test_responses"]


def test_a_path_is_a_source_of_responses(tmp_path: Path) -> None:
    path = tmp_path / "said.jsonl"
    path.write_text(json.dumps({"prompt": "w1", "responses": ["w2", "w3 w3"]}) + "\n")
    data_module = data(responses=path, val_responses=str(path), test_responses={"again": path})
    data_module.setup()
    assert {name: len(said) for name, said in data_module.responses.opened.items()} == {
        "responses": 1,
        "val_responses": 1,
        "again": 1,
    }


@pytest.mark.parametrize("sets", [{"test_responses": {"one": groups(2)}}, {"val_responses": {"responses": groups(2)}}])
def test_responses_with_the_name_of_another_set_are_an_error(sets: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"two data sets are named '(one|responses)'; give every"):
        data(**with_responses(**sets))


def test_no_groups_a_batch_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch_groups=0"):
        data(batch_groups=0)


# Ranks


def test_ranks_read_different_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between them two ranks read what is said, every group of an epoch of the stream once, and evaluate each once."""
    read: list[list[Any]] = []
    shown: list[list[GroupBatch]] = []
    for rank in range(2):
        strategy = DDPStrategy()
        monkeypatch.setattr(
            type(strategy), "distributed_sampler_kwargs", property(lambda _, r=rank: {"num_replicas": 2, "rank": r})
        )
        data_module = data(**with_responses(val_responses={"odd": groups(7), "one": groups(1)}, test=None))
        data_module.trainer = L.Trainer(accelerator="cpu", strategy=strategy, logger=False, enable_checkpointing=False)
        batches = list(data_module.train_dataloader())
        read.append([[tuple(responses.row.tolist()) for responses in batch.responses] for batch in batches])
        assert read[rank] == said(1, 1, rank, 2, num_steps=6)
        loaders: Any = data_module.val_dataloader()
        shown += [list(loaders[1])]
        (filled,) = loaders[2]
        assert (filled.row.tolist(), filled.valid.tolist()) == ([0], [rank == 0])
    dealt = [row for step in zip(*read, strict=True) for (batch,) in step for row in batch]
    assert [sorted(dealt[start : start + NUM_GROUPS]) for start in (0, 11, 22)] == [list(range(NUM_GROUPS))] * 3
    assert [[batch.row.tolist() for batch in batches] for batches in shown] == [[[0, 1, 2], [6]], [[3, 4, 5], [6]]]
    assert [[batch.valid.tolist() for batch in batches][1] for batches in shown] == [[True], [False]]


def test_ranks_come_from_the_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks read every pair once between them, and validation in batches of equal number, fillers marked."""
    read: list[list[PreferenceBatch]] = []
    for rank in range(2):
        strategy = DDPStrategy()
        monkeypatch.setattr(
            type(strategy), "distributed_sampler_kwargs", property(lambda _, r=rank: {"num_replicas": 2, "rank": r})
        )
        data_module = data(val=source(1))
        data_module.trainer = L.Trainer(accelerator="cpu", strategy=strategy, logger=False, enable_checkpointing=False)
        read.append(list(data_module.train_dataloader()))
        (filled,) = data_module.val_dataloader()[0]
        assert (filled.row.tolist(), filled.valid.tolist()) == ([0], [rank == 0])
    assert [len(batches) for batches in read] == [6, 6]
    assert sorted(row for batches in read for batch in batches for row in batch.row.tolist()) == list(range(NUM_TRAIN))


# Resuming


def fit(folder: Path, options: dict[str, Any], resume: Path | None = None, **module: Any) -> Recorder:
    workers, sets = options.get("num_workers", 0), {"order": options.get("order", "length")}
    recorder = Recorder(**module)
    others = {key: value for key, value in options.items() if key not in ("num_workers", "order")}
    trainer(folder, **others).fit(
        recorder, data(num_workers=workers, **sets), ckpt_path=resume, weights_only=True if resume else None
    )
    return recorder


@pytest.mark.parametrize("asks_for_steps", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_a_resumed_run_reads_exactly_the_rest(tmp_path: Path, accumulate: int, asks_for_steps: bool) -> None:
    """From a checkpoint after every optimizer step of two epochs, those at their ends included."""
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate}
    whole = fit(tmp_path, options | {"callbacks": [every_step(tmp_path)]})
    assert len(whole.read) == 24
    steps_an_epoch = -(-12 // accumulate)
    for step in range(1, 2 * steps_an_epoch):
        epoch, within = divmod(step, steps_an_epoch)
        done = 12 * epoch + min(12, within * accumulate)
        rest = fit(tmp_path, options, tmp_path / f"step={step}.ckpt", asks_for_steps=asks_for_steps)
        assert rest.read == whole.read[done:], f"resumed after step {step}"
        assert rest.gradients == same(whole.gradients[step:])


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("step", [2, 6])
def test_a_resumed_run_with_workers_reads_exactly_the_rest(tmp_path: Path, accumulate: int, step: int) -> None:
    options = {"accumulate_grad_batches": accumulate, "num_workers": 2}
    whole = fit(tmp_path, options | {"callbacks": [every_step(tmp_path)]})
    rest = fit(tmp_path, options, tmp_path / f"step={step}.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[step * accumulate :]


@pytest.mark.parametrize("at_epoch_end", [False, True])
def test_a_run_resumed_between_epochs_reads_the_next(tmp_path: Path, at_epoch_end: bool) -> None:
    """Saved when validation ends an epoch, or when the epoch itself ends."""
    callbacks = [every_epoch(tmp_path, at_epoch_end)]
    whole = fit(tmp_path, {"callbacks": callbacks, "max_epochs": 3})
    rest = fit(tmp_path, {"max_epochs": 3}, tmp_path / "step=12.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[12:]
    assert len(rest.read) == 24


def test_a_run_resumed_after_a_validation_within_the_epoch(tmp_path: Path) -> None:
    whole = fit(tmp_path, {"callbacks": [every_epoch(tmp_path, False)], "val_check_interval": 4})
    rest = fit(tmp_path, {"val_check_interval": 4}, tmp_path / "step=8.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[8:]


def test_a_batch_that_failed_is_read_again(tmp_path: Path) -> None:
    saved = ModelCheckpoint(tmp_path, "failed", save_on_exception=True)
    whole = fit(tmp_path, {})
    with pytest.raises(RuntimeError, match="fails"):
        fit(tmp_path, {"callbacks": [saved]}, fail_at=7)
    rest = fit(tmp_path, {}, tmp_path / "failed.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[7:]


class LateStrategy(SingleDeviceStrategy):
    """Reads the checkpoint after the optimizers are set up, as sharded strategies do."""

    restore_checkpoint_after_setup = True


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_whose_checkpoint_is_read_late(tmp_path: Path, num_workers: int) -> None:
    whole = fit(tmp_path, {"callbacks": [every_step(tmp_path)], "accumulate_grad_batches": 2})
    options = {"strategy": LateStrategy("cpu"), "num_workers": num_workers, "accumulate_grad_batches": 2}
    rest = fit(tmp_path, options, tmp_path / "step=9.ckpt", asks_for_steps=True)
    assert rest.read == whole.read[18:]


def test_a_run_that_is_resumed_twice(tmp_path: Path) -> None:
    whole = fit(tmp_path, {})
    fit(tmp_path, {"callbacks": [every_step(tmp_path)], "max_steps": 5, "max_epochs": -1})
    second = {"callbacks": [every_step(tmp_path)], "max_steps": 15, "max_epochs": -1}
    fit(tmp_path, second, tmp_path / "step=5.ckpt")
    rest = fit(tmp_path, {}, tmp_path / "step=15.ckpt")
    assert rest.read == whole.read[15:]


def test_resuming_with_other_batches_is_an_error(tmp_path: Path) -> None:
    fit(tmp_path, {"callbacks": [every_step(tmp_path)], "max_epochs": 1})
    with pytest.raises(ValueError, match=r"after micro-batch 4 of 12.*accumulate_grad_batches=1, now 2.*Resume with"):
        fit(tmp_path, {"accumulate_grad_batches": 2}, tmp_path / "step=4.ckpt")
    with pytest.raises(ValueError, match="order=length, now random"):
        fit(tmp_path, {"order": "random"}, tmp_path / "step=4.ckpt")
    between = fit(tmp_path, {"order": "random"}, tmp_path / "step=12.ckpt")
    assert len(between.read) == 12


STRONG = {"strength_mean": 1.0, "strength_std": 1.0, "votes": (0.0, 2.0)}


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (
            {"train": source(NUM_TRAIN)},
            {"train": Rows([*source(NUM_TRAIN - 1).rows, pair(99)])},
            r"pairs=23 \(fingerprint \w{12}\), now 23 \(fingerprint \w{12}\)\. Resume",
        ),
        (
            {"train": source(NUM_TRAIN, label=1.0)},
            {"train": source(NUM_TRAIN, label=0.5)},
            r"pairs=23 \(fingerprint \w{12}\), now 23 \(fingerprint",
        ),
        (
            {"treatments": {"flip": partial(flip, below_quantile=0.1)}},
            {"treatments": {"flip": partial(flip, below_quantile=0.2, keep_margin=True)}},
            r"treatments=1\. flip\(below_quantile=0\.1\), now 1\. flip\(below_quantile=0\.2, keep_margin=True\)",
        ),
        (
            {},
            {"treatments": [partial(label_smoothing, alpha=0.1), adaptive_margin]},
            r"treatments=None, now 1\. label_smoothing\(alpha=0\.1\), 2\. adaptive_margin\(\)",
        ),
    ],
)
def test_resuming_on_other_pairs_or_treatments_is_an_error(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any], message: str
) -> None:
    """All have 23 pairs: their number alone would not tell."""
    strong = {"train": source(NUM_TRAIN, **STRONG)}
    trainer(tmp_path, callbacks=[every_step(tmp_path)], max_epochs=1).fit(Recorder(), data(**strong | before))
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path).fit(Recorder(), data(**strong | now), ckpt_path=tmp_path / "step=4.ckpt", weights_only=True)
    between = Recorder()
    trainer(tmp_path).fit(between, data(**strong | now), ckpt_path=tmp_path / "step=12.ckpt", weights_only=True)
    assert len(between.read) == 12


def test_a_run_is_resumed_from_a_renamed_file_and_another_cache(tmp_path: Path) -> None:
    lines = [
        json.dumps({name: getattr(row, name) for name in ("prompt", "chosen", "rejected", *STRONG)} | {"id": row.id})
        for row in source(NUM_TRAIN, **STRONG).rows
        if isinstance(row, PairRow)
    ]
    read: list[Recorder] = []
    for number, (name, step) in enumerate((("pairs.jsonl", None), ("moved/other.jsonl", 4))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("\n".join(lines))
        named = {"flip": partial(flip, below_quantile=0.1)}
        treatments = [*named.values()] if number else named
        data_module = data(train=tmp_path / name, cache_dir=tmp_path / f"cache{number}", treatments=treatments)
        read.append(Recorder())
        trainer(tmp_path, callbacks=[every_step(tmp_path)]).fit(
            read[-1], data_module, ckpt_path=tmp_path / f"step={step}.ckpt" if step else None, weights_only=True
        )
    assert read[1].read == read[0].read[4:]


def test_resuming_within_a_step_says_what_is_lost(tmp_path: Path) -> None:
    options = {"val_check_interval": 3, "accumulate_grad_batches": 2}
    whole = fit(tmp_path, options | {"callbacks": [every_epoch(tmp_path, False)]})
    with pytest.warns(UserWarning, match="gradients of 1 micro-batches are lost"):
        rest = fit(tmp_path, options, tmp_path / "step=1.ckpt")
    assert rest.read == whole.read[3:]


def test_no_warning_that_the_loader_cannot_resume(tmp_path: Path) -> None:
    fit(tmp_path, {"callbacks": [every_step(tmp_path)]})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not resumable.*")
        assert len(fit(tmp_path, {}, tmp_path / "step=5.ckpt").read) == 19


def test_a_checkpoint_can_be_tested(tmp_path: Path) -> None:
    fit(tmp_path, {"callbacks": [every_step(tmp_path)]})
    module = Recorder()
    trainer(tmp_path).test(module, data(), ckpt_path=tmp_path / "step=5.ckpt", weights_only=True, verbose=False)
    assert len(module.shown) == 2


def test_the_loader_of_a_finished_run_starts_at_the_beginning(tmp_path: Path) -> None:
    data_module = data()
    trainer(tmp_path).fit(Recorder(), data_module)
    assert len(list(data_module.train_dataloader())) == 12


# Errors


def test_two_sets_of_one_name_are_an_error() -> None:
    with pytest.raises(ValueError, match="two data sets are named 'one'"):
        data(val={"one": source(2)})


def test_no_training_set_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to train on"):
        data(train=None).train_dataloader()


def test_no_batch_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="batch_pairs and batch_tokens"):
        data(batch_pairs=None)


def test_no_pad_token_is_an_error() -> None:
    bare = tokenizer()
    bare.pad_token = None
    with pytest.raises(ValueError, match="no pad token"):
        PreferenceDataModule(bare, source(2))


@pytest.mark.parametrize(("option", "words"), [("order", "random, "), ("layout", "padded, ")])
def test_an_unknown_word_is_an_error(option: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"{option}='x'; it must be one of {words}"):
        data(**{option: "x"})


def test_a_sampler_put_in_by_lightning_is_an_error(tmp_path: Path) -> None:
    """Lightning would replace the order of pairs by its own; its message names the setting."""
    two = trainer(tmp_path, strategy=DDPStrategy(), devices=2, use_distributed_sampler=True)
    with pytest.raises(TypeError, match="use_distributed_sampler=False"):
        two._data_connector._prepare_dataloader(data().train_dataloader(), True, RunningStage.TRAINING)


def test_a_pair_over_the_token_budget_is_an_error() -> None:
    with pytest.raises(ValueError, match="over the budget of 20 tokens a batch; raise it"):
        data(batch_tokens=20).train_dataloader()


def test_a_pair_of_any_set_over_the_token_budget_is_found_before_training() -> None:
    """Not when the set is first read, which is after training for a test set."""
    sets = {"train": source(2), "val": source(2), "test": source(9)}
    assert len(list(data(**sets, batch_tokens=40).train_dataloader())) == 1
    with pytest.raises(ValueError, match="over the budget of 20 tokens a batch"):
        data(**sets, batch_tokens=20).setup("test")
    data(**sets, batch_tokens=20).setup("fit")
    data(**sets, batch_tokens=20, eval_batch_pairs=2).setup("test")


def test_a_pair_over_the_budget_is_named_by_its_place() -> None:
    rows = [pair(0), replace(pair(9), origin="pairs.jsonl:17")]
    with pytest.raises(ValueError, match=r"pairs\.jsonl:17 has \d+ and \d+ tokens"):
        data(train=Rows(rows), batch_tokens=4).train_dataloader()


def test_rows_that_are_not_used_are_said_once_a_set() -> None:
    """A notebook has no table."""
    rows = Rows([pair(0), BadRow("a.jsonl:2", "missing field", "chosen"), pair(1)])
    sets = data(train=rows, val=None, test={"test": source(2)}, on_bad_row="drop", responses=groups(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sets.setup()
        sets.setup()
    said = [str(warning.message) for warning in caught if warning.category is RowsLeftOut]
    assert [text.splitlines()[:2] for text in said] == [
        ["train: 3 rows read, 2 kept", "  left out: missing field 1 (a.jsonl:2: chosen)"]
    ]


@pytest.mark.parametrize("name", ["batch_pairs", "batch_tokens", "eval_batch_pairs"])
def test_a_batch_size_below_1_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0; it must be 1 or more"):
        data(**{name: 0})


def test_a_set_and_a_subset_of_one_name_are_an_error() -> None:
    """Both would be logged as `val/hard/accuracy`, and their mean is nobody's."""
    sets = {"val": {"val": source(4, subset="hard"), "hard": source(3)}}
    with pytest.raises(ValueError, match=r"hard: a set of that name and a subset of the set val .* as val/hard"):
        data(**sets).setup("fit")
    data(val={"val": source(4, subset="hard"), "easy": source(3)}).setup("fit")


def test_a_models_reading_brings_the_commands_layout() -> None:
    """Without a layout, `auto` where a model says how it reads, and `padded` where nobody does."""
    rows = Rows([replace(pair(i), prompt=LONG_PROMPT) for i in range(4)])
    assert data(train=rows, reading=Reading()).layout == "shared_prefix"
    assert data(train=rows, reading=Reading("first")).layout == "packed"
    assert data(train=rows).layout == "padded"


def test_reading_knows_two_tokens() -> None:
    with pytest.raises(ValueError, match="read_at='middle'; it must be one of last, first"):
        Reading("middle")  # pyright: ignore[reportArgumentType]
