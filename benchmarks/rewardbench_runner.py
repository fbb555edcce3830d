"""RewardBench's own runner on exported folders: the same accuracy and the same rewards as ours, pair by pair.

    python -m venv other && other/bin/pip install rewardbench 'setuptools<80'
    python benchmarks/rewardbench_runner.py --runner other/bin/python --out benchmarks/results/rewardbench_runner.json

An environment of its own: rewardbench 0.1.4 asks for transformers 4.51, and imports what newer setuptools dropped.
A decoder is trained on made pairs for a minute and exported by `lightning-rm export`; `--encoder FOLDER` adds a
pretrained encoder with a head of random weights. The runner sends its batches to "cuda" by that name; on a machine
without, they stay where they are, which is the one thing changed of it. It pads on the left, where an encoder would not
read its first token, so an encoder goes one text at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from common import origin

from lightning_rm import load_model, score
from lightning_rm.data.synthetic.pairs import SyntheticSource
from lightning_rm.data.tokenize.tokenizer import load_tokenizer
from lightning_rm.models.reward_model import RewardModel

WITHOUT_CUDA = """
from transformers import BatchEncoding
import torch
if not torch.cuda.is_available():
    BatchEncoding.to = lambda self, *args, **kwargs: self
from rewardbench.rewardbench import main
main()
"""


def write_pairs(path: Path, num: int) -> list[dict[str, Any]]:
    """Pairs in the form that the runner reads: both conversations whole."""
    rows: list[dict[str, Any]] = []
    for row in SyntheticSource(2 * num, split="test"):
        if len(row.prompt) == 1 and len(rows) < num:
            sides = {"chosen": [*row.prompt, *row.chosen], "rejected": [*row.prompt, *row.rejected]}
            rows.append({"prompt": row.prompt[0]["content"], **sides})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def compared(runner: Path, folder: Path, pairs: Path, rows: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """Theirs and ours of one model."""
    words = ["--model", f"./{folder.name}", "--dataset", pairs.name, "--load_json", "--not_quantized", "--save_all"]
    words += ["--torch_dtype", "float32", "--max_length", "512", "--batch_size", str(batch), "--output_dir", "found"]
    offline = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | offline
    subprocess.run(
        [runner, "-c", WITHOUT_CUDA, *words], cwd=folder.parent, env=environment, check=True, capture_output=True
    )
    [found] = (folder.parent / "found").rglob(f"{folder.name}_outputs.jsonl")
    told = [json.loads(line) for line in found.read_text(encoding="utf-8").splitlines()]
    theirs = np.array([[line["scores_chosen"], line["scores_rejected"]] for line in told])
    model, tokenizer = load_model(folder)
    conversations = [row[side] for row in rows for side in ("chosen", "rejected")]
    ours = score(model, tokenizer, conversations).reshape(-1, 2).numpy()
    return {
        "options": " ".join(words),
        "pairs": len(rows),
        "accuracy": {"rewardbench": float(np.mean([line["results"] for line in told])), "ours": _accuracy(ours)},
        "largest_difference_of_a_reward": float(np.abs(theirs - ours).max()),
    }


def _accuracy(rewards: Any) -> float:
    return float((rewards[:, 0] > rewards[:, 1]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runner", type=Path, required=True, help="the python that has rewardbench")
    parser.add_argument("--run", type=Path, help="a run of a decoder; without it one is trained")
    parser.add_argument("--encoder", type=Path, help="a folder of an encoder")
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = options.run
        if run is None:
            run = folder / "run"
            command = ["lightning-rm", "train", "logger=none", "data.num_pairs=2000", f"hydra.run.dir={run}"]
            subprocess.run(command, check=True)
        subprocess.run(["lightning-rm", "export", f"run={run}", f"out={folder}/decoder"], check=True)
        rows = write_pairs(folder / "pairs.jsonl", options.pairs)
        runner = options.runner.absolute()
        found = {"decoder": compared(runner, folder / "decoder", folder / "pairs.jsonl", rows, batch=8)}
        if options.encoder is not None:
            tokenizer = load_tokenizer(options.encoder)
            RewardModel.from_pretrained(options.encoder, tokenizer=tokenizer).save_pretrained(
                folder / "encoder", tokenizer
            )
            found["encoder"] = compared(runner, folder / "encoder", folder / "pairs.jsonl", rows, batch=1)
    result = {**origin(torch, transformers), "rewardbench": _version(runner, "rewardbench"), "models": found}
    result["runner's transformers"] = _version(runner, "transformers")
    print(json.dumps(result, indent=2))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _version(runner: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([runner, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
