"""A page of hostile text, rendered: it is shown whole, and nothing of it is markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from lightning_rm.analysis.page.blocks import Cell, Drawing, Drawings, Example, Folded, Page, Section, Table, Text
from lightning_rm.analysis.page.html import render_html
from lightning_rm.analysis.page.markdown import render_markdown
from lightning_rm.analysis.page.svg import inline_svg
from lightning_rm.analysis.plots.style import BLUE, Key
from lightning_rm.markup import escaped_markdown, fenced, markdown_line, visible

HOSTILE = [
    "<script>alert(1)</script>",
    "</style></title></textarea><svg onload=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "<!-- --> ]]> <![CDATA[",
    "&lt;b&gt; &amp;",
    "$\\frac{$",
    "```\n# heading\n![x](http://example.com/x.png) | cell | <b>",
    "\u202egnp.exe\u0000\x1b[31m",
    "\ud800 alone",
]


class Elements(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def figure(label: str = "reward") -> Figure:
    made = Figure(figsize=(3, 2), layout="constrained")
    axes = made.subplots()
    axes.plot([0, 1], [1, 2], color=BLUE, label=label)
    axes.set_xlabel(label, parse_math=False)
    return made


def page(text: str) -> Page:
    table = Table([{text: text, "value": Cell(text, note=text, tone="better", is_number=True)}], text)
    example = Example(text, text, {"chosen": text, "rejected": text}, [text])
    drawings = Drawings([Drawing("drawing", figure(visible(text).replace("\n", " ")), text)], [Key(text, BLUE, "--")])
    blocks = [Text(text), table, drawings, example, Folded(text, [table])]
    return Page(text, text, [Section("Results", blocks, text), Section("nothing", [])], {text: text})


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_never_obeyed(text: str) -> None:
    """The elements are those of a page of harmless text, and every place shows the text as it is."""
    found, harmless = Elements(render_html(page(text))), Elements(render_html(page("harmless")))
    assert found.tags == harmless.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in harmless.attributes]
    assert "script" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    shown = "".join(found.words)
    assert shown.count(visible(text)) >= 14
    assert "nothing" not in shown


def test_nothing_on_a_page_is_asked_of_anybody_else() -> None:
    html = render_html(page("harmless"))
    found = Elements(html)
    links = {value for name, value in found.attributes if name in ("href", "src", "xlink:href", "data", "action")}
    assert links
    assert all(link.startswith("#") for link in links)
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    policy = next(value for name, value in found.attributes if name == "content")
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


def test_a_figure_takes_the_colours_of_the_page_and_names_of_its_own() -> None:
    first, second = (ElementTree.fromstring(inline_svg(figure(), 'a "label"', prefix)) for prefix in ("a-", "b-"))
    assert first.attrib["aria-label"] == 'a "label"'
    names = [{element.attrib["id"] for element in root.iter() if "id" in element.attrib} for root in (first, second)]
    assert names[0]
    assert not names[0] & names[1]
    for root, own in zip((first, second), names, strict=True):
        text = ElementTree.tostring(root, encoding="unicode")
        assert set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text)) <= {
            (a, b) for a in ("", *own) for b in ("", *own)
        }
        assert "var(--blue)" in text
        assert "font-family" not in text
        assert not re.search("#[0-9a-fA-F]{6}", text)


def test_the_same_page_is_the_same_text() -> None:
    assert render_html(page("a")) == render_html(page("a"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_in_its_cell_of_markdown(text: str) -> None:
    cell = escaped_markdown(text)
    assert "\n" not in cell
    assert "<" not in cell
    assert not re.search(r"(?<!\\)[|`\[\]!*$]", cell)


def test_markdown_has_every_block_and_its_figures_beside_it() -> None:
    text, figures = render_markdown(page("a|b"), "report")
    assert list(figures) == ["drawing.png"]
    assert "![a\\|b](report/drawing.png)" in text
    assert "| a\\|b | value |\n| --- | ---: |\n| a\\|b | a\\|b (a\\|b) |" in text
    assert "```text\na|b\n```" in text
    assert "nothing" not in text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("# a", "\\# a"),
        ("- a", "\\- a"),
        ("+ a", "\\+ a"),
        ("---", "\\---"),
        ("===", "\\==="),
        ("1. a", "1\\. a"),
        ("12) a", "12\\) a"),
        ("a - b # c 1. d", "a - b # c 1. d"),
        ("see https://a.b or www.a.b", "see https\\://a.b or www\\.a.b"),
    ],
)
def test_no_text_begins_a_heading_a_list_a_rule_or_a_link(text: str, line: str) -> None:
    assert markdown_line(text) == line


def test_figures_are_found_in_folders_of_any_name() -> None:
    text, _ = render_markdown(page("a"), "my report (2)_figures")
    assert "![a](my%20report%20%282%29_figures/drawing.png)" in text


def test_a_fence_is_longer_than_any_within() -> None:
    assert fenced("a ```` b").splitlines() == ["`````text", "a ```` b", "`````"]


def test_what_cannot_be_shown_is_seen_to_be_missing() -> None:
    assert visible("a\x00b\r\nc\u202ed\ud800\te\u2066") == "a\ufffdb\nc\ufffdd\ufffd\te\ufffd"
    assert visible("naïve 漢字 🙂 עברית") == "naïve 漢字 🙂 עברית"
