"""Pairs a second: this package's layouts beside TRL's `RewardTrainer`, in one run.

    pip install lightning-rm[benchmarks]
    OMP_NUM_THREADS=1 python benchmarks/throughput.py --data PAIRS.jsonl.gz --model FOLDER

Both sides train the same weights on the same pairs with the same AdamW, schedule, clipping and dtype, and no dropout:
TRL as its users run it, ours as `lightning-rm train` does, with Lightning's trainer, the data module and every metric.
A block is one pass over all pairs from fresh weights; the contenders take turns, a block each, in an order that
rotates. Processor time is the main figure on a CPU, the clock on a GPU: from the start of the epoch to the end of its
last step, so that reading and laying out batches counts, and loading the model and tokenising does not.

Contenders: `trl_shipped`, TRL's defaults, a random order and gradients checkpointed; `trl`, without checkpointing,
which no other contender has and which is faster; `trl_grouped`, its `group_by_length`; `trl_sorted`, the data handed
over from long to short and left so; ours by the names of the layouts, and, where asked for, `compiled`: the layout
that computes nothing twice, its layers compiled in a step before those that count. Two things of grouping. With
`RewardTrainer` it works only where `remove_unused_columns=False`: else the column of lengths is taken away before it is
looked for, and training stops. And it sorts windows of a quarter of the batches, of 50 at most, so that a short run
pads more than a long one. The pairs here are therefore batches out of such a window of 50, sorted: `trl_sorted` pads
them as `trl_grouped` would in a long run.

Before anything is timed: TRL's token ids are ours, and its loss and its rewards on the first step's pairs are ours in
every layout, to 1e-4. TRL reads a decoder at the last token that is not the padding token, ours at the last token of
the sequence; that is one token as long as no conversation ends in the padding token, which the check would show.

Tokens a step are the cells that went through the embeddings, padding included. Those needed are what is left when every
sequence, and for decoders every common beginning, is computed once.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import math
import random
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import lightning as L
import numpy as np
import torch
import transformers
import trl
from common import backbone, origin
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
)
from trl import RewardConfig, RewardTrainer

from lightning_rm.batch import ReadAt, Reading
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import BadRow, Message, PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.draws import digest
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.synthetic.words import VOCABULARY
from lightning_rm.data.tokenize.pairs import encode_conversation, load_tokenizer
from lightning_rm.models.attention.last_layer import TOKEN_WISE
from lightning_rm.models.backbone.layers import transformer_layers
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.optimization import warmup_schedule

SEED, LR = 0, 1e-5
TRL, COMPILED = ("trl_shipped", "trl", "trl_grouped", "trl_sorted"), "compiled"
PROMPT, RESPONSE = (115, 0.9), (50, 0.9)  # words in the mean and the logarithm's deviation: about those of HH-RLHF
WINDOW = 50  # batches that TRL sorts by length together in a long run
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Pairs:
    """The pairs of a run: a `Source`."""

    rows: list[PairRow]

    def fingerprint(self) -> str:
        return digest([asdict(row) for row in self.rows])

    def __iter__(self) -> Iterator[PairRow | BadRow]:
        return iter(self.rows)


@dataclass
class Meter:
    """What a pass of so many steps takes: seconds by both clocks, cells through the embeddings, peak of CUDA memory."""

    num_steps: int
    cells: int = 0
    peak: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    _steps: int = 0
    _start: tuple[float, float] = field(default=(0.0, 0.0))

    def watch(self, embeddings: nn.Module) -> None:
        def count(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            self.cells += inputs[0].numel()

        embeddings.register_forward_pre_hook(count)

    def start(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._start = (time.process_time(), time.perf_counter())

    def step(self) -> None:
        self._steps += 1
        if self._steps == self.num_steps:  # a device is waited for at the end alone
            if torch.cuda.is_available():
                torch.cuda.synchronize()
                self.peak = torch.cuda.max_memory_allocated()
            (cpu, wall), now = self._start, (time.process_time(), time.perf_counter())
            self.seconds = (now[0] - cpu, now[1] - wall)


class LightningMeter(L.Callback):
    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.meter.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        self.meter.step()


class TrlMeter(TrainerCallback):
    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        self.meter.start()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.meter.step()


class Benchmark:
    """The contenders on one model and one list of pairs.

    Args:
        arguments: of the command line.
        tokenizer: of both sides.
        model: whose weights both sides start from, each time.
        rows: the pairs.
        folder: for the weights and the tokenised pairs.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        tokenizer: PreTrainedTokenizerBase,
        model: RewardModel,
        rows: list[PairRow],
        folder: Path,
    ) -> None:
        self.arguments = arguments
        self.tokenizer = tokenizer
        self.pairs = Pairs(rows)
        self.folder = folder
        self.read_at: ReadAt = model.read_at
        model.save_pretrained(folder / "model", tokenizer)
        self.optimizer = partial(torch.optim.AdamW, lr=LR, weight_decay=0.0, fused=arguments.fused or None)
        self.tokenised = self._tokenised_by_trl()

    def run(self, contender: str, seed: int, num_steps: int | None = None) -> Meter:
        """One block: a pass over the pairs, or its first steps."""
        gc.collect()
        torch.cuda.empty_cache()
        meter = Meter(num_steps or self.arguments.steps)
        if contender in TRL:
            trainer = self.trl_trainer(contender, seed, num_steps or -1)
            meter.watch(trainer.model.get_input_embeddings())
            trainer.add_callback(TrlMeter(meter))
            trainer.train()
        else:
            module = self.module(compile=contender == COMPILED)
            meter.watch(module.model.backbone.get_input_embeddings())
            trainer = self.lightning_trainer(meter, num_steps or -1)
            trainer.fit(module, self.datamodule(self.layout_of(contender), seed))
        return meter

    def layout_of(self, contender: str) -> Any:
        return best(self.read_at) if contender == COMPILED else contender

    def module(self, compile: bool = False) -> BaselineRM:
        folder = self.folder / "model"
        model = RewardModel.from_pretrained(folder, tokenizer=self.tokenizer, dropout=0.0, compile=compile)
        return BaselineRM(model, self.optimizer, partial(warmup_schedule, warmup=0.0))

    def datamodule(self, layout: Any, seed: int) -> PreferenceDataModule:
        return PreferenceDataModule(
            self.tokenizer,
            self.pairs,
            reading=Reading(self.read_at),
            max_tokens=self.arguments.max_tokens,
            layout=layout,
            order="length",
            batch_pairs=self.arguments.pairs,
            seed=seed,
            cache_dir=self.folder / "cache",
        )

    def lightning_trainer(self, meter: Meter, max_steps: int) -> L.Trainer:
        """As `conf/trainer` has it, without what writes and shows."""
        return L.Trainer(
            accelerator=self.arguments.accelerator,
            devices=1,
            precision="bf16-mixed" if self.arguments.accelerator == "gpu" else "32-true",
            max_epochs=1,
            max_steps=max_steps,
            gradient_clip_val=1.0,
            log_every_n_steps=10,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[LightningMeter(meter)],
        )

    def trl_trainer(self, contender: str, seed: int, max_steps: int = -1) -> RewardTrainer:
        """TRL's defaults, but for what both sides must have alike and for what writes and shows."""
        data, gpu = self.tokenised, self.arguments.accelerator == "gpu"
        if contender == "trl_sorted":
            data = data.sort("length", reverse=True)
        order = {"trl_grouped": "group_by_length", "trl_sorted": "sequential"}.get(contender, "random")
        model = AutoModelForSequenceClassification.from_pretrained(self.folder / "model", dtype=torch.float32)
        config = RewardConfig(
            output_dir=str(self.folder / "trl"),
            per_device_train_batch_size=self.arguments.pairs,
            num_train_epochs=1,
            max_steps=max_steps,
            max_length=self.arguments.max_tokens,
            learning_rate=LR,
            optim="adamw_torch_fused" if self.arguments.fused else "adamw_torch",
            use_cpu=not gpu,
            bf16=gpu,
            gradient_checkpointing=contender == "trl_shipped",
            train_sampling_strategy=order,
            remove_unused_columns=contender != "trl_grouped",
            seed=seed,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = RewardTrainer(model, config, train_dataset=data, processing_class=self.tokenizer)
        trainer.remove_callback(PrinterCallback)
        return trainer

    def check(self, contenders: list[str]) -> None:
        """Raise unless ids, rewards and losses of both sides agree."""
        module, datamodule = self.module(), self.datamodule("padded", SEED)
        datamodule.setup("fit")
        pairs = datamodule.datasets["train"]
        if len(pairs) != len(self.tokenised):
            raise ValueError(f"TRL trains on {len(self.tokenised)} pairs, ours on {len(pairs)}")
        for row, theirs in enumerate(self.tokenised):
            ours = [list(sequence) for sequence in pairs.sample(row).sequences]
            if ours != [theirs["chosen_ids"], theirs["rejected_ids"]]:
                raise ValueError(f"TRL's tokens of pair {self.pairs.rows[row].id} are others than ours")
        rows = range(self.arguments.pairs)
        trainer = self.trl_trainer("trl", SEED)
        device = trainer.model.device
        examples = trainer.data_collator([self.tokenised[row] for row in rows])
        with torch.no_grad():
            examples = {name: value.to(device) for name, value in examples.items()}
            loss, outputs = trainer.compute_loss(trainer.model, examples, return_outputs=True)
            rewards = outputs.logits.view(2, -1)
            module.to(device)
            for name in contenders:
                if name in TRL:
                    continue
                if name == COMPILED:
                    module = self.module(compile=True).to(device)
                layout = LAYOUTS[self.layout_of(name)]
                tokens = layout([pairs.sample(row) for row in rows], self.read_at, self.tokenizer.pad_token_id)
                found = module.model(tokens.to(device))
                ours = nn.functional.softplus(found.rejected - found.chosen).mean()
                off = ((found.reward - rewards).abs().max() / rewards.abs().max()).item()
                if off > TOLERANCE or abs(ours / loss - 1) > TOLERANCE:
                    raise ValueError(
                        f"{name}: rewards differ from TRL's by {off:.1e} of the largest; losses are {ours} and {loss}"
                    )

    def needed(self) -> dict[str, float]:
        """Tokens a step where nothing is computed twice, and the operations of training on them.

        6 a weight and token, and 12 a layer, unit of its heads, token and token that it sees; embeddings are looked up.
        In the last layer keys and values alone are of all tokens, the rest of those that are read.
        """
        decoder = self.read_at == "last"
        backbone = self.module().model.backbone
        shared = [batch.tokens for batch in self.datamodule(best(self.read_at), SEED).train_dataloader()]
        num_tokens = sum(tokens.num_tokens for tokens in shared)
        num_read = sum(tokens.read_cells.numel() for tokens in shared)
        if decoder:  # a token sees those up to its own position
            seen = sum(int(tokens.position_ids.sum()) + tokens.num_tokens for tokens in shared)
            seen_last = sum(int((tokens.position_ids.flatten()[tokens.read_cells] + 1).sum()) for tokens in shared)
        else:  # and every sequence has one that is read
            seen = sum(length**2 for tokens in shared for length in tokens.segments.lengths)
            seen_last = num_tokens
        config, vectors = backbone.config, backbone.get_input_embeddings()
        weights = sum(weight.numel() for weight in backbone.parameters()) - vectors.weight.numel()
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        width = config.num_attention_heads * head
        last_layer = transformer_layers(backbone)[-1].named_parameters()
        where_read = sum(weight.numel() for name, weight in last_layer if not TOKEN_WISE.isdisjoint(name.split(".")))
        operations = 6 * ((weights - where_read) * num_tokens + where_read * num_read)
        operations += 12 * width * ((config.num_hidden_layers - 1) * seen + seen_last)
        steps = self.arguments.steps
        return {"tokens_a_step": num_tokens / steps, "operations_a_step": operations / steps, "weights": weights}

    def _tokenised_by_trl(self) -> datasets.Dataset:
        """The pairs as TRL makes tokens of them, with the length to group by."""
        self.tokenised = datasets.Dataset.from_list(
            [
                {name: list(getattr(row, name)) for name in ("prompt", "chosen", "rejected")} | {"length": 0}
                for row in self.pairs.rows
            ]
        )
        data = self.trl_trainer("trl", SEED).train_dataset
        lengths = [max(map(len, ids)) for ids in zip(data["chosen_ids"], data["rejected_ids"], strict=True)]
        return data.select_columns(["chosen_ids", "rejected_ids"]).add_column("length", lengths)


def best(read_at: ReadAt) -> Any:
    """The layout that computes nothing twice."""
    return "shared_prefix" if read_at == "last" else "packed"


def load(arguments: argparse.Namespace) -> tuple[PreTrainedTokenizerBase, RewardModel]:
    """The tokenizer and the model that the command line names."""
    if arguments.model != "llama":
        file = Path(arguments.model) / arguments.gguf if arguments.gguf else arguments.model
        tokenizer = load_tokenizer(arguments.tokenizer or file)
        return tokenizer, RewardModel.from_pretrained(
            arguments.model, gguf_file=arguments.gguf, tokenizer=tokenizer, head_seed=SEED
        )
    tokenizer = load_tokenizer(arguments.tokenizer) if arguments.tokenizer else world_tokenizer()
    config = backbone(arguments.layers, arguments.width)
    return tokenizer, RewardModel.from_config(config, tokenizer=tokenizer, seed=SEED)


def read(arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> list[PairRow]:
    """The pairs of every step, none longer than allowed: evenly spread batches of a window sorted by length."""
    size, steps = arguments.pairs, arguments.steps
    window = size * max(steps, WINDOW)
    if arguments.data:
        where = dict(term.split("=", 1) for term in arguments.where)
        found = [row for row in FileSource(arguments.data, where=where) if isinstance(row, PairRow)]
        random.Random(SEED).shuffle(found)
    else:
        found = made_rows(2 * window)
    lengths: list[int] = []
    rows: list[PairRow] = []
    for row in found:
        chosen, rejected = (encode_conversation(tokenizer, (*row.prompt, *last)) for last in (row.chosen, row.rejected))
        if chosen != rejected and max(len(chosen), len(rejected)) <= arguments.max_tokens:
            rows.append(row)
            lengths.append(max(len(chosen), len(rejected)))
        if len(rows) == window:
            break
    batches = len(rows) // size
    if batches < steps:
        raise ValueError(f"there are {len(rows)} pairs within --max-tokens; --pairs times --steps is {size * steps}")
    starts = [size * (batches * (2 * step + 1) // (2 * steps)) for step in range(steps)]
    places = np.argsort(lengths, kind="stable")
    picked = [int(place) for start in starts for place in places[start : start + size]]
    random.Random(SEED).shuffle(picked)
    return [rows[place] for place in picked]


def made_rows(number: int) -> list[PairRow]:
    """Pairs of random words, of log-normal lengths."""
    draw = random.Random(SEED)
    words = sorted(word for word in VOCABULARY if word.isalpha())

    def turn(role: str, mean: float, spread: float) -> tuple[Message, ...]:
        length = max(1, round(draw.lognormvariate(math.log(mean) - spread**2 / 2, spread)))
        return ({"role": role, "content": " ".join(draw.choices(words, k=length))},)

    def row(place: int) -> PairRow:
        prompt, chosen = turn("user", *PROMPT), turn("assistant", *RESPONSE)
        return PairRow(prompt, chosen, turn("assistant", *RESPONSE), id=str(place), prompt_id=str(place))

    return [row(place) for place in range(number)]


def summary(blocks: dict[str, list[Meter]], arguments: argparse.Namespace, needed: dict[str, float]) -> dict[str, Any]:
    """Each contender's pairs a second by both clocks, and their ratios to TRL's, round by round."""
    num_pairs = arguments.pairs * arguments.steps
    rates = {name: num_pairs / np.array([meter.seconds for meter in meters]) for name, meters in blocks.items()}
    found: dict[str, Any] = {}
    for name, meters in blocks.items():
        found[name] = {"tokens_a_step": round(float(np.median([meter.cells for meter in meters])) / arguments.steps, 1)}
        for place, clock in enumerate(("cpu", "wall")):
            rate = rates[name][:, place]
            found[name][clock] = {"pairs_a_second": quartiles(rate)}
            for other in TRL:
                if other in rates:
                    found[name][clock][f"to_{other}"] = quartiles(rate / rates[other][:, place])
        if arguments.accelerator == "gpu":
            found[name]["peak_gigabytes"] = round(max(meter.peak for meter in meters) / 1e9, 3)
        if arguments.peak_tflops:
            steps_a_second = float(np.median(rates[name][:, 1])) / arguments.pairs
            operations = needed["operations_a_step"] * steps_a_second
            found[name]["mfu"] = round(operations / arguments.peak_tflops / 1e12, 4)
    return found


def quartiles(values: np.ndarray) -> list[float]:
    """Lower quartile, median, upper quartile, to four digits."""
    return [float(f"{value:.4g}") for value in np.quantile(values, (0.25, 0.5, 0.75))]


def report(name: str, results: dict[str, Any]) -> None:
    """Print the table."""
    clock, other = ("wall", "cpu") if results["settings"]["accelerator"] == "gpu" else ("cpu", "wall")
    needed = results["needed"]["tokens_a_step"]
    bases = [base for base in TRL if base in results["contenders"]]
    print(f"{name}: {needed:.0f} tokens a step are needed")
    print(f"{'':14}{'tokens':>8}{'pairs/s ' + clock:>13}{'quartiles':>18}{other:>9}", end="")
    print("".join(f"{'to ' + base:>15}" for base in bases))
    for contender, found in results["contenders"].items():
        low, middle, high = found[clock]["pairs_a_second"]
        print(f"{contender:14}{found['tokens_a_step']:8.0f}{middle:13.3f}{f'{low:.3f} to {high:.3f}':>18}", end="")
        print(f"{found[other]['pairs_a_second'][1]:9.3f}", end="")
        print("".join(f"{found[clock][f'to_{base}'][1]:15.3f}" for base in bases), end="")
        print("".join(f"  {key} {found[key]}" for key in ("peak_gigabytes", "mfu") if key in found))


def write(file: Path, name: str, results: dict[str, Any]) -> None:
    """Put the results under their name beside those of other models."""
    everything = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(everything | {name: results}, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama", help="a folder or a hub name; llama makes one")
    parser.add_argument("--gguf", help="the name of a GGUF file in the folder")
    parser.add_argument("--tokenizer", help="a folder, a hub name or a .gguf file; else the model's own")
    parser.add_argument("--layers", type=int, default=4, help="of the made Llama")
    parser.add_argument("--width", type=int, default=256, help="of the made Llama")
    parser.add_argument("--data", help="a file of pairs; else they are of random words")
    parser.add_argument("--where", action="append", default=[], metavar="FIELD=VALUE", help="which rows of the file")
    parser.add_argument("--max-tokens", type=int, default=512, help="longer pairs are left out")
    parser.add_argument("--pairs", type=int, default=8, help="of a step")
    parser.add_argument("--steps", type=int, default=12, help="of a block")
    parser.add_argument("--rounds", type=int, default=5, help="blocks of each contender")
    parser.add_argument(
        "--contenders", nargs="+", choices=(*TRL, *LAYOUTS, COMPILED), help="else all that the model can have"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--peak-tflops", type=float, help="of the accelerator, for the share that is used")
    parser.add_argument("--fused", action=argparse.BooleanOptionalAction, default=True, help="AdamW, on both sides")
    parser.add_argument("--profile", metavar="CONTENDER", help="print where the time of a block goes, and end")
    parser.add_argument("--name", help="of the results; else the model's, the data's and the accelerator")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/throughput.json"))
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    torch.set_num_threads(arguments.threads)
    tokenizer, model = load(arguments)
    rows = read(arguments, tokenizer)
    folder = Path(tempfile.mkdtemp())
    try:
        measure(arguments, Benchmark(arguments, tokenizer, model, rows, folder))
    finally:
        shutil.rmtree(folder)


def measure(arguments: argparse.Namespace, benchmark: Benchmark) -> None:
    decoder = benchmark.read_at == "last"
    contenders = arguments.contenders or [*TRL, *(name for name in LAYOUTS if decoder or name != "shared_prefix")]
    if arguments.profile:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if arguments.accelerator == "gpu" else [])]
        with profile(activities=activities) as profiler:
            benchmark.run(arguments.profile, SEED)
        sort = "self_cuda_time_total" if arguments.accelerator == "gpu" else "self_cpu_time_total"
        print(profiler.key_averages().table(sort_by=sort, row_limit=25, max_name_column_width=40))
        return
    benchmark.check(contenders)
    for name in contenders:
        benchmark.run(name, SEED, num_steps=1)
    blocks: dict[str, list[Meter]] = {name: [] for name in contenders}
    for turn in range(arguments.rounds):
        for name in contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]:
            blocks[name].append(benchmark.run(name, SEED + turn))
    needed = benchmark.needed()
    results: dict[str, Any] = {
        **origin(torch, L, transformers, trl, gpu=arguments.accelerator == "gpu"),
        "settings": {
            "dtype": "bf16 autocast" if arguments.accelerator == "gpu" else "float32",
            **{
                name: getattr(arguments, name)
                for name in ("accelerator", "pairs", "steps", "rounds", "max_tokens", "fused")
            },
            "seed": SEED,
        },
        "needed": needed,
        "contenders": summary(blocks, arguments, needed),
    }
    made = f"llama {arguments.layers}x{arguments.width}"
    model = made if arguments.model == "llama" else Path(arguments.gguf or arguments.model).name
    data = Path(arguments.data).name if arguments.data else "random words"
    name = arguments.name or f"{model}, {data}, {arguments.accelerator}"
    report(name, results)
    write(arguments.out, name, results)


if __name__ == "__main__":
    main()
