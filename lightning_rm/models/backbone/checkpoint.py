"""Where weights are: a folder, a hub name or a GGUF file, and the configuration that lies there.

It says what is wrong with a place in a user's words. It reads no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig

from lightning_rm.checksums import check_texts
from lightning_rm.model_paths import check_model_path
from lightning_rm.models.backbone.text_tower import text_config
from lightning_rm.told import read_object

CLASSIFIER = "ForSequenceClassification"
MAX_LAYERS = 10_000
"""Of a model, each built before its weights are looked for; the deepest known have some hundred."""


@dataclass(frozen=True)
class Checkpoint:
    """Where weights are.

    Args:
        path: a folder, a hub name, or a `.gguf` file.
        gguf_file: the name of a GGUF file within `path`.
        trust_remote_code: whether the model may run code that it brings.
    """

    path: str
    gguf_file: str | None = None
    trust_remote_code: bool = field(default=False, kw_only=True)  # so that whoever says it names it

    @classmethod
    def at(cls, path: str | Path, gguf_file: str | None = None, *, trust_remote_code: bool = False) -> Checkpoint:
        """Return the checkpoint at a path; a path that names a `.gguf` file is its folder and the file.

        Raises:
            ValueError: if it is a checkpoint or another file, or a GGUF file is asked for and the packages that read it
                are not installed.
        """
        check_model_path(path)
        place = Path(path)
        if place.suffix == ".gguf" and gguf_file is None:
            if not place.is_file():
                raise ValueError(f"path={str(path)!r}: there is no such file")
            path, gguf_file = place.parent, place.name
        missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
        if gguf_file is not None and missing:
            raise ValueError(
                f"{gguf_file} is a GGUF file, and {' and '.join(missing)} not installed; "
                "pip install 'lightning-rm[gguf]'"
            )
        return cls(str(path), gguf_file, trust_remote_code=trust_remote_code)

    @property
    def origin(self) -> str:
        """How error messages call it."""
        return f"path={self.path!r}" + (f", gguf_file={self.gguf_file!r}" if self.gguf_file else "")

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that every `from_pretrained` of transformers takes."""
        options: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        return options | ({"gguf_file": self.gguf_file} if self.gguf_file else {})

    def config(self) -> PreTrainedConfig:
        """Return its configuration, set to one label; for a model of images and text, that of its text tower.

        Raises:
            ValueError: if nothing is there, or a classifier with another number of labels.
        """
        folder = Path(self.path)
        if folder.is_dir() and self.gguf_file is None and not (folder / "config.json").is_file():
            if (folder / "adapter_config.json").is_file():
                raise ValueError(
                    f"{self.origin} holds a LoRA adapter alone; merge it into its backbone first, by peft's "
                    "merge_and_unload(), and save that with the tokenizer"
                )
            below = sorted(str(found.parent) for depth in ("*", "*/*") for found in folder.glob(f"{depth}/config.json"))
            raise ValueError(
                f"{self.origin}: the folder holds no model, there is no config.json in it; "
                + (
                    f"there is one in {', '.join(below)}"  # of a run, its best and last weights
                    if 0 < len(below) < 5
                    else "give a folder in Hugging Face format, or name a GGUF file in it with gguf_file="
                )
            )
        if self.gguf_file is None:
            check_texts(folder)
            for file in (folder / name for name in ("config.json", "adapter_config.json")):
                if file.is_file():
                    read_object(file)
        try:
            config = text_config(cast(PreTrainedConfig, AutoConfig.from_pretrained(self.path, **self.options)))
        except StrictDataclassError as error:
            raise ValueError(f"{self.origin}: its config.json: {' '.join(str(error).split())}") from error
        except OSError as error:
            if folder.is_dir():
                raise ValueError(f"{self.origin}: the folder holds no model that can be read: {error}") from error
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{self.origin}: there is no folder of that name, and the Hugging Face hub gave no model of that name "
                f"({reason}). Give an existing folder, or a name that the hub or its cache here knows."
            ) from error
        if (layers := int(getattr(config, "num_hidden_layers", None) or 0)) > MAX_LAYERS:
            raise ValueError(
                f"{self.origin}: its config.json says num_hidden_layers={layers:,}, and no model has more than "
                f"{MAX_LAYERS:,}: they would fill the memory"
            )
        if is_classifier(config) and config.num_labels != 1:
            raise ValueError(
                f"{self.origin}: a classifier with {config.num_labels} labels, and a reward model has one; "
                "start from its causal or base model"
            )
        if not is_classifier(config) and hasattr(
            config, "classifier_pooling"
        ):  # ModernBERT's; a new head reads token 0
            config.classifier_pooling = "cls"
        return config


def is_classifier(config: PreTrainedConfig) -> bool:
    """Tell whether a checkpoint's own head is a sequence classifier's."""
    return names_classifier(config.architectures)


def names_classifier(architectures: Sequence[str] | None) -> bool:
    """Tell whether the `architectures` of a configuration name a sequence classifier; one may name none."""
    return any(name.endswith(CLASSIFIER) for name in architectures or ())
