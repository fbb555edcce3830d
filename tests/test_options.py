"""Options that go together as one object, and those that are one of a few words."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_rm import PublishOptions, annotate, curate, publish, reward_app, weigh
from lightning_rm.options import check_options, check_words
from tests.toy import toy_model


def test_options_are_their_object_or_none() -> None:
    check_options(PublishOptions, options=None)
    check_options(PublishOptions, options=PublishOptions(dtype="bfloat16"))
    with pytest.raises(ValueError, match=r"^options is a str; give options=PublishOptions\(\.\.\.\)$"):
        check_options(PublishOptions, options="bfloat16")


def test_the_first_option_that_is_none_of_its_words_is_named() -> None:
    check_words(("drop", "keep"), ties="keep", others="drop")
    with pytest.raises(ValueError, match=r"^others=\['drop'\]; it must be one of drop, keep$"):
        check_words(("drop", "keep"), ties="keep", others=["drop"])


@pytest.mark.parametrize("given", [{}, {"dtype": "bfloat16"}])
def test_a_dict_of_options_is_a_sentence_before_any_work(given: Any) -> None:
    """It was an AttributeError, and an empty one was taken for none."""
    calls: dict[str, Any] = {
        r"options=PublishOptions": lambda: publish("no run", "out", given),
        r"options=ServeOptions": lambda: reward_app(toy_model(), None, given),  # pyright: ignore[reportArgumentType]
        r"rules=Rules": lambda: curate([], [], "out", given),
        r"look=Look": lambda: curate([], [], "out", look=given),
        r"tokenize=TokenizePolicy": lambda: curate([], [], "out", tokenize=given),
        r"policy=TokenizePolicy": lambda: annotate([], [], "out.parquet", given),
        r"weighing=Weighing": lambda: weigh([], "no policy", "out.parquet", reference=None, weighing=given),
    }
    for told, call in calls.items():
        with pytest.raises(ValueError, match=rf"^\w+ is a dict; give {told}\(\*\*\{{.*\}}\)$"):
            call()
