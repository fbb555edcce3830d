"""The temperature of a model, stored where consumers of its folder look: in `config.json`, under `lightning_rm`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_rm.checksums import rewriting
from lightning_rm.drafts import write_json
from lightning_rm.told import read_object

SECTION = "lightning_rm"
"""The key of `config.json` under which this package keeps what transformers does not know."""


def store_temperature(folder: str | Path, temperature: float) -> Path:
    """Write a temperature into a model's folder: its rewards divided by it are calibrated.

    Args:
        folder: a Hugging Face folder, or an ensemble's.
        temperature: fitted on validation pairs.

    Returns:
        The file, written whole or not at all.

    Raises:
        ValueError: if the folder is not a model's.
    """
    names = ("ensemble.json", "config.json")
    file = next((Path(folder) / name for name in names if (Path(folder) / name).is_file()), None)
    if file is None:
        raise ValueError(f"{folder} has no config.json to store a temperature in")
    settings: dict[str, Any] = read_object(file)
    settings[SECTION] = {**settings.get(SECTION, {}), "temperature": temperature}
    with rewriting(file):
        write_json(file, settings)
    return file
