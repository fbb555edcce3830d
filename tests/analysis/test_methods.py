from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_rm.analysis.find_runs import find_runs
from lightning_rm.analysis.methods import differing, methods_of
from lightning_rm.analysis.runs import Run
from tests.analysis.made_runs import write_run


def run(name: str, seed: int, folder: str = "", **settings: Any) -> Run:
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    return Run(Path(folder or f"{name}{seed}"), name, seed, {}, {"name": name, "seed": seed, **dotted})


def blocks(runs: list[Run]) -> dict[str, list[tuple[str, ...]]]:
    return {method.name: sorted(method.runs) for method in methods_of(runs)[0]}


def test_seeds_repeat_a_method_and_worlds_make_blocks() -> None:
    runs = [
        run(name, seed, data__world_seed=world, data__module__seed=seed, init_seed=seed)
        for name in ("b", "a")
        for world in (0, 1)
        for seed in (0, 1)
    ]
    both = [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    assert blocks(runs) == {"b": both, "a": both}


def test_settings_split_a_name_whose_runs_share_a_block() -> None:
    """An option that follows another makes no second name; where no two runs share a block nothing is split."""
    runs = [run("a", seed, f"{seed}{lr}", lr=lr, optimizer__lr=lr) for lr in (0.1, 1e-5) for seed in (0, 1)]
    assert blocks(runs) == {"a lr=0.1": [("0",), ("1",)], "a lr=1e-05": [("0",), ("1",)]}
    assert blocks([run("a", 0, lr=0.1), run("a", 1, lr=0.2)]) == {"a": [("0",), ("1",)]}


def test_other_seeds_are_of_the_block_and_no_run_is_lost() -> None:
    """Runs of one seed with weights begun otherwise repeated one another, and all but the last were left out."""
    runs = [
        run(name, seed, f"{name}{seed}{init}", init_seed=init, backbone__seed=init)
        for name in ("b", "a")
        for seed in (0, 1)
        for init in (0, 1)
    ]
    every = [("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")]
    assert blocks(runs) == {"b": every, "a": every}
    assert not methods_of(runs)[1]


def test_a_seed_that_only_one_method_has_makes_methods_of_it() -> None:
    runs = [run("b", 0), *(run("a", 0, f"{seed}", queue__seed=seed) for seed in (1, 2))]
    assert blocks(runs) == {"b": [("0",)], "a queue.seed=1": [("0",)], "a queue.seed=2": [("0",)]}


def test_no_two_methods_have_one_name() -> None:
    runs = [run("a b=1", 0), run("a", 0, "x", b=1), run("a", 0, "y", b=2)]
    assert list(blocks(runs)) == ["a b=1", "a b=1 (2)", "a b=2"]


def test_runs_are_found_with_2_before_10(tmp_path: Path) -> None:
    """The first is what others are compared with: it was 10."""
    for name in ("lr=10", "lr=2", "lr=0.05", "lr=0.1", "lr=1e-3", "b/11", "b/9"):
        write_run(tmp_path / name, "a", 0, {})
    found = [str(one.folder.relative_to(tmp_path)) for one in find_runs("runs", [f"{tmp_path}/lr*", f"{tmp_path}/b"])]
    assert found == ["lr=1e-3", "lr=0.05", "lr=0.1", "lr=2", "lr=10", "b/9", "b/11"]


def test_single_runs_do_not_hide_those_of_a_sweep_beside_them(tmp_path: Path) -> None:
    """runs/a/DAY is a run, runs/a/DAY/0 one of a sweep of that name: these were left out. None lies within a run."""
    for name in ("a/3", "a/1/0", "a/1/1", "a/4/inner", "a/.hidden/0", "a/1/2/deep"):
        write_run(tmp_path / name, "a", 0, {})
    (tmp_path / "a" / "4" / "config.yaml").write_text("name: a\nseed: 0\n")
    found = [str(one.folder.relative_to(tmp_path)) for one in find_runs("runs", f"{tmp_path}/*")]
    assert found == ["a/1/0", "a/1/1", "a/3", "a/4"]


def test_jobs_of_a_sweep_that_never_began_are_named(tmp_path: Path) -> None:
    """They leave no configuration: nobody was told that a sweep had more jobs than its report has runs."""
    for number, error in enumerate((None, "data.max_tokens=9999", "lost", None)):
        folder = tmp_path / "sweep" / str(number)
        folder.mkdir(parents=True) if number in (1, 3) else write_run(folder, "a", number, {})
        (folder / "job.json").write_text(json.dumps({"overrides": [], "error": error}))
    for named in (tmp_path, tmp_path / "sweep" / "*"):  # 3 is done, and was no training
        told = rf"runs='{named}': 1 job of a sweep left no run, and is not among those here: .*/sweep/1 \(job.json "
        with pytest.warns(UserWarning, match=told.replace("*'", r"\*'")):
            assert [run.seed for run in find_runs("runs", named)] == [0, 2]


def test_a_set_has_no_subsets_that_are_other_sets(tmp_path: Path) -> None:
    sets = {"test": {"accuracy": 0.5, "ood/accuracy": 0.6, "easy/accuracy": 0.7}, "test__ood": {"accuracy": 0.6}}
    write_run(tmp_path / "a", "a", 0, {}, **sets)
    (run,) = find_runs("runs", tmp_path / "a")
    assert run.results() == {"test": {"accuracy": 0.5, "easy/accuracy": 0.7}, "test/ood": {"accuracy": 0.6}}
    assert run.value("ood/accuracy") == 0.6


def test_more_settings_than_a_name_takes_end_in_the_folder_or_a_number() -> None:
    settings: list[dict[str, Any]] = [{"p": n, "q": -n, "r": n + 0.5, "s": f"x{n}"} for n in (0, 1)]
    runs = [run("a", 0, f"runs/mine_{n}", **settings[n]) for n in (0, 1)]
    assert list(blocks(runs)) == ["a p=0 q=0 r=0.5 (mine_0)", "a p=1 q=-1 r=1.5 (mine_1)"]
    several = [*runs, run("a", 1, "runs/mine_2", **settings[0])]
    assert list(blocks(several)) == ["a p=0 q=0 r=0.5 (settings 0)", "a p=1 q=-1 r=1.5 (settings 1)"]


def test_what_a_run_is_stands_before_its_other_settings() -> None:
    """Runs that nobody named, of which one has members: their learning rates and the like came first, and hid it."""
    kinds: tuple[dict[str, Any], ...] = ({"contrast___target_": "x.SimCSE"}, {"members___target_": "x.Members"})
    runs = [run("a", 0, f"{n}", a=n, b=-n, c=n + 0.5, d=f"x{n}", **kinds[n]) for n in (0, 1)]
    assert list(blocks(runs)) == ["a contrast=SimCSE members=– a=0 (0)", "a contrast=– members=Members a=1 (1)"]


def test_runs_of_two_modules_never_repeat_one_another() -> None:
    """All that nobody named are called baseline: with seeds of their own, a MetaRM and a BaselineRM had one mean."""
    classes = ("BaselineRM", "BaselineRM", "MetaRM")
    runs = [run("baseline", seed, module___target_=f"x.{name}") for seed, name in enumerate(classes)]
    assert blocks(runs) == {"baseline module=BaselineRM": [("0",), ("1",)], "baseline module=MetaRM": [("2",)]}


def test_of_runs_that_are_the_same_the_later_counts() -> None:
    first, second, third = (run("a", 0, folder) for folder in ("x", "y", "z"))
    methods, repeated = methods_of([first, second, third])
    assert [method.runs for method in methods] == [{("0",): third}]
    assert repeated == [(first, third), (second, third)]


def test_of_runs_that_are_the_same_the_last_that_has_ended_counts(tmp_path: Path) -> None:
    """A repetition that was stopped took the place of a run with results."""
    ended = {"val": {"accuracy": 0.5}}
    for name, results in (("x", ended), ("y", ended), ("z", {})):
        write_run(tmp_path / name, "a", 0, {}, **results)
    (method,), repeated = methods_of(find_runs("runs", f"{tmp_path}/*"))
    assert [one.folder.name for one in method.runs.values()] == ["y"]
    assert [(left.folder.name, counts.folder.name) for left, counts in repeated] == [("x", "y"), ("z", "y")]


def test_how_a_run_began_and_went_on_makes_no_method_of_it() -> None:
    """The second seed of the first rate was stopped and resumed: it was a method by itself."""
    runs = [run("a", seed, f"{lr}{seed}", lr=lr, resume=None) for lr in (1, 2) for seed in (0, 1)]
    runs[1] = run("a", 1, "11", lr=1, resume="11/checkpoints/resume.ckpt", overwrite=True, checkpoint__every=5, show=2)
    assert blocks(runs) == {"a lr=1": [("0",), ("1",)], "a lr=2": [("0",), ("1",)]}
    again = run("a", 0, "again", lr=1, resume="again/checkpoints/resume.ckpt")
    assert methods_of([*runs, again])[1] == [(runs[0], again)]


def test_what_differs_stands_once_without_seeds_and_places() -> None:
    same: dict[str, Any] = {"module___target_": "x.y.Base", "contrast": None}
    runs = [
        run("a", 0, paths__run="a", optimizer__lr=0.1, module__optimizer__lr=0.1, **same),
        run("a", 1, paths__run="b", optimizer__lr=0.2, module__optimizer__lr=0.2, **same),
        run("b", 0, optimizer__lr=0.1, module__optimizer__lr=0.1, module___target_="x.z.More", contrast__samples="both",
            contrast___partial_=True),
    ]  # fmt: skip
    assert differing(methods_of(runs)[0]) == [
        ("contrast.samples", 0, {"a": "–", "b": "both"}),
        ("module", 0, {"a": "Base", "b": "More"}),
        ("optimizer.lr", 1, {"a": "0.1, 0.2", "b": "0.1"}),
    ]
