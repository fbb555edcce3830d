"""Every benchmark's own rule, on rows in its own form and rewards by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lightning_rm.evaluation.benchmarks import BENCHMARKS, find_benchmarks
from lightning_rm.evaluation.benchmarks.benchmark import assistant, user
from lightning_rm.evaluation.benchmarks.m_rewardbench import average
from lightning_rm.evaluation.benchmarks.model_ranks import (
    Votes,
    agreement,
    bradley_terry,
    draws_of_wins,
    separated,
    wins,
)
from lightning_rm.evaluation.benchmarks.ppe_human import rankings
from lightning_rm.evaluation.benchmarks.rewardbench import PRIOR, leaderboard_with_prior, section_scores
from lightning_rm.evaluation.benchmarks.rewardbench import combine as rewardbench_sections
from lightning_rm.evaluation.items import Item, Items
from lightning_rm.evaluation.measure import measure, random_row
from lightning_rm.evaluation.statistics import cluster_draws
from tests.evaluation.made import grid, sections, write
from tests.float64 import same


def pair(subset: str, number: int = 0, **fields: Any) -> dict[str, Any]:
    return {"prompt": f"q{number}", "chosen": "good", "rejected": "bad", "subset": subset, "id": number} | fields


def test_rewardbench_weights_subsets_within_sections() -> None:
    """`alpacaeval-easy` .9 and `mt-bench-easy` .5 alone: (100 * .9 + 28 * .5) / 128 = .8125."""
    scores = section_scores({"alpacaeval-easy": np.array(0.9), "mt-bench-easy": np.array(0.5)})
    assert {name: float(score) for name, score in scores.items()} == {"Chat": same(0.8125)}
    # math-prm has 447 rows, and counts as much as the six languages: (984 * 1 + 984 * .5) / 1968.
    code = {f"hep-{name}": np.array(0.5) for name in ("cpp", "go", "java", "js", "python", "rust")}
    assert float(section_scores({"math-prm": np.array(1.0), **code})["Reasoning"]) == same(0.75)


def test_rewardbench_mean_of_four_and_the_old_leaderboards_with_prior() -> None:
    """Sections .608939 .449561 .721622 .466757: mean .561720, with a prior of .6 at half weight .565973."""
    scores = dict(
        zip(("Chat", "Chat Hard", "Safety", "Reasoning"), (0.608939, 0.449561, 0.721622, 0.466757), strict=True)
    )
    arrays = {name: np.array(score) for name, score in scores.items()}
    assert np.mean(list(scores.values())) == pytest.approx(0.561720, abs=1e-6)
    assert float(leaderboard_with_prior(arrays, 0.6)) == pytest.approx(0.565973, abs=1e-6)
    every = {subset: np.array(0.5) for subset in BENCHMARKS["rewardbench"].expected}
    whole = rewardbench_sections({**every, "shp": np.array(0.8)})
    assert float(whole["overall"]) == 0.5
    assert float(whole["overall/with prior"]) == same((4 * 2 * 0.5 + 0.8) / 9)
    assert "overall" not in rewardbench_sections({"alpacaeval-easy": np.array(1.0)})  # never a mean of what is there
    alone = rewardbench_sections({"shp": np.array(0.8), "summarize": np.array(0.4)})
    assert list(alone.items()) == [("Prior/mean", same(0.6)), ("Prior/shp", 0.8), ("Prior/summarize", 0.4)]


def test_rewardbench_reads_its_rows_and_a_tie_is_wrong(tmp_path: Path) -> None:
    rows = [pair("alpacaeval-easy", number) for number in range(3)] + [pair("mt-bench-medium", 3)]
    items = BENCHMARKS["rewardbench"].read(write(tmp_path / "filtered.jsonl", rows))
    assert items.subset.tolist() == ["alpacaeval-easy"] * 3 + ["mt-bench-med"]
    rewards = [[1, 0], [1, 1], [0, 1], [2, 1]]
    assert sections(BENCHMARKS["rewardbench"], items, rewards)["Chat/alpacaeval-easy"] == same(1 / 3)
    assert sections(BENCHMARKS["rewardbench"], items, rewards, "half")["Chat/alpacaeval-easy"] == 0.5
    assert sections(BENCHMARKS["rewardbench"], items, rewards, "tie")["Chat/alpacaeval-easy"] == same(1 / 3)
    missing = BENCHMARKS["rewardbench"].missing(items)
    assert "missing: alpacaeval-length" in missing[0]
    assert "alpacaeval-easy: 3 of 100 rows" in missing


def rewardbench2_rows() -> tuple[list[dict[str, Any]], list[list[float]]]:
    """The worked examples: four rows of a best-of-four domain, three questions of Ties."""

    def row(subset: str, name: str, num_right: int, num_wrong: int) -> dict[str, Any]:
        right, wrong = [f"{name} right {i}" for i in range(num_right)], [f"{name} wrong {i}" for i in range(num_wrong)]
        return {
            "id": name,
            "prompt": name,
            "chosen": right,
            "rejected": wrong,
            "num_correct": num_right,
            "subset": subset,
        }

    rows = [row("Factuality", str(number), 1, 3) for number in range(4)]
    rewards: list[list[float]] = [[2, 1, 0, 1], [1, 1, 0, -1], [0, 3, 1, 1], [0.5] * 4]
    for name, right, wrong in (
        ("ref:1", [3.0], [1.0, 0.5]),
        ("tied:1", [3.0, 2.5, 2.8], [1.0, 0.0]),
        ("ref:2", [1.0], [1.2, 0.1]),
        ("tied:2", [2.0, 0.5], [0.2, -1.0]),
        ("ref:3", [2.0], [1.5]),
        ("tied:3", [1.0, 0.8], [0.9]),
    ):
        rows.append(row("Ties", name, len(right), len(wrong)))
        rewards.append([*right, *wrong])
    return rows, rewards


def test_rewardbench2_best_of_four_and_ties(tmp_path: Path) -> None:
    """Best of four 1, 1/2, 0, 1/4: .4375. Ties .2 + .2 + .2/3 + .2/3 - .00251 = .530822."""
    rows, rewards = rewardbench2_rows()
    items = BENCHMARKS["rewardbench2"].read(write(tmp_path / "test.jsonl", rows))
    scores = sections(BENCHMARKS["rewardbench2"], items, rewards)
    assert scores["Factuality"] == 0.4375
    assert scores["Ties"] == pytest.approx(0.530822, abs=1e-6)
    assert "overall" not in scores
    strict = sections(BENCHMARKS["rewardbench2"], items, rewards, "strict")
    assert strict["Factuality"] == 0.25
    assert "Ties" not in strict


@pytest.mark.parametrize(
    ("tied", "bonus"),
    [([1.0, 1.0, 0.0], 1.0), ([1.0, 1.0, 2.0], -1.0), ([1.0, 1.0, 1.0], 0.0)],
    ids=["gap above 0", "gap below 0", "gap 0"],
)
def test_ties_without_spread(tmp_path: Path, tied: list[float], bonus: float) -> None:
    rows = [
        {"id": "ref:7", "prompt": "p", "chosen": ["a"], "rejected": ["z"], "subset": "Ties"},
        {"id": "tied:7", "prompt": "p", "chosen": ["a", "b"], "rejected": ["z"], "subset": "Ties"},
    ]
    items = BENCHMARKS["rewardbench2"].read(write(tmp_path / "ties.jsonl", rows))
    assert sections(BENCHMARKS["rewardbench2"], items, [[9.0, 0.0], tied])["Ties/bonus"] == bonus


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "tied:7"}, "tied:7 has 1 right answers; ref has one, tied has several"),
        ({"id": "seven"}, "ref:NUMBER or tied:NUMBER"),
        ({"num_correct": 2}, "num_correct is 2, and 'chosen' has 1"),
        ({"subset": "Tides"}, "'subset' must be one of Factuality"),
        ({"rejected": []}, "1 right and 0 wrong"),
    ],
)
def test_a_row_that_is_not_of_the_benchmark_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    row = {"id": "ref:7", "prompt": "p", "chosen": ["a"], "rejected": ["z"], "subset": "Ties"} | change
    path = write(tmp_path / "ties.jsonl", [row])
    with pytest.raises(ValueError, match=message) as error:
        BENCHMARKS["rewardbench2"].read(path)
    assert f"{path}:1" in str(error.value)


def test_an_id_of_ties_that_stands_there_twice_is_an_error(tmp_path: Path) -> None:
    """The later of two rows `ref:7` would take the place of the earlier one."""
    rows = [
        {"id": name, "prompt": name, "chosen": ["a"], "rejected": ["z"], "subset": "Ties"}
        for name in ("ref:7", "ref:07")
    ]
    with pytest.raises(ValueError, match=r"ties\.jsonl:2 has the id ref:07 of .*ties\.jsonl:1"):
        BENCHMARKS["rewardbench2"].read(write(tmp_path / "ties.jsonl", rows))


@pytest.mark.parametrize(
    ("benchmark", "change"),
    [
        ("ppe_correctness", {"sampled_conflict_pairs": [[0, 1, 2]]}),
        ("ppe_correctness", {"sampled_conflict_pairs": [[0, -3]]}),
        ("ppe_correctness", {"sampled_conflict_pairs": [[None, 1]]}),
        ("ppe_correctness", {"sampled_conflict_pairs": [[0.5, 1]]}),
        ("ppe_correctness", {"sampled_conflict_pairs": [["0", "1"]]}),
        ("ppe_correctness", {"sampled_conflict_pairs": []}),
        ("ppe_correctness", {"sampled_conflict_pairs": "01"}),
        ("ppe_correctness", {"scores": 1}),
        ("ppe_correctness", {"scores": ["False", "True", "True", "False"]}),
        ("ppe_correctness", {"scores": [0.5, 1, 1, 0]}),
        ("ppe_correctness", {"scores": [False, True, True]}),
        ("rm_bench", {"domain": ["chat"]}),
        ("hhh", {"input": "q", "target_scores": [1, 0]}),
    ],
)
def test_a_value_of_another_kind_names_its_row(tmp_path: Path, benchmark: str, change: dict[str, Any]) -> None:
    path = write(tmp_path / "harmless_math.jsonl", [ppe_rows()[0] | change])
    with pytest.raises(ValueError, match=f"is not a row of benchmark={benchmark}: ") as error:
        BENCHMARKS[benchmark].read(path)
    assert f"{path}:1" in str(error.value)


def test_rm_bench_has_nine_cells(tmp_path: Path) -> None:
    """Chosen (1, 2, 3) and (2, 2, 2), rejected (0, 2, 4) and (1, 1, 3): hard 1/6, normal 1/2, easy 1, domain .5556."""
    rows = [
        {"id": n, "prompt": f"q{n}", "chosen": [f"{n}{s}" for s in "abc"], "rejected": [f"{n}{s}" for s in "xyz"]}
        for n in range(2)
    ]
    write(tmp_path / "chat_filtered.json", rows)
    write(tmp_path / "safety-refuse_filtered.json", [{**row, "prompt": "r"} for row in rows])
    write(tmp_path / "safety-response_filtered.json", [{**rows[0], "prompt": "s"}])
    benchmark = BENCHMARKS["rm_bench"]
    items = benchmark.read(tmp_path)
    worked = [[1, 2, 3, 0, 2, 4], [2, 2, 2, 1, 1, 3]]
    scores = sections(benchmark, items, [*worked, *worked, worked[0]])
    expected = {"chat/hard": 1 / 6, "chat/normal": 0.5, "chat/easy": 1.0, "chat": 0.555556}
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    # Both parts of safety are one matrix of three rows, not a mean of two means.
    assert scores["safety/normal"] == same((0.5 * 2 * 3 + (1 + 0 + 0)) / 9)
    assert "overall" not in scores
    assert "missing: code, math" in benchmark.missing(items)
    total = [{**row, "domain": domain} for domain in ("chat", "code", "math", "safety-refuse") for row in rows]
    items = benchmark.read(write(tmp_path / "elsewhere" / "total_dataset.json", total))
    scores = sections(benchmark, items, worked * 4)
    assert scores["overall"] == same(5 / 9)
    assert (scores["hard"] + scores["normal"] + scores["easy"]) / 3 == same(scores["overall"])


def rmb_files(folder: Path) -> Path:
    def answer(text: str) -> dict[str, str]:
        return {"llm_name": "m", "answer": text}

    def question(number: int) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"q{number}", "language": "English"}]

    def one(number: int, category: str) -> dict[str, Any]:
        common = {"conversation_input": question(number), "category_path": category}
        return {"pair_uid": str(number), "chosen": answer("good"), "reject": answer("bad"), **common}

    def best(number: int, category: str, num_losers: int) -> dict[str, Any]:
        losers = [answer(f"bad {place}") for place in range(num_losers)]
        common = {"conversation_input": question(number), "category_path": category}
        return {"bon_uid": str(number), "bon_best": answer("good"), "loser_list": losers, **common}

    helpful, harmless = "Helpfulness/Chat", "Harmlessness/S1"
    write(folder / "Pairwise_set" / "Helpfulness" / "Chat" / "Chat.json", [one(n, helpful) for n in range(4)])
    write(folder / "Pairwise_set" / "Harmlessness" / "S1.json", [one(n, harmless) for n in range(4, 6)])
    write(folder / "BoN_set" / "Helpfulness" / "Chat" / "Chat.json", [best(n, helpful, 2) for n in range(6, 8)])
    write(folder / "BoN_set" / "Harmlessness" / "S1.json", [best(8, harmless, 3)])
    return folder


def test_rmb_a_winner_must_beat_every_loser(tmp_path: Path) -> None:
    """Pairs 3 of 4 and 1 of 2; of two lists one is won, one tied; one of one: (.75 + .5 + .5 + 1) / 4 = .6875."""
    benchmark = BENCHMARKS["rmb"]
    items = benchmark.read(rmb_files(tmp_path))
    of_part = {
        "pair_helpful": [[1, 0], [1, 0], [1, 0], [0, 1]],
        "pair_harmless": [[1, 0], [0, 1]],
        "bon_helpful": [[2.0, 1.0, 1.9], [1.0, 1.0, 0.3]],
        "bon_harmless": [[4, 1, 2, 3]],
    }
    queues = {part: iter(rewards) for part, rewards in of_part.items()}
    rewards = [next(queues[part]) for part in items.subset.tolist()]
    scores = sections(benchmark, items, rewards)
    assert {part: scores[part] for part in of_part} == {
        "pair_helpful": 0.75,
        "pair_harmless": 0.5,
        "bon_helpful": 0.5,
        "bon_harmless": 1.0,
    }
    assert scores["overall"] == 0.6875
    assert scores["bon_harmless/S1"] == 1.0
    assert sections(benchmark, items, rewards, "half")["bon_helpful"] == 0.75


def judgebench_rows() -> list[dict[str, Any]]:
    labels = ["A>B", "B>A", "A>B", "B>A"]
    common = {"source": "mmlu-pro-law", "response_model": "gpt-4o-2024-05-13"}
    return [
        {"pair_id": n, "original_id": n // 2, "question": f"q{n}", "response_A": "a", "response_B": "b", "label": label}
        | common
        for n, label in enumerate(labels)
    ]


def test_judgebench_counts_a_tie_as_the_second_answer(tmp_path: Path) -> None:
    """Labels A>B, B>A, A>B, B>A and rewards (2,1), (0,1), (1,1), (1,1): 75 % single, 50 % in both orders."""
    items = BENCHMARKS["judgebench"].read(write(tmp_path / "gpt.jsonl", judgebench_rows()))
    rewards = [[2, 1], [0, 1], [1, 1], [1, 1]]
    assert sections(BENCHMARKS["judgebench"], items, rewards)["overall"] == 0.75
    assert sections(BENCHMARKS["judgebench"], items, rewards, "strict")["overall"] == 0.5
    assert len(set(items.cluster.tolist())) == 2


def test_llmbar_means(tmp_path: Path) -> None:
    """Natural 1/2, adversarial 0/1, 1/1, 1/2, 1/1: adversarial mean .625, mean of five .60, micro 4/7."""
    counts = {"Natural": 2, "Neighbor": 1, "GPTInst": 1, "GPTOut": 2, "Manual": 1}
    for name, number in counts.items():
        folder = tmp_path / ("Natural" if name == "Natural" else f"Adversarial/{name}")
        rows = [{"input": f"{name} {n}", "output_1": "a", "output_2": "b", "label": 2 - n % 2} for n in range(number)]
        write(folder / "dataset.json", rows)
    items = BENCHMARKS["llmbar"].read(tmp_path)
    right = {"natural": [1, 0], "neighbor": [0], "gptinst": [1], "gptout": [1, 0], "manual": [1]}
    queues = {name: iter(values) for name, values in right.items()}
    rewards = [item.gold if next(queues[item.subset]) else item.gold[::-1] for item in items]
    scores = sections(BENCHMARKS["llmbar"], items, rewards)
    assert scores["adversarial"] == 0.625
    assert scores["overall"] == same(0.6)
    assert scores["overall/micro"] == same(4 / 7)


def test_hhh_cuts_a_flat_dialogue_into_turns(tmp_path: Path) -> None:
    """Harmless 50/58, helpful 48/59, honest 45/61, other 37/43: micro .8145, macro .8185."""
    flat = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: is it so?\n\nAssistant:"
    row = {"input": flat, "targets": {"choices": ["yes", "no"], "labels": [0, 1]}}
    scores = {"yes": 1, "no": 0}
    for name, rows in {
        "harmless": [{**row, "input": f"{number}"} for number in range(58)],
        "helpful": [row, *({**row, "input": f"Human: {number}"} for number in range(58))],
        "honest": [pair("honest", number) for number in range(61)],
    }.items():
        write(tmp_path / f"{name}.jsonl", rows)
    task = {"examples": [{"input": f"{number}", "target_scores": scores} for number in range(43)]}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "task.json").write_text(json.dumps(task))
    items = BENCHMARKS["hhh"].read(tmp_path)
    assert BENCHMARKS["hhh"].missing(items) == []
    dialogue = next(item for item in items if len(item.prompt) > 1)
    assert [turn["role"] for turn in dialogue.prompt] == ["user", "assistant", "user"]
    num_right = {"harmless": 50, "helpful": 48, "honest": 45, "other": 37}
    rewards = []
    for item in items:
        num_right[item.subset] -= 1
        rewards.append([gold if num_right[item.subset] >= 0 else -gold for gold in item.gold])
    found = sections(BENCHMARKS["hhh"], items, rewards)
    assert found["overall"] == same(180 / 221)
    assert found["overall/macro"] == same((50 / 58 + 48 / 59 + 45 / 61 + 37 / 43) / 4)


@pytest.mark.parametrize(
    ("flat", "turns"),
    [
        ("hi\n\nAssistant: ho\n\nHuman: ha", ["hi", "ho", "ha"]),
        ("A hen?\n\nAssistant: ho\n\nHuman: ha\n\nAssistant:", ["A hen?", "ho", "ha"]),
        ("hi\n\nAssistant:", ["hi"]),
        ("Go on with it:\n\nAssistant: ho", ["Go on with it:\n\nAssistant: ho"]),
        ("Which one?\nA: hens\nB: cats", ["Which one?\nA: hens\nB: cats"]),
    ],
)
def test_a_dialogue_may_leave_out_its_first_mark(flat: str, turns: list[str], tmp_path: Path) -> None:
    row = {"input": flat, "targets": {"choices": ["yes", "no"], "labels": [0, 1]}}
    [item] = BENCHMARKS["hhh"].read(write(tmp_path / "helpful.jsonl", [row]))
    assert [turn["content"] for turn in item.prompt] == turns
    assert [turn["role"] for turn in item.prompt] == ["user", "assistant", "user"][: len(turns)]


def ppe_rows() -> list[dict[str, Any]]:
    right = [[0, 1, 1, 0], [0, 0, 0, 1]]
    return [
        {f"response_{place + 1}": f"{number}{place}" for place in range(4)}
        | {"question_id": number, "prompt": f"q{number}", "scores": [bool(score) for score in scores]}
        | {"sampled_conflict_pairs": [[0, 1], [1, 0], [3, 1]] if number == 0 else [[3, 0]]}
        for number, scores in enumerate(right)
    ]


def test_ppe_correctness_pairs_and_curves(tmp_path: Path) -> None:
    """B = .375, .3333, .125, 0; oracle .375, .6667, .875, 1; loss .5208, AUC .4167; 1 of 3 pairs, one named twice."""
    benchmark = BENCHMARKS["ppe_correctness"]
    items = benchmark.read(write(tmp_path / "PPE-GPQA-Best-of-K" / "train.jsonl", ppe_rows()))
    found = sections(benchmark, items, [[0.2, 0.9, 0.5, 1.1], [0.3, 0.1, 0.4, 0.2]])
    assert found["gpqa"] == same(1 / 3)
    curve = {f"gpqa/best of {k}": value for k, value in ((1, 0.375), (2, 1 / 3), (4, 0.0))}
    curve |= {"gpqa/max score": 0.375, "gpqa/end score": 0.0, "gpqa/loss": 0.520833, "gpqa/AUC": 0.416667}
    assert {name: found[name] for name in curve} == pytest.approx(curve, abs=1e-6)
    with pytest.raises(ValueError, match="not a pair of a right and a wrong response"):
        benchmark.read(write(tmp_path / "gpqa.jsonl", [{**ppe_rows()[0], "sampled_conflict_pairs": [[1, 2]]}]))


def votes() -> list[dict[str, Any]]:
    beats = [("a", "b", 4), ("b", "a", 1), ("b", "c", 3), ("c", "b", 1), ("a", "c", 4), ("c", "a", 1)]
    rows = [(winner, loser) for winner, loser, number in beats for _ in range(number)]
    return [
        {"question_id": n, "prompt": f"q{n}", "response_1": "x", "response_2": f"y{n}", "model_a": first}
        | {"model_b": second, "winner": "model_a", "language": "English", "is_code": n % 2 == 0}
        for n, (first, second) in enumerate(rows)
    ] + [{"prompt": "t", "response_1": "x", "response_2": "y", "model_a": "a", "model_b": "b", "winner": "tie"}]


def test_ppe_human_leaves_ties_out_and_ranks_models(tmp_path: Path) -> None:
    benchmark = BENCHMARKS["ppe_human"]
    items = benchmark.read(write(tmp_path / "test.jsonl", votes()))
    agreeing = [[1, 0]] * 14 + [[0, 0]]
    assert sections(benchmark, items, agreeing)["overall"] == 1.0
    found = rankings(items, grid(agreeing))
    alike = {"Spearman of ratings": 1.0, "Kendall of ratings": 1.0, "Pearson of win rates": 1.0}
    assert {name: found[name] for name in alike} == pytest.approx(alike, abs=1e-5)
    assert found["separability"] == found["separability of people's votes"]
    unnamed = benchmark.read(
        write(tmp_path / "unnamed.jsonl", [*votes(), {**votes()[0], "question_id": "other", "model_b": None}])
    )
    assert rankings(unnamed, grid([*agreeing, [0, 1]])).keys() == found.keys()
    assert rankings(benchmark.read(write(tmp_path / "two.jsonl", votes()[:5])), grid(agreeing[:5])) == {}
    opposed = sections(benchmark, items, [[0, 1]] * 14 + [[0, 0]])
    assert opposed["overall"] == opposed["overall/is_code"] == 0.0
    assert rankings(items, grid([[0, 1]] * 14 + [[0, 0]]))["Spearman of ratings"] == pytest.approx(-1.0, abs=1e-5)


def test_votes_for_neither_answer_alone_measure_nothing(tmp_path: Path) -> None:
    """Reading and measuring them passed, and the main figure was a StopIteration; so it is where other items are left
    out.
    """
    benchmark = BENCHMARKS["ppe_human"]
    ties = [{**vote, "winner": "tie"} for vote in votes()[:3]]
    with pytest.raises(ValueError, match=r"all 3 votes of benchmark=ppe_human, from .*jsonl:1 on, are for neither"):
        benchmark.read(write(tmp_path / "ties.jsonl", ties))
    items = benchmark.read(write(tmp_path / "some.jsonl", [*ties, votes()[3]]))
    left_out = np.array([False, False, False, True])
    with pytest.raises(ValueError, match=r"^m: no item of ppe_human is left to measure on$"):
        measure(benchmark, items, grid([[0, 1]] * 4), model="m", left_out=left_out)
    assert measure(benchmark, items, grid([[0, 1]] * 4), left_out=~left_out).figure("overall").value in (0.0, 1.0)


PARTS = [(name, part) for name, benchmark in BENCHMARKS.items() for part in benchmark.expected]


@pytest.mark.parametrize(("name", "part"), [*PARTS, *(("rewardbench", part) for part in PRIOR)])
def test_a_part_of_a_benchmark_alone_has_a_figure(name: str, part: str) -> None:
    """One row of each part; RewardBench's prior sets had none, and comparing models on them was a StopIteration."""
    benchmark, gold = BENCHMARKS[name], (1.0,) * 3 + (0.0,) * 3 if name == "rm_bench" else (1.0, 0.0)
    facts = {"models": ("a", "b"), "categories": [], "category": "c", "kind": "ref", "number": 0}
    subset = f"{part}:hep-cpp" if name == "m_rewardbench" else part
    responses = tuple(assistant("x" * (place + 1)) for place in range(len(gold)))
    items = Items([Item("a", (user("q"),), responses, gold, subset, "c", "f:1", ((0, len(gold) - 1),), facts)])
    row = measure(benchmark, items, grid([[float(value) for value in gold]]), num_draws=5)
    assert row.figure(row.main).value == 1.0
    assert row.main in random_row(benchmark, items, num_draws=5).draws


def test_bradley_terry_gives_the_odds_of_two_models() -> None:
    """3 wins to 1, no prior: strengths differ by log 3."""
    table = wins(np.array([0, 0, 0, 0]), np.array([1, 1, 1, 1]), np.array([1.0, 1.0, 1.0, 0.0]), 2)
    ratings = bradley_terry(table, prior=0.0)
    assert ratings[0] - ratings[1] == pytest.approx(np.log(3), abs=1e-8)


def many_votes(num: int = 300) -> tuple[Votes, NDArray[np.float64]]:
    """Three models of ratings 2, 0 and -2, two votes a prompt, and people's shares."""
    draw = np.random.default_rng(0)
    first = draw.integers(3, size=num)
    second = (first + draw.integers(1, 3, size=num)) % 3
    rating = np.array([2.0, 0.0, -2.0])
    won = draw.random(num) < 1 / (1 + np.exp(rating[second] - rating[first]))
    return Votes(first, second, np.arange(num) // 2, 3), won.astype(float)


def test_ranks_of_models_that_both_separate() -> None:
    """All three pairs are far apart: both separate them, and every draw has them in one order."""
    votes, human = many_votes()
    names = ("separability", "separability of people's votes", "confidence agreement", "Brier of ranks")
    same, opposed, even = (agreement(votes, human, machine) for machine in (human, 1 - human, 0 * human + 0.5))
    assert [same[name] for name in names] == [1, 1, 1, 0]
    assert [opposed[name] for name in names] == [1, 1, -1, 1]
    assert [even[name] for name in names] == [0, 1, 0, 0.25]
    assert "Spearman of ratings" in same.keys() - even.keys()
    assert "confidence agreement" not in agreement(votes, 0 * human + 0.5, human)


def test_intervals_separate_models_where_they_do_not_overlap() -> None:
    """[0, 1], [1, 2] and [3, 4]: the first two touch, the third lies above both."""
    draws = np.linspace(0, 1, 11)[:, None] + np.array([0.0, 1.0, 3.0])
    assert separated(draws, level=1.0).tolist() == [[0, 0, -1], [0, 0, -1], [1, 1, 0]]


def test_draws_of_wins_take_prompts_whole_and_ratings_come_at_once() -> None:
    votes, human = many_votes(20)
    tables = draws_of_wins(votes, np.stack([human, 1 - human]), seed=3, num_draws=4)
    (counts,) = cluster_draws(10, 4, 3)
    for draw, count in zip(tables[0], counts, strict=True):
        rows = [row for row in range(20) for _ in range(int(count[row // 2]))]
        assert draw.tolist() == wins(votes.first[rows], votes.second[rows], human[rows], 3).tolist()
    assert np.allclose(tables[1], tables[0].swapaxes(-1, -2))
    met = np.ones((3, 3), bool)
    assert bradley_terry(tables, met)[0, 2] == pytest.approx(bradley_terry(tables[0, 2], met), abs=1e-8)


def test_m_rewardbench_leaves_english_out_of_the_mean(tmp_path: Path) -> None:
    """fra .80, deu .76, zho_Hans .70, zho_Hant .74, eng .85: mean .75, 11.8 % below English."""
    languages = {"fra_Latn": 0.8, "deu_Latn": 0.76, "zho_Hans": 0.7, "zho_Hant": 0.74, "eng_Latn": 0.85}
    found = average({name: np.array(score) for name, score in languages.items()})
    assert float(found["overall"]) == same(0.75)
    assert float(found["overall/below English"]) == same(0.1 / 0.85)
    for language in ("fra_Latn", "deu_Latn"):
        rows = [pair("", n, source="hep-cpp", prompt=f"{language} {n}") for n in range(2)]
        write(tmp_path / language / "test.jsonl", rows)
    benchmark = BENCHMARKS["m_rewardbench"]
    items = benchmark.read(tmp_path)
    scores = sections(benchmark, items, [[1, 0], [1, 0], [1, 0], [0, 1]])
    assert scores["overall"] == 0.75
    assert len(set(items.cluster.tolist())) == 2  # one question in two languages is one piece of evidence
    assert "fra_Latn" not in benchmark.missing(items)[0]


def test_a_file_beside_its_copy_is_an_error_where_rows_have_no_ids(tmp_path: Path) -> None:
    """Rows that are alike within the file itself are its own affair."""
    rows = [{"input": "q", "output_1": "a", "output_2": "b", "label": 1}] * 2
    write(tmp_path / "natural.json", rows)
    assert len(BENCHMARKS["llmbar"].read(tmp_path)) == 2
    write(tmp_path / "natural.jsonl", rows)
    with pytest.raises(ValueError, match=r"natural\.jsonl:1 holds the item of .*natural\.json row 0 again"):
        BENCHMARKS["llmbar"].read(tmp_path)


def test_a_row_that_stands_there_twice_is_an_error(tmp_path: Path) -> None:
    rows = [pair("hep-go", 1)]
    write(tmp_path / "a.jsonl", rows)
    write(tmp_path / "b.jsonl", rows)
    with pytest.raises(ValueError, match=r"b\.jsonl:1 holds the item of .*a\.jsonl:1 again"):
        BENCHMARKS["rewardbench"].read(tmp_path)


def test_names_that_are_no_benchmark() -> None:
    with pytest.raises(ValueError, match="benchmark='rewardbench3': there are rewardbench, "):
        find_benchmarks(["rewardbench", "rewardbench3"])
    assert [one.name for one in find_benchmarks("all")] == list(BENCHMARKS)


def test_what_is_on_no_hub_says_so() -> None:
    with pytest.raises(ValueError, match="benchmark=rmb is on no hub; fetch its files and say path=FOLDER"):
        BENCHMARKS["rmb"].read()
