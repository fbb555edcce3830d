"""Rounds as folders: each stage once, a kill at any of them, other inputs, when to stop; what a policy learns from."""

from __future__ import annotations

import csv
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lightning_rm.analysis.plots.rounds import rounds_figure
from lightning_rm.data.rows import GroupRow, Message
from lightning_rm.data.synthetic.annotator import Annotator
from lightning_rm.data.synthetic.draws import Draws
from lightning_rm.rlhf.choosing import Rejection, best_of_n, choose_responses, shaped
from lightning_rm.rlhf.improving import Shaping, said_groups
from lightning_rm.rlhf.judges import PlantedJudge
from lightning_rm.rlhf.labelling import label_pairs
from lightning_rm.rlhf.measures import Measures, read_judged
from lightning_rm.rlhf.round_table import RoundTable
from lightning_rm.rlhf.rounds import Round, Stage, check_made, is_made, num_falls, run_rounds, settle
from tests.float64 import roughly

PROMPT: tuple[Message, ...] = ({"role": "user", "content": "name two red fruits."},)


def group(*responses: str, id: str = "a") -> GroupRow:
    return GroupRow(PROMPT, tuple(({"role": "assistant", "content": text},) for text in responses), id, id)


class Chain:
    """Stages that each write what came before them and one letter more."""

    def __init__(self, out: Path, killed_at: int | None = None, setting: str = "") -> None:
        self.out, self.killed_at, self.setting, self.calls = out, killed_at, setting, 0

    def stages(self) -> list[Stage]:
        return [
            Stage("a", lambda round: self.write(round, "a", round.before / "b"), self.inputs, ("a",), read=("a",)),
            Stage("b", lambda round: self.write(round, "b", round / "a"), self.inputs, ("b",), read=("b",), first=0),
        ]

    def inputs(self, round: Round) -> dict[str, Any]:
        return {"setting": self.setting}

    def write(self, round: Round, name: str, source: Path) -> None:
        self.calls += 1
        if self.calls == self.killed_at:
            (round / name).write_text("half")
            raise KeyboardInterrupt
        (round / name).write_text((source.read_text() if source.is_file() else "") + name)

    def run(self, rounds: int = 2, **options: Any) -> list[Round]:
        return run_rounds(self.out, self.stages(), rounds, worth=lambda round: -float(round.number), **options)


def test_a_run_that_is_killed_at_any_stage_goes_on_there(tmp_path: Path) -> None:
    whole = Chain(tmp_path / "whole")
    whole.run()
    assert (tmp_path / "whole/round_2/b").read_text() == "babab"
    for place in range(1, whole.calls + 1):
        out = tmp_path / str(place)
        with pytest.raises(KeyboardInterrupt):
            Chain(out, killed_at=place).run()
        again = Chain(out)
        again.run()
        assert again.calls == whole.calls - place + 1
        assert (out / "round_2/b").read_text() == "babab"


def test_what_was_made_of_other_inputs_is_refused_or_made_anew(tmp_path: Path) -> None:
    Chain(tmp_path).run()
    other = Chain(tmp_path, setting="x")
    with pytest.raises(ValueError, match=r"round_0 holds a b of other inputs \(setting was '', is 'x'\)"):
        other.run()
    assert other.calls == 0
    with pytest.raises(ValueError, match=r"round_0 holds a b of other inputs"):
        check_made(tmp_path, other.stages(), 2)
    check_made(tmp_path, Chain(tmp_path).stages(), 3)
    (tmp_path / "round_0/b").unlink()  # what it is made of anew may be another
    check_made(tmp_path, Chain(tmp_path).stages(), 2)
    (tmp_path / "round_0/b").write_text("b")
    other.run(overwrite=True)
    assert other.calls == 5
    stage = other.stages()[0]
    assert not settle(stage, Round(tmp_path, 1))


def test_a_stage_whose_inputs_change_meanwhile_is_not_kept(tmp_path: Path) -> None:
    chain = Chain(tmp_path)

    def write(round: Round) -> None:
        chain.write(round, "a", round.before / "b")
        chain.setting = "trained anew"

    stage = Stage("a", write, chain.inputs, ("a",), read=("a",))
    with pytest.raises(ValueError, match=r"its a is made of has changed meanwhile \(setting was '', is 'trained anew'"):
        settle(stage, Round(tmp_path, 1))
    assert not (tmp_path / "round_1/a").exists()
    assert settle(stage, Round(tmp_path, 1))
    assert (tmp_path / "round_1/a").read_text() == "a"


def test_what_is_gone_is_made_again_and_what_is_damaged_is_named(tmp_path: Path) -> None:
    Chain(tmp_path).run()
    (tmp_path / "round_1/a").unlink()
    again = Chain(tmp_path)
    again.run()
    assert again.calls == 1
    assert (tmp_path / "round_1/a").read_text() == "ba"
    mark = tmp_path / "round_1/stages/a.json"
    for text in ("", "[]", "{}"):
        mark.write_text(text)
        with pytest.raises(ValueError, match=r"round_1/stages/a.json is damaged; delete it"):
            again.run()
    mark.unlink()
    again.run()
    assert again.calls == 2


def test_whether_a_stage_is_made_of_the_inputs_of_now(tmp_path: Path) -> None:
    _, judge = Chain(tmp_path).stages()
    assert not is_made(judge, Round(tmp_path, 0))
    settle(judge, Round(tmp_path, 0))
    assert is_made(judge, Round(tmp_path, 0))
    _, other = Chain(tmp_path, setting="other").stages()
    with pytest.raises(ValueError, match=r"round_0 holds a b of other inputs \(setting was '', is 'other'\)"):
        is_made(other, Round(tmp_path, 0))
    (tmp_path / "round_0/b").unlink()
    assert not is_made(judge, Round(tmp_path, 0))


def test_a_stage_that_failed_before_it_made_anything_takes_other_settings(tmp_path: Path) -> None:
    class Fails(Chain):
        def write(self, round: Round, name: str, source: Path) -> None:
            raise ValueError("no such backbone")

    with pytest.raises(ValueError, match="no such backbone"):
        Fails(tmp_path, setting="wrong").run()
    Chain(tmp_path, setting="right").run()
    assert (tmp_path / "round_2/b").read_text() == "babab"


def test_a_damaged_judgement_is_named(tmp_path: Path) -> None:
    (tmp_path / "judged.jsonl").write_text("")
    for text in ('{"gold": 1', "{}"):
        (tmp_path / "judged.json").write_text(text)
        with pytest.raises(ValueError, match=r"judged.json beside it is damaged; delete both"):
            read_judged(tmp_path)


def test_responses_may_have_empty_lines_between_them(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "a", "responses": ["b", "c"], "finished": [True, False]})
    (tmp_path / "said.jsonl").write_text(f"{line}\n\n{line}\n \n")
    assert said_groups(tmp_path / "said.jsonl").finished == [[True, False]] * 2


def test_round_0_is_held_against_nothing() -> None:
    """To a judge that only compares it is one half: a round of fewer wins has fallen below it."""
    kinds = {"num": 1, "gold": None, "win": 0.0, "tie": 1.0, "lose": 0.0}
    start = {each.name: kinds.get(each.name, kinds.get(each.name[:3], 0.5)) for each in fields(Measures)}
    rounds = {0: Measures(**start), 1: Measures(**start | {"win": 0.25, "tie": 0.25, "lose": 0.5})}  # pyright: ignore[reportArgumentType]
    table = RoundTable(rounds, {})
    assert [row["win"] for row in table.rows()] == ["", "25.0%"]
    assert table.best == 0
    assert table.series()["worth"] == [0.5, 0.375]
    panel = rounds_figure(table.series()).axes[0]
    assert panel.get_title(loc="left") == "share of wins, ties half"
    assert panel.lines[0].get_ydata().tolist() == [0.5, 0.375]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    assert "so round 0, which is that policy, has none" in table.notes()[0]
    assert "one half for round 0) is highest in round 0" in table.notes()[1]


def test_what_the_weights_of_a_round_are_worth(tmp_path: Path) -> None:
    """3 of 4 pairs: in the table, the files and the metrics; without weights nothing is said of them."""
    nothing = Measures(**{each.name: 0 for each in fields(Measures)})
    plain = RoundTable({0: nothing, 1: nothing}, {})
    assert all("effective" not in row for row in plain.rows())
    summary = {"num_pairs": 4, "effective": 3.0, "num_clipped": 1}
    table = RoundTable({0: nothing, 1: nothing}, {}, weighed={1: summary})
    assert [row["effective"] for row in table.rows()] == ["", "75.0%"]
    assert any(note.startswith("effective: how many") for note in table.notes())
    assert [told.get("rlhf/effective_pairs") for told in table.metrics().values()] == [None, 0.75]
    table.write(tmp_path)
    rounds = json.loads((tmp_path / "rounds.json").read_text())["rounds"]
    assert [rounds[number].get("weighed") for number in "01"] == [None, summary]
    with (tmp_path / "rounds.csv").open() as file:
        assert [row["effective_pairs"] for row in csv.DictReader(file)] == ["", "0.75"]


def test_rounds_end_when_worth_falls(tmp_path: Path) -> None:
    assert [round.number for round in Chain(tmp_path).run(5, patience=2)] == [0, 1, 2]
    assert [num_falls(worth) for worth in ([1.0], [1, 3, 2, 1], [3, 2, 2], [3, 2, 1])] == [0, 2, 0, 2]


@pytest.mark.parametrize(("options", "message"), [({"rounds": 0}, "rounds=0"), ({"patience": 0}, "patience=0")])
def test_numbers_out_of_range(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chain(tmp_path).run(**options)


def test_a_round_has_seeds_of_its_own() -> None:
    seeds = [Round(Path("x"), number).seed(seed, to) for number in (1, 2) for seed in (0, 1) for to in ("a", "b")]
    assert len(set(seeds)) == 8
    assert seeds[0] == Round(Path("y"), 1).seed(0, "a")


def test_the_best_of_n_is_learned_against_the_worst() -> None:
    groups = [group("crab", "apple", "cherry"), group("apple", "apple", id="b"), group("", "crab", id="c")]
    choice = choose_responses(groups, [[0.0, 2.0, 1.0], [1.0, 1.0], [3.0, 1.0]], best_of_n, 0)
    assert [(pair.chosen[0]["content"], pair.rejected[0]["content"]) for pair in choice.pairs] == [("apple", "crab")]
    assert (choice.num_groups, choice.num_equal, choice.num_not_learned, choice.num_left_out) == (3, 1, 1, 0)
    without = choose_responses(groups[:1], [[None, 2.0, 1.0]], best_of_n, 0)
    assert [pair.rejected[0]["content"] for pair in without.pairs] == ["cherry"]
    assert without.num_left_out == 1


def test_a_rejection_sample_has_the_distribution_of_the_optimal_policy() -> None:
    """Rewards 0 and beta log 4: of uniform responses, the second is accepted always, the first once in four times."""
    choose, rewards = Rejection(0.5), [0.0, 0.5 * 1.3862943611198906]
    accepted = [choose(rewards, Draws("test", number)) for number in range(4000)]
    assert all(1 in places for places in accepted)
    assert abs(sum(0 in places for places in accepted) / 4000 - 0.25) < 0.02
    with pytest.raises(ValueError, match="beta=0"):
        Rejection(0)


def test_rewards_are_normalised_clipped_and_punished() -> None:
    """(0, 2, None): mean 1, standard deviation 1; the clip leaves .8."""
    shaping = Shaping(clip=0.8, unfinished=-2.0, empty=-3.0, overlong=-4.0)
    assert shaping.apply([0.0, 2.0, None], ["a", "b", "c"], [True] * 3) == roughly([-0.8, 0.8, -4.0])
    assert shaping.apply([0.0, 2.0, 2.0], ["", "b", "c"], [True, False, True])[:2] == [-3.0, -2.0]
    assert Shaping().apply([1.0, 1.0], ["a", "b"], [True, True]) == [0.0, 0.0]
    assert Shaping(normalize=False).apply([1.0, None], ["a", "b"], [True, True]) == [1.0, None]
    assert shaped([1.0], [""], [False]) == [1.0]
    with pytest.raises(ValueError, match="clip=0"):
        Shaping(clip=0.0)


@pytest.mark.parametrize("annotator", [None, Annotator(clean_labels=True)])
def test_a_share_of_the_prompts_is_labelled(annotator: Annotator | None) -> None:
    groups = [group("crab and nail", "apple and cherry", id=str(number)) for number in range(8)]
    groups += [group("crab", "crab", id="same")] * 2
    pairs, num_tied = label_pairs(groups, PlantedJudge(), share=1.0, annotator=annotator)
    assert [pair.chosen[0]["content"] for pair in pairs] == ["apple and cherry"] * 8
    assert num_tied == 2
    silent = [group("", "crab", "apple", id="silent"), group(" ", "crab", id="alone")]
    (pair,), num_tied = label_pairs(silent, PlantedJudge(), share=1.0, annotator=annotator)
    assert {pair.chosen[0]["content"], pair.rejected[0]["content"]} == {"crab", "apple"}
    assert num_tied == 1
    some, _ = label_pairs(groups[:8], PlantedJudge(), share=0.25, annotator=annotator, seed=1)
    assert len(some) == 2
    assert {pair.id for pair in some} != {pair.id for pair in label_pairs(groups[:8], PlantedJudge(), share=0.25)[0]}
