"""Every notebook runs from top to bottom, in a kernel of its own, on a tenth of the pairs that it trains on."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = fewer(cell.source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert unseen_figures(notebook) == []


def fewer(code: str) -> str:
    """`SyntheticSource(3000)` becomes `SyntheticSource(300)`: what is beyond 1,300 are pairs to train on."""
    return re.sub(r"\b[1-9]\d{3,4}\b", lambda found: str(n // 10 if (n := int(found[0])) > 1300 else n), code)


def unseen_figures(notebook: nbformat.NotebookNode) -> list[int]:
    """Numbers of the cells whose figure shows as its name alone: without `%matplotlib inline` nothing draws it."""
    return [
        number
        for number, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", [])
        if output.get("data", {}).get("text/plain", "").startswith("<Figure") and "image/png" not in output.data
    ]


def test_a_figure_that_does_not_show_is_found() -> None:
    shown = {"text/plain": "<Figure size 640x480 with 1 Axes>", "image/png": ""}
    outputs = [shown, {"text/plain": shown["text/plain"]}, {"text/plain": "0.5"}]
    cells = [nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data=data)]) for data in outputs]
    assert unseen_figures(nbformat.v4.new_notebook(cells=cells)) == [1]
