"""The page in headless Chromium: a whole review by keys, a second tab, hostile pairs, narrow windows."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lightning_rm.annotation.reviews import read_reviews
from lightning_rm.reviewing.app import review_app
from lightning_rm.reviewing.session import ReviewSession
from lightning_rm.serving.server import background_server
from tests.browser import Browser, browser, chromium
from tests.reviewing.made import TOKEN, hostile_file, plain_file, session


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Generator[Browser]:
    program = chromium()
    if program is None:
        pytest.skip("there is no chromium to review in (apt-get install chromium)")
    with browser(program, tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@contextmanager
def opened(window: Browser, reviewed: ReviewSession) -> Generator[str]:
    """The page of a review, once its reviewer has said her name."""
    with background_server(review_app(reviewed, TOKEN)) as url:
        window.size(1200, 900)
        window.open(f"{url}/#token={TOKEN}")
        window.until("document.getElementById('name').open")
        window.write("Ada")
        window.press("Enter")
        window.until("pair && !busy")
        yield f"{url}/#token={TOKEN}"


def press(window: Browser, *keys: str) -> None:
    """Press keys, each once the page has answered the one before."""
    for key in keys:
        window.press(key)
        window.until("!busy")


def test_a_whole_review_by_keys(window: Browser, tmp_path: Path) -> None:
    """Twelve pairs: kept, flipped, a tie with a note, one taken back and decided anew; search, list, panels."""
    path = plain_file(tmp_path / "s.parquet", num_pairs=12)
    with opened(window, session(path)):
        assert window.js("document.activeElement.id") == "title"
        press(window, "k", "f", "n")
        window.write("both wrong k f")  # no key decides while a note is written
        press(window, "Escape", "t", "s", "u", "k", *"fffff")
        assert window.js("document.getElementById('said').textContent").startswith("Saved: flip")
        press(window, "?")
        assert window.js("document.getElementById('help').open")
        press(window, "k", "Escape", "p")  # nothing is decided behind a panel
        assert "9 of 50 reviews" in window.js("document.getElementById('tells').innerText")
        press(window, "Escape", "/")
        window.write("question 7")
        press(window, "Enter")
        press(window, "Escape", "l")
        window.until("document.getElementById('list').open")
        assert "1 pair" in window.js("document.getElementById('list').innerText") or "0 pairs" in window.js(
            "document.getElementById('list').innerText"
        )
        press(window, "Escape")
        window.js("document.getElementById('query').value = ''; document.getElementById('filters').requestSubmit()")
        window.until("pair && !busy && !document.getElementById('query').dataset.found")
        press(window, "ArrowRight", "ArrowLeft", "d", "k", "k", "k")
        window.until("document.body.innerText.includes('Every pair has your decision')")
    press(window, "u")  # the server has ended
    assert window.js("document.getElementById('said').textContent").startswith("The server does not answer.")
    reviews = read_reviews(path.with_suffix(".jsonl"))
    decisions = ["keep", "flip", "tie", "skip", "undo", "keep", *["flip"] * 5, *["keep"] * 3]
    assert [one.decision for one in reviews] == decisions
    assert reviews[3].pair_id == reviews[4].pair_id == reviews[5].pair_id
    assert [one.note for one in reviews if one.note] == ["both wrong k f"]
    assert {one.reviewer for one in reviews} == {"Ada"}
    assert len({one.pair_id for one in reviews}) == 12


def test_a_second_tab_sees_what_the_first_has_decided(window: Browser, tmp_path: Path) -> None:
    path = plain_file(tmp_path / "s.parquet", num_pairs=12)
    first = window._session["sessionId"]
    with opened(window, session(path)) as url:
        second = window.new_page()
        window.open(url)
        window.until("pair && !busy")  # the name is known
        press(window, "k")
        window.turn_to(first)
        press(window, "f")
        window.until("document.getElementById('said').classList.contains('is-bad')")
        assert "in another tab: keep" in window.js("document.getElementById('said').textContent")
        assert [one.decision for one in read_reviews(path.with_suffix(".jsonl"))] == ["keep"]
        press(window, "f")
        assert [one.decision for one in read_reviews(path.with_suffix(".jsonl"))] == ["keep", "flip"]
        window.turn_to(second)
        window.call("Page.close")
        window.turn_to(first)


def test_a_screen_reader_has_a_name_for_whatever_takes_the_focus(window: Browser, tmp_path: Path) -> None:
    """Every control and every region that scrolls, on the page and in each panel; the decision is told."""
    with opened(window, session(plain_file(tmp_path / "s.parquet", num_pairs=60))):
        press(window, *"kf" * 25, "n", "Escape")
        assert window.js("document.getElementById('said').getAttribute('aria-live')") == "polite"
        for key in ("", "l", "p", "?"):
            if key:
                press(window, key)
            nodes = window.call("Accessibility.getFullAXTree")["nodes"]
            shown = [node for node in nodes if not node["ignored"]]
            names = {
                (node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown if focusable(node)
            }
            if not key:
                pictures = [node["name"]["value"] for node in shown if node["role"]["value"] in ("image", "img")]
                assert any("of 4 voters prefer the chosen response" in name for name in pictures)
                assert len(names) > 8
            assert not [role for role, name in names if not name and role != "RootWebArea"]
            press(window, "Escape")


def focusable(node: Any) -> bool:
    """Whether a node of the accessibility tree takes the focus."""
    return any(one["name"] == "focusable" and one["value"]["value"] for one in node.get("properties", []))


def test_hostile_pairs_run_nothing_and_nothing_reaches_over_a_narrow_window(window: Browser, tmp_path: Path) -> None:
    window.events.clear()
    with opened(window, session(hostile_file(tmp_path / "s.parquet"))):
        num_scripts = "document.querySelectorAll('script, style, iframe, base, img, meta').length"
        before = window.js(num_scripts)
        height = "document.getElementById('filters').getBoundingClientRect().height"
        assert window.js(height) < 60  # one line, however long a subset's name
        window.size(390, 844)
        texts = ""
        for _ in range(8):
            press(window, "l")
            window.until("document.getElementById('list').open")
            press(window, "Escape", "p", "Escape")
            assert window.js("document.documentElement.scrollWidth <= innerWidth")
            texts += window.js("document.getElementById('main').innerText")
            press(window, "k")
        assert window.js("document.title") == "Review"
        assert window.js(num_scripts) == before
        assert "<script>document.title = 'run'</script>" in texts
        assert "<iframe srcdoc=" in texts
    assert not [event for event in window.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
