"""Folders that transformers 4 reads too: many servers still use it, and would miss some settings without an error.

Transformers 5 writes `rope_parameters` and `dtype` where 4 reads `rope_theta`, `rope_scaling` and `torch_dtype`: a
model with another base than 10,000 would load without a word and give other rewards. Both are written here; 5 reads
either. It knows the two JSON files; no weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ANY_FAST_TOKENIZER = "PreTrainedTokenizerFast"
"""What transformers 4 calls the class that transformers 5 calls `TokenizersBackend`, and 5 still knows."""


def for_older_readers(folder: Path) -> None:
    """Add what transformers 4 reads to the `config.json` and `tokenizer_config.json` of a folder."""
    for name, added in (("config.json", with_older_settings), ("tokenizer_config.json", with_older_tokens)):
        path = folder / name
        if path.is_file():
            settings = added(json.loads(path.read_text(encoding="utf-8")))
            path.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def with_older_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's configuration with the names of transformers 4 beside those of 5.

    `{"rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}, "dtype": "bfloat16"}` gains
    `{"rope_theta": 500000.0, "rope_scaling": None, "torch_dtype": "bfloat16"}`. Rotary settings by kind of layer have
    no older form.
    """
    older = dict(config)
    if "dtype" in config:
        older["torch_dtype"] = config["dtype"]
    rope: Mapping[str, Any] = config.get("rope_parameters") or {}
    if "rope_theta" in rope:
        scaling = {name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")}
        older["rope_theta"] = rope["rope_theta"]
        older["rope_scaling"] = None if scaling.get("rope_type", "default") == "default" else scaling
        if "partial_rotary_factor" in rope:
            older["partial_rotary_factor"] = older["rotary_pct"] = rope["partial_rotary_factor"]
        if config.get("model_type") == "gpt_neox":
            older["rotary_emb_base"] = rope["rope_theta"]
    return older


def with_older_tokens(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tokenizer's configuration under the names of transformers 4, which 5 reads as well.

    Where it was loaded from is left out.
    """
    older = {name: value for name, value in config.items() if name not in ("is_local", "local_files_only")}
    if config.get("tokenizer_class") == "TokenizersBackend":
        older["tokenizer_class"] = ANY_FAST_TOKENIZER
    if isinstance(config.get("extra_special_tokens"), list):
        older["additional_special_tokens"] = older.pop("extra_special_tokens")
    return older
