"""`benchmarks/paper.py`: what its verdicts make of numbers, on both sides of every claim; and the whole command, tiny.

The command trains every model of every stage once, on a hundred pairs.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_rm.data.synthetic.tokenizer import world_tokenizer
from lightning_rm.models.reward_model import RewardModel
from tests.figures import draw_nothing
from tests.tiny import CONFIGS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_part_holds_where_its_whole_interval_lies_between_the_bounds() -> None:
    """Of .1, .2 and .3 the mean is .2 and the interval .2 -+ 4.303 x .1 / sqrt(3) = [-.048, .448]."""
    part = importlib.import_module("paper_parts.verdicts").part
    values = [0.1, 0.2, 0.3]
    assert part("", values).found == "0.200 [-0.048, 0.448]"
    assert part("", values, -0.05).state == "holds"
    assert part("", values, -0.04).state == "cannot be told"
    assert part("", values, 0.45).state == "does not hold"
    assert part("", values, high=-0.05).state == "does not hold"
    assert part("", values, -0.05, 0.44).state == "cannot be told"
    assert part("", [0.2], 0.0).state == "cannot be told"
    assert part("", [], 0.0).state == "cannot be told"


def test_a_claim_is_its_worst_part() -> None:
    verdicts = importlib.import_module("paper_parts.verdicts")

    def state(*states: str) -> str:
        parts = tuple(verdicts.Part("", "", state) for state in states)
        return verdicts.Verdict("a", "", "", parts).state

    assert state("holds", "holds") == "holds"
    assert state("holds", "cannot be told") == "cannot be told"
    assert state("cannot be told", "does not hold") == "does not hold"
    assert state() == "cannot be told"


def papers(shift: float) -> dict[str, dict[str, Any]]:
    """A world's figures with the paper's shape, a little apart from world to world."""
    rising = np.linspace(0.1, 0.97, 20)
    std = [0.33, 0.3, 0.25, *[0.22] * 14, 0.3, 0.41, 0.56]
    alone = [0.33, 0.35, 0.45, 0.56, 0.65, 0.68, 0.68, 0.68, 0.67, 0.66]
    curves = {"baseline": [0.82, 0.80], "flip": [0.80, 0.82], "margin": [0.83, 0.82]}
    curves |= {"flip_margin": [0.82, 0.83], "soft_label_margin": [0.82, 0.83]}
    accuracies = {"baseline": 0.70, "two_views": 0.70, "simcse": 0.73, "simcse_diff": 0.71, "swav": 0.71}

    def row(difference: float, correlation: float, gold: float, clean: float = 0.7) -> dict[str, Any]:
        told = {"difference": difference + shift, "gold_correlation": correlation}
        return {"clean": clean, "policy_64": told, "gold": {"64": gold + shift}}

    return {
        "strength": {
            "share_negative": 0.25 + shift,
            "share_wrong": 0.25,
            "group_std": [value + shift / 10 for value in std],
            "group_clean": (rising + shift / 10).tolist(),
        },
        "deciles": {"alone": [value + shift for value in alone], "turned": [0.67 + 2 * shift, 0.65 + 2 * shift]},
        "top": {"baseline": 0.659, "margin": 0.669, "soft": 0.667, "soft_margin": 0.683 + shift, "soft_loss": 0.5},
        **{f"recipe_{name}": {"after_epoch": [first, last + shift / 10]} for name, (first, last) in curves.items()},
        "policy_baseline": row(0.1, 0.0, 9.4),
        "policy_meta_1": row(0.3, 0.2, 9.5),
        "policy_meta_2": row(0.3, 0.2, 9.6),
        **{f"contrast_{name}": {"accuracy": value, "separation": 0.5} for name, value in accuracies.items()},
        "contrast_swav_diff": {"accuracy": 0.71 + shift, "separation": 0.5},
        "contrast_simcse": {"accuracy": 0.73 + shift, "separation": 0.6 + shift},
    }


def moved(world: dict[str, dict[str, Any]], *path: str | int, by: float) -> None:
    """Change one number of a world, deep within it."""
    place: Any = world
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] += by


AGAINST: dict[str, tuple[str | int, ...]] = {
    "a": ("strength", "share_negative"),
    "b": ("strength", "group_std", 10),
    "c": ("strength", "group_clean", 0),
    "d": ("deciles", "alone", 0),
    "e": ("deciles", "alone", 1),
    "f": ("top", "baseline"),
    "g": ("recipe_baseline", "after_epoch", -1),
    "h": ("policy_baseline", "policy_64", "difference"),
    "i": ("contrast_two_views", "accuracy"),
}
"""Claim -> a number that, made larger, speaks against it."""


@pytest.mark.parametrize("letter", AGAINST)
def test_each_claim_holds_of_the_papers_shape_and_fails_without_it(letter: str) -> None:
    claims = importlib.import_module("paper_parts.claims").CLAIMS
    claim: Callable[[list[Any]], Any] = claims["abcdefghi".index(letter)]
    worlds = [papers(shift) for shift in (-0.002, 0.0, 0.002)]
    found = claim(worlds)
    assert found.letter == letter
    assert {part.says: part.state for part in found.parts} == {part.says: "holds" for part in found.parts}
    for world in worlds:
        moved(world, *AGAINST[letter], by=0.9 if letter != "b" else 4.0)
    assert claim(worlds).state == "does not hold"
    assert claim([]).state == "cannot be told"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("size=huge", "size=huge; choose one of test, small, full"),
        ("folder=x", "'folder=x' is not a setting; write out=..."),
        ("jobs=0", "jobs=0; give the number of processes, 1 or more"),
        ("only=claims", "only=claims; page is the one part"),
    ],
)
def test_a_word_that_is_no_setting_is_said(word: str, message: str) -> None:
    told = importlib.import_module("paper").told
    assert told(["out=there"])["out"] == "there"
    with pytest.raises(ValueError, match=message.partition("=...")[0]):
        told([word])


def test_a_folder_is_of_one_size(tmp_path: Path) -> None:
    claimed = importlib.import_module("paper").claimed
    claimed(tmp_path / "run", "small")
    claimed(tmp_path / "run", "small")
    with pytest.raises(ValueError, match="is a run of size=small; give size=small, or another folder"):
        claimed(tmp_path / "run", "full")


def test_a_start_whose_training_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command goes on where it was: the folder of a run that was stopped is begun again by `resume=auto`."""
    paper, asked = importlib.import_module("paper"), list[str]()
    monkeypatch.setattr(paper, "started", lambda *words: asked.extend(words))
    monkeypatch.setattr(paper, "ended", lambda processes: None)
    assert paper.trained(tmp_path, "test") == str(tmp_path / "sft" / "model" / "last")
    assert {"experiment=sft", f"hydra.run.dir={tmp_path / 'sft'}", "resume=auto"} <= set(asked)


def test_the_sizes_of_both_files_are_the_same() -> None:
    """The command that starts the processes imports nothing that they need."""
    assert set(importlib.import_module("paper").SFT_PAIRS) == set(importlib.import_module("paper_parts.sizes").SIZES)


def test_every_stage_runs_once_and_ends_in_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is done is not done again: nothing is trained where every stage is there."""
    start, out = tmp_path / "start", tmp_path / "out"
    config = {**CONFIGS["llama"], "max_position_embeddings": 256}
    RewardModel.from_config(config, tokenizer=world_tokenizer()).save_pretrained(start, world_tokenizer())
    main, stages, world = (importlib.import_module(f"paper_parts.{name}") for name in ("__main__", "stages", "world"))
    size = importlib.import_module("paper_parts.sizes").SIZES["test"]
    main.work(out, size, str(start), 0, 1)
    done = {path.stem: path.read_bytes() for path in (out / "worlds" / "0" / "stages").glob("*.json")}
    assert set(done) == set(stages.stages(size))
    assert len(json.loads(done["deciles"])["alone"]) == 10
    assert len(json.loads(done["recipe_flip"])["after_epoch"]) == size.recipe_epochs
    monkeypatch.setattr(world.World, "train", None)  # would not do
    main.work(out, size, str(start), 0, 1)
    page = importlib.import_module("paper_parts.page")
    draw_nothing(monkeypatch)
    html, markdown, *figures = page.write(out, "test", {"pairs": size.pairs})
    assert html.read_text().count("<svg") >= len(figures) == 14
    assert "| i | SimCSE on responses is the best contrast" in markdown.read_text()
    (numbers,) = json.loads((out / "paper.json").read_text())["worlds"]
    assert numbers["deciles"] == json.loads(done["deciles"])
    assert set(numbers) == set(done)
