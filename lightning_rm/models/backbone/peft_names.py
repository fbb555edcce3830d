"""Names of layers, as peft takes them: it was written for mixtures of experts whose experts were layers of their own.

Of families whose experts have become one tensor since (DeepSeek, Hunyuan, Qwen3-Next), peft takes every name that ends
in `gate_proj`, `up_proj` or `down_proj` for those experts, also that of a dense or shared MLP, which is a layer still:
adapters would stand on tensors that nobody named, and not on the layers that were. It knows peft's configurations.
"""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from peft import PeftConfig
from peft.utils import transformers_weight_conversion as conversion
from transformers import PreTrainedModel


@contextmanager
def names_as_they_are() -> Generator[None]:
    """Have peft put adapters into the layers that are named."""
    convert: Any = conversion.convert_peft_config_for_transformers
    conversion.convert_peft_config_for_transformers = _leave
    try:
        yield
    finally:
        conversion.convert_peft_config_for_transformers = convert


def takes_others(config: PeftConfig, classifier: PreTrainedModel) -> bool:
    """Tell whether peft by itself would put adapters of a configuration into others than the layers that it names."""
    read: Any = copy.deepcopy(config)
    named = set(read.target_modules)
    conversion.convert_peft_config_for_transformers(read, model=classifier, conversions=None)
    return set(read.target_modules) != named


def _leave(*_: Any, **__: Any) -> None:
    """Change nothing."""
