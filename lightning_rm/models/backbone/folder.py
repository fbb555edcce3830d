"""Which files of a folder say what a model is, so that an export replaces these and leaves all else alone.

This table is all that writers and readers of folders share. It knows names; not what is in a file.
"""

from __future__ import annotations

import re
from pathlib import Path

MEMBERS_FILE = "members.safetensors"
"""Beside an average of members on one backbone: their heads and adapters. They fit no other weights."""

ENSEMBLE_FILE = "ensemble.json"
"""Beside folders of several models: which they are, and how they answer as one."""

MODEL_FILES = re.compile(
    r"(config|generation_config|checksums|ensemble|adapter_config|lightning_rm)\.json|(model|adapter_model|members)(-\d{5}-of-\d{5})?\.safetensors"
    r"|model\.safetensors\.index\.json|pytorch_model.*\.bin(\.index\.json)?|member_\d+"
)
"""Files and folders that say what a model is: none of an earlier export may stand beside a new one."""

TOKENIZER_FILES = re.compile(
    r"(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.json|vocab\.txt|merges\.txt"
    r"|(tokenizer|sentencepiece\.bpe|spiece|spm)\.model|chat_template\.jinja|additional_chat_templates"
)
"""The same of a tokenizer."""


def is_of_model(name: str) -> bool:
    """Tell whether a file or folder of this name belongs to a model or a tokenizer: an export writes it, or takes an
    older one away, and writes its checksum down.
    """
    return MODEL_FILES.fullmatch(name) is not None or TOKENIZER_FILES.fullmatch(name) is not None


def is_no_model(name: str) -> bool:
    """Tell whether a file or folder of this name belongs to neither, so that an export leaves it alone."""
    return not is_of_model(name)


def is_members(folder: str | Path) -> bool:
    """Tell whether `MemberRewardModel.save_pretrained` wrote a folder."""
    return (Path(folder) / MEMBERS_FILE).is_file()


def is_ensemble(folder: str | Path) -> bool:
    """Tell whether `RewardEnsemble.save_pretrained` wrote a folder."""
    return (Path(folder) / ENSEMBLE_FILE).is_file()
