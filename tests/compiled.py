"""`python -m tests.compiled qwen3_5_text gpt_oss`: a family's rewards and gradients with compiled layers and without.

Minutes a family, so the suite holds GPT-NeoX to it alone, and writes no kernels (`models/backbone/test_kernels.py`).
"""

from __future__ import annotations

import sys
import time

import torch

from lightning_rm.data.batches.layouts import LAYOUTS
from lightning_rm.models.reward_model import RewardModel
from tests.families import family_config
from tests.tiny import PAD, gradients, pairs, prompted


def compare(family: str) -> str:
    """Return by how much rewards and gradients of two batches are off, all layers compiled."""
    begin = time.process_time()
    plain, compiled = (RewardModel.from_config(family_config(family), seed=0, last_layer="whole") for _ in range(2))
    compiled.compile_backbone()
    reward_off = gradient_off = 0.0
    for samples in (prompted(), pairs()):
        tokens = LAYOUTS["padded"](samples, "last", PAD)
        rewards = [model(tokens).reward for model in (plain, compiled)]
        for model, reward in zip((plain, compiled), rewards, strict=True):
            model.zero_grad()
            reward.square().sum().backward()
        expected, found = gradients(plain), gradients(compiled)
        reward_off = max(reward_off, float((rewards[0] - rewards[1]).detach().abs().max()))
        off = (float((found[name] - value).norm() / value.norm()) for name, value in expected.items() if value.any())
        gradient_off = max(gradient_off, *off)
    seconds = time.process_time() - begin
    return (
        f"{family}: rewards off by {reward_off:.1g}, gradients by {gradient_off:.1g} relative; {seconds:.0f} s of CPU"
    )


if __name__ == "__main__":
    print(f"torch {torch.__version__}")
    for name in sys.argv[1:]:
        print(compare(name), flush=True)
