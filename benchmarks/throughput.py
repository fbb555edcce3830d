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
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import lightning as L
import numpy as np
import torch
import transformers
import trl
from common import backbone, origin, quartiles, rotated
from torch import nn
from torch.profiler import ProfilerActivity, profile
from training import NO_WORK, LightningMeter, Meter, Pairs, lightning_trainer, made_rows, operations, work_of
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase
from trl import RewardTrainer
from trl_training import ORDERS, TrlMeter, longest_first, texts_of, trl_trainer, with_lengths

from lightning_rm.batch import ReadAt, Reading
from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.data.datamodule import PreferenceDataModule
from lightning_rm.data.rows import PairRow
from lightning_rm.data.sources.files import FileSource
from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.data.tokenize.pairs import encode_conversation, load_tokenizer
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.modules.baseline import BaselineRM
from lightning_rm.modules.optimization import warmup_schedule

SEED, LR = 0, 1e-5
TRL, COMPILED = ("trl_shipped", "trl", "trl_grouped", "trl_sorted"), "compiled"
PROMPT, RESPONSE = (115, 0.9), (50, 0.9)  # words in the mean and the logarithm's deviation: about those of HH-RLHF
WINDOW = 50  # batches that TRL sorts by length together in a long run
TOLERANCE = 1e-4


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
            gpu = self.arguments.accelerator == "gpu"
            trainer = lightning_trainer(gpu, [LightningMeter(meter)], max_steps=num_steps or -1)
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

    def trl_trainer(self, contender: str, seed: int, max_steps: int = -1) -> RewardTrainer:
        """TRL's defaults, but for what both sides must have alike and for what writes and shows."""
        data, gpu = self.tokenised, self.arguments.accelerator == "gpu"
        return trl_trainer(
            AutoModelForSequenceClassification.from_pretrained(self.folder / "model", dtype=torch.float32),
            longest_first(data) if contender == "trl_sorted" else data,
            self.tokenizer,
            self.folder / "trl",
            order=ORDERS.get(contender, "random"),
            per_device_train_batch_size=self.arguments.pairs,
            num_train_epochs=1,
            max_steps=max_steps,
            max_length=self.arguments.max_tokens,
            learning_rate=LR,
            optim="adamw_torch_fused" if self.arguments.fused else "adamw_torch",
            use_cpu=not gpu,
            bf16=gpu,
            gradient_checkpointing=contender == "trl_shipped",
            seed=seed,
        )

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
        """Tokens a step where nothing is computed twice, and the operations of training on them."""
        backbone, decoder = self.module().model.backbone, self.read_at == "last"
        shared = [batch.tokens for batch in self.datamodule(best(self.read_at), SEED).train_dataloader()]
        work = sum((work_of(tokens, decoder) for tokens in shared), NO_WORK)
        embeddings = backbone.get_input_embeddings().weight.numel()
        steps = self.arguments.steps
        return {
            "tokens_a_step": work.tokens / steps,
            "operations_a_step": operations(backbone, work) / steps,
            "weights": sum(weight.numel() for weight in backbone.parameters()) - embeddings,
        }

    def _tokenised_by_trl(self) -> datasets.Dataset:
        """The pairs as TRL makes tokens of them, with the length to group by."""
        self.tokenised = texts_of(self.pairs.rows)
        return with_lengths(self.trl_trainer("trl", SEED).train_dataset)


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
        found = made_rows(made_lengths(2 * window), SEED)
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


def made_lengths(number: int) -> list[tuple[int, int, int]]:
    """Words of a prompt and of its two responses, log-normal."""
    draw = random.Random(SEED)

    def words(mean: float, spread: float) -> int:
        return round(draw.lognormvariate(math.log(mean) - spread**2 / 2, spread))

    return [(words(*PROMPT), words(*RESPONSE), words(*RESPONSE)) for _ in range(number)]


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
    everything = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    file.write_text(json.dumps(everything | {name: results}, indent=1) + "\n", encoding="utf-8")


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
        for name in rotated(contenders, turn):
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
