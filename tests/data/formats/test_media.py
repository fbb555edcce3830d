"""Images beside a text are refused, wherever they stand; what only looks like one is text."""

from __future__ import annotations

from typing import Any

import pytest

from lightning_rm.data.formats.groups import parse_group
from lightning_rm.data.formats.media import MEDIA_FIELDS
from lightning_rm.data.formats.scorable import prompt_and_response
from lightning_rm.data.rows import BadRow, GroupRow
from tests.data.formats.test_pairs import SHAPES, bad, good

PLAIN = SHAPES["explicit prompt, texts"]


@pytest.mark.parametrize("name", MEDIA_FIELDS)
@pytest.mark.parametrize("value", ["a.png", ["a.png"], {"bytes": b"a", "path": None}, [{"url": "a"}]])
def test_media_beside_a_text_are_refused(name: str, value: Any) -> None:
    row = bad(PLAIN | {name: value})
    assert row.reason == "not text"
    assert f"columns={{{name}: null}} trains on the text alone" in row.detail
    assert good(PLAIN | {name: value}, columns={name: None}) == good(PLAIN)
    for nothing in (None, "", [], {"bytes": None}, 3, True):
        assert good(PLAIN | {name: nothing}) == good(PLAIN)


@pytest.mark.parametrize("said", ["<image>\n2+2?", "2+2?<image>", "In <video> who\nis it?", "<audio>"])
def test_a_mark_for_an_image_in_a_prompt_is_refused(said: str) -> None:
    row = bad(PLAIN | {"prompt": said})
    assert row.reason == "not text"
    assert "prompt, turn 0 holds <" in row.detail
    (name,) = {"image", "video", "audio"} & {name for name in ("image", "video", "audio") if f"<{name}>" in said}
    assert good(PLAIN | {"prompt": said}, columns={name: None}).prompt[0]["content"] == said
    assert isinstance(parse_group({"prompt": said, "responses": ["4", "5"]}, "here"), BadRow)
    with pytest.raises(ValueError, match=f"prompt, turn 0 holds <{name}>, which stands for what a reward model of"):
        prompt_and_response(said, "4")
    assert good(PLAIN | {"prompt": said.replace("<", "&lt;").replace(">", "&gt;")})


def test_markup_and_what_the_assistant_says_are_text() -> None:
    svg = "What is <image>\n<url>a</url></image> in RSS?"
    assert good(PLAIN | {"prompt": svg}).prompt[0]["content"] == svg
    assert good(PLAIN | {"chosen": "Write <image> there."}).chosen[0]["content"] == "Write <image> there."
    assert isinstance(parse_group({"prompt": svg, "responses": ["<image>", "5"]}, "here"), GroupRow)
