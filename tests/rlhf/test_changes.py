from typing import Any

import pytest

from lightning_rm.rlhf.changes import change


def said(*gold: list[float | None]) -> list[dict[str, Any]]:
    return [{"prompt": [str(place)], "verdicts": ["tie", "tie"], "gold": values} for place, values in enumerate(gold)]


def test_a_change_is_paired_by_prompt() -> None:
    """Prompts differ by 100, and the second round is worth one more in the one and two more in the other."""
    before, now = said([0.0, 2.0], [100.0, None]), said([1.0, 3.0], [101.0, 103.0])
    found = change(list(reversed(now)), before)
    assert found is not None
    assert (found.mean, found.low, found.high, found.num) == (1.5, 1.0, 2.0, 2)
    assert str(found) == "+1.500 [+1.000, +2.000]"


def test_prompts_that_change_alike_have_no_interval() -> None:
    one, two = change(said([1.0]), said([0.0])), change(said([1.0], [1.0]), said([0.0], [0.0]))
    assert (str(one), str(two)) == (
        "+1.000; one prompt gives no interval",
        "+1.000; all draws of 2 prompts are alike, which gives no interval",
    )
    assert two is not None
    assert (two.low, two.high) == (None, None)


def test_what_may_be_none_is_said() -> None:
    found = change(said([1.0], [0.0], [0.0]), said([0.0], [1.0], [0.0]))
    assert found is not None
    assert found.mean == 0
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high
    assert str(found).endswith("which cannot be told from none")


def test_verdicts_stand_in_for_gold() -> None:
    def verdicts(*each: str | None) -> list[dict[str, Any]]:
        return [{"prompt": ["0"], "verdicts": list(each)}]

    found = change(verdicts("win", "tie", None), verdicts("lose", "tie", "tie"))
    assert found is not None
    assert found.mean == pytest.approx(0.75 - 1 / 3, abs=1e-15)
    assert change(verdicts(None), verdicts("tie")) is None
    assert change(verdicts("tie"), []) is None


def test_a_verdict_is_no_gold() -> None:
    """Gold is about -3; of a response that the judge could not read only the other's verdict is known, a win."""
    before = [*said([-3.0, -4.0]), {"prompt": ["1"], "verdicts": ["tie", "tie"], "gold": [-3.0, -3.0]}]
    now = [*said([-3.0, -4.0]), {"prompt": ["1"], "verdicts": ["win", None]}]
    for rows in ((now, before), (before, now)):
        found = change(*rows)
        assert found is not None
        assert (found.mean, found.num) == (0.0, 1)


def test_a_prompt_with_other_arguments_for_its_template_is_another() -> None:
    def rows(*gold: float) -> list[dict[str, Any]]:
        told = [{"chat_template_kwargs": {"enable_thinking": True}}, {}]
        return [
            {"prompt": ["0"], "verdicts": ["tie"], "gold": [value], **own}
            for value, own in zip(gold, told, strict=True)
        ]

    found = change(rows(2.0, 5.0), rows(0.0, 4.0))
    assert found is not None
    assert (found.mean, found.num) == (1.5, 2)
