"""What a long conversation keeps in memory for the backward pass, counted tensor by tensor, beside the formula.

    python benchmarks/memory.py --tokens 4096 16384 32768 --out benchmarks/results/memory.json

A Llama of two layers and 32 hidden units reads one conversation on the CPU; every tensor that autograd saves and that
is not a weight counts once. With gradient checkpointing these are the inputs of the layers, T x H numbers a
layer, and two more of the last norm: the formula is (layers + 2) x T x H x 4 bytes. Without it a layer keeps about
12 H + 4 I numbers a token, I of them the width of its MLP. Sizes grow with T and H, so that a
small model says what a large one keeps.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from common import backbone, origin
from torch.autograd.graph import saved_tensors_hooks

from lightning_rm.data.batches.layouts import padded
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.tokens import Sample

LAYERS, HIDDEN = 2, 32


def saved_bytes(model: RewardModel, num_tokens: int) -> int:
    """Bytes that a forward keeps, of tensors that are not weights."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    held: list[torch.Tensor] = []  # so that no address is used twice

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    ids = torch.randint(4, 100, (num_tokens,)).tolist()
    batch = padded([Sample([ids], 0)], model.read_at, model.pad_id)
    with saved_tensors_hooks(count, lambda tensor: tensor):
        model(batch).reward.sum()
    return sum(kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    config = backbone(LAYERS, HIDDEN, positions=max(given.tokens))
    rows: list[dict[str, Any]] = []
    for num_tokens in given.tokens:
        found = {
            "tokens": num_tokens,
            "formula": LAYERS * num_tokens * (12 * HIDDEN + 4 * config["intermediate_size"]) * 4,
            "formula_checkpointed": (LAYERS + 2) * num_tokens * HIDDEN * 4,
        }
        for name, on in (("kept", False), ("kept_checkpointed", True)):
            options: dict[str, Any] = {"gradient_checkpointing": on, "last_layer": "whole"}
            model = RewardModel.from_config(config, vocab_size=100, pad_id=0, **options)
            found[name] = saved_bytes(model, num_tokens)
        rows.append(found)
        print(json.dumps(found), flush=True)
        if given.out is not None:
            settings = {"layers": LAYERS, "hidden": HIDDEN}
            results = {**origin(torch, transformers), "settings": settings, "rows": rows}
            given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
