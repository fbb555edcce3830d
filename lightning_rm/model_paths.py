"""What a user may name in place of a model's folder: a file in it, or a checkpoint of its training.

It knows names, and how a run's folder is laid out; not what is in a file.
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def check_model_path(path: object) -> None:
    """Check that a path, if it is there, can be a model's folder or a `.gguf` file.

    Raises:
        ValueError: if it is a checkpoint or another file, or no path; it says what to name, or to call, in its place.
    """
    if not isinstance(path, str | Path):
        raise ValueError(f"{path!r} does not name a model: give a folder, a hub name or a .gguf file")
    place = Path(path).expanduser()
    if place.suffix == ".ckpt" and place.exists():
        run = place.resolve().parent.parent
        models = [folder for folder in (run / "model/best", run / "model/last") if (folder / "config.json").is_file()]
        exported = f"the models of this run are {' and '.join(map(str, models))}" if models else "name a model's folder"
        raise ValueError(
            f"{str(path)!r} is a checkpoint, from which training goes on (lightning-rm train resume=...), and not a "
            f"model: {exported}; a checkpoint's own weights are read by BaselineRM.load_from_checkpoint, and "
            ".export(FOLDER, tokenizer) of that writes a model"
        )
    if place.is_file() and place.suffix != ".gguf":
        what = "a file of weights" if place.suffix in WEIGHTS else "a file"
        raise ValueError(f"{str(path)!r} is {what}, and a model is a folder: name {str(place.parent)!r}")
