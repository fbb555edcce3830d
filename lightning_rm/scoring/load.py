"""`load_model`: from a name or folder of a reward model to the model and its tokenizer, ready to score.

A run, a Hugging Face folder or hub name, the average of WARM, an ensemble and members of one backbone are all read
here, by commands, the server and notebooks alike. It knows folders; no text and no batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_rm.data.tokenize.tokenizer import check_tokenizer, definition, load_tokenizer
from lightning_rm.devices import known_device
from lightning_rm.digests import chunks_digest, fingerprint
from lightning_rm.globs import by_numbers
from lightning_rm.model_paths import check_model_path
from lightning_rm.models.backbone.checkpoint import Checkpoint, names_classifier
from lightning_rm.models.backbone.folder import is_ensemble, is_members
from lightning_rm.models.ensembles.ensemble import RewardEnsemble
from lightning_rm.models.ensembles.files import member_folders
from lightning_rm.models.ensembles.members import MemberRewardModel
from lightning_rm.models.protocol import AnyRewardModel
from lightning_rm.models.reward_model import RewardModel
from lightning_rm.told import read_object

ALIGNMENT = 64
"""Bytes of which torch's own memory on a CPU begins at multiples."""


class LoadedModel(NamedTuple):
    """A reward model in evaluation mode, and its tokenizer."""

    model: AnyRewardModel
    tokenizer: PreTrainedTokenizerBase

    def digest(self) -> str:
        """Return 16 hex digits that change with the weights, settings such as an ensemble's aggregate, and the
        tokenizer.
        """
        settings = {name: value for name, value in vars(self.model).items() if isinstance(value, str | float)}
        told = fingerprint(
            tokenizer=definition(self.tokenizer), template=self.tokenizer.chat_template, settings=settings
        )
        return chunks_digest(chain([told.encode()], _weights(self.model)))[:16]


def load_model(
    path: str | Path,
    *,
    weights: str = "best",
    tokenizer: PreTrainedTokenizerBase | None = None,
    dtype: str | torch.dtype = "float32",
    attn_implementation: str | None = None,
    device: str | torch.device | None = None,
    new_head: bool = False,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a reward model to score with.

    Args:
        path: a run's folder (its `model/best` is read), a Hugging Face folder or hub name, or a folder that
            `RewardEnsemble` or `MemberRewardModel` wrote: an ensemble answers as one, members answer one by one.
        weights: `best` or `last`, of a run.
        tokenizer: one to use in place of the model's own.
        dtype: of the backbone; heads and rewards are float32.
        attn_implementation: as `RewardModel.from_pretrained`'s.
        device: where to put the model; None leaves it on the CPU.
        new_head: score with a head of random weights, as a control; not for members.
        trust_remote_code: whether the model may run code that it brings; nobody is ever asked.

    Returns:
        The model in evaluation mode, and its tokenizer.

    Raises:
        ValueError: if there is no model, it has no trained head, or this machine has no such device.
    """
    check_model_path(path)
    if tokenizer is not None:
        check_tokenizer(tokenizer)
    place = None if device is None else known_device(device)
    folder = find_folder(Path(path), weights)
    if folder is None:
        if (Path(path) / "config.yaml").is_file():
            raise ValueError(f"{path} is a run without weights in model/{weights}; has its training finished?")
        check_not_above_runs(Path(path), weights)
        if Path(path).is_dir():
            Checkpoint.at(path).config()  # says where in it a model is, if one is
        folder = path  # a hub name
    if tokenizer is None:
        first = member_folders(folder)[0] if is_ensemble(folder) else folder
        tokenizer = load_tokenizer(first, trust_remote_code=trust_remote_code)
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "trust_remote_code": trust_remote_code,
    }
    if is_members(folder):
        model = MemberRewardModel.load(folder, **options)
    else:
        load = RewardEnsemble.load if is_ensemble(folder) else RewardModel.from_pretrained
        model = load(folder, new_head=new_head, **options)
    if model.untrained_head is not None:
        raise ValueError(
            f"{model.untrained_head} holds no trained reward head: its rewards would be those of random weights. Train "
            "a reward model from it first; as a control, evaluate takes it as untrained=..., and load_model with "
            "new_head=True"
        )
    return LoadedModel(_aligned(model.to(place or "cpu").eval()), tokenizer)


def _aligned(model: AnyRewardModel) -> AnyRewardModel:
    """Copy weights that lie in the map of a file at odd addresses to where torch's own memory begins.

    Sums over them are taken in another order there by some processors: the rewards of a model that is loaded would
    differ in their last digits from those of the same model in memory, and those of Ray's workers from the plain
    engine's.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()
    return model


def check_loaded(given: object, name: str) -> None:
    """Check that what is given for a model is a name, a folder, or a model with its tokenizer.

    Raises:
        ValueError: if it is not.
    """
    pair = cast("tuple[object, ...]", given) if isinstance(given, tuple) else ()
    if not isinstance(given, str | Path) and not (len(pair) == 2 and isinstance(pair[0], AnyRewardModel)):
        raise ValueError(f"{name} is of the type {type(given).__name__}; give a folder, or (model, tokenizer)")


def find_folder(run: Path, weights: str = "best") -> Path | None:
    """Return the Hugging Face folder of a run (`RUN/model/best`), or a path that is one, or an ensemble; else None.

    Args:
        run: a run's folder, or a Hugging Face folder.
        weights: `best` or `last`.

    Raises:
        ValueError: for other weights.
    """
    if weights not in ("best", "last"):
        raise ValueError(f"weights={weights!r}: a run has 'best' and 'last'")
    for folder in (run / "model" / weights, run):
        if (folder / "config.json").is_file() or is_ensemble(folder):
            return folder
    return None


def models_at(folder: Path, weights: str) -> list[Path]:
    """Return the folder itself, where it is a run with weights or a model, and else the runs in it, if there are any.

    Raises:
        ValueError: for other weights.
    """
    return [folder] if find_folder(folder, weights) else runs_in(folder, weights)


def runs_in(folder: Path, weights: str = "best", depth: int = 2) -> list[Path]:
    """Return the runs of reward models in a folder that is no model itself, at most `depth` folders down.

    `runs/baseline` stands for `runs/baseline/DATE`, and for the jobs of a sweep, `runs/baseline/DATE/0`. Hidden folders
    and policies, which are trained in such folders too, are left out.
    """
    found: list[Path] = []
    for inner in sorted(folder.glob("[!.]*/"), key=lambda inner: by_numbers(str(inner))):
        model = inner / "model" / weights
        if find_folder(model) == model:
            is_model = is_ensemble(model) or names_classifier(read_object(model / "config.json").get("architectures"))
            found += [inner] if is_model else []
        elif depth > 1:
            found += runs_in(inner, weights, depth - 1)
    return found


def check_not_above_runs(folder: Path, weights: str = "best") -> None:
    """Check that a folder that is no model has no runs in it, of which one may be meant.

    Raises:
        ValueError: if it has; it names the last one.
    """
    if runs := runs_in(folder, weights, depth=3):
        one = "a run" if len(runs) == 1 else f"{len(runs)} runs"
        raise ValueError(f"{folder} is no model, but has {one} in it; name one: {runs[-1]}")


def _weights(model: AnyRewardModel) -> Iterator[bytes | memoryview]:
    """Yield every weight's name, type and shape, and its bytes."""
    for name, value in model.state_dict().items():
        tensor = cast(Tensor, value).detach().cpu().contiguous()
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.flatten().view(torch.uint8).numpy().data
