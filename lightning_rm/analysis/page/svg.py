"""A figure as an element of a page: it takes the page's font and colours, by light and by dark. It knows no page.

Matplotlib writes colours into every element. Here those of the package's style become variables of the page's style
sheet, so that one drawing serves both.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from lightning_rm.analysis.plots.style import BLUE, GREY, ORANGE, OTHERS, SKY, STYLE, saving
from lightning_rm.markup import visible

VARIABLES = {
    BLUE: "--blue",
    ORANGE: "--orange",
    SKY: "--sky",
    GREY: "--grey",
    OTHERS[1]: "--green",
    OTHERS[2]: "--pink",
    OTHERS[4]: "--yellow",
    STYLE["grid.color"]: "--rule",
    "#ffffff": "--paper",
    "#000000": "--ink",
}
"""Colour of a figure -> the variable of the style sheet that takes its place."""

_BY_COLOR = {color.lower(): f"var({variable})" for color, variable in VARIABLES.items()}
_LEFT_OUT = ("metadata", "style")


def inline_svg(figure: Figure, label: str, prefix: str) -> str:
    """Return a figure as one `<svg>` element, without script, style sheet or address of anything outside it.

    Args:
        figure: to draw; its background is left out.
        label: what it shows, for those who cannot see it.
        prefix: begins the names within it, which are to be unlike those of other figures on the page.
    """
    buffer = io.StringIO()
    with saving({"svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(visible(buffer.getvalue()).encode())
    for parent in list(root.iter()):
        parent.tag = _local(parent.tag)
        for child in [child for child in parent if _local(child.tag) in _LEFT_OUT]:
            parent.remove(child)
        parent.attrib = {_local(name): _mended(_local(name), value, prefix) for name, value in parent.attrib.items()}
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=True)


def color_variable(color: str) -> str:
    """Return a colour of the figures as the page's style sheet has it."""
    return _BY_COLOR.get(color.lower(), color)


def _local(name: str) -> str:
    """Return a name without its namespace, of which a page has no need."""
    return name.rpartition("}")[2]


def _mended(name: str, value: str, prefix: str) -> str:
    """Return an attribute with the page's colours and font, and names that are the figure's own."""
    if name == "id":
        return f"{prefix}{value}"
    if name == "href":
        return f"#{prefix}{value.removeprefix('#')}"
    value = re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}\1)", value)
    if name == "style":
        value = re.sub(r"#[0-9a-fA-F]{6}", lambda match: color_variable(match[0]), value)
        value = re.sub(r"font-family:[^;]*;?", "", value)
        # `font: 10px 'DejaVu Sans'` says the family too; the size and the weight stay.
        value = re.sub(r"font:\s*((?:\w+\s+)*?[\d.]+px)[^;]*", r"font-size: \1", value)
    return value
