"""Every notebook runs from top to bottom, in a process of its own, on an eighth, a fifteenth or a fortieth of the rows
and prompts that it names.

One runs in a kernel, as a reader's does; the others in a fork with IPython's shell, which is spared a kernel's start
and the import of torch and transformers. Commands that they start are forks too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient

from tests.figures import draw_nothing
from tests.processes import FORKS, lightning_rm, warm_up

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
IN_A_KERNEL = "quickstart"

Outputs = list[list[dict[str, str]]]
"""Of every cell that holds code what each of its outputs shows, by MIME type."""


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
    assert IN_A_KERNEL in {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    codes = [fewer(cell.source) for cell in notebook.cells if cell.cell_type == "code"]
    run = in_a_fork if FORKS and path.stem != IN_A_KERNEL else in_a_kernel
    outputs = run(codes, tmp_path)
    assert len(outputs) == len(codes)
    assert unseen_figures(outputs) == []


def fewer(code: str) -> str:
    """`SyntheticSource(600)` becomes `SyntheticSource(40)`, 3000 become 75: what is 200 and more counts rows.

    Of 50 to 199 those of a source and `num_prompts=` do, and 64 become 8.
    """

    def of(count: int) -> int:
        return count // 40 if count >= 2000 else count // 15 if count >= 200 else count

    def of_few(found: re.Match[str]) -> str:
        count = int(found["count"])
        return f"{found['name']}{count // 8 if 50 <= count < 200 else count}"

    code = re.sub(r"(?P<name>Synthetic(Source|Groups)\(|num_prompts=)(?P<count>\d+)", of_few, code)
    return re.sub(r"\b[1-9]\d{2,4}\b", lambda found: str(of(int(found[0]))), code)


def in_a_kernel(codes: Sequence[str], folder: Path) -> Outputs:
    cells = [nbformat.v4.new_code_cell(code) for code in codes]
    NotebookClient(
        nbformat.v4.new_notebook(cells=cells), timeout=300, resources={"metadata": {"path": folder}}
    ).execute()
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    return [[output.get("data", {}) for output in cell.outputs] for cell in cells]


def in_a_fork(codes: Sequence[str], folder: Path) -> Outputs:
    warm_up()
    child = os.fork()
    if child == 0:
        try:
            os._exit(_be_a_kernel(codes, folder))
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code == 0, (folder / "error.txt").read_text()
    return json.loads((folder / "outputs.json").read_text())


class _Shell(InteractiveShell):
    """Draws figures inline, for which there is no window to wait for."""

    def enable_gui(self, gui: str | None = None) -> None:
        assert gui is None


def _be_a_kernel(codes: Sequence[str], folder: Path) -> int:
    """Run cells where nothing of the tests is left; write what they show, or why they failed."""
    os.chdir(folder)
    subprocess.run = _command
    shell, outputs = _Shell.instance(), []
    for code in codes:
        with capture_output() as shown:
            result = shell.run_cell(code, store_history=True)
        try:
            result.raise_error()
        except BaseException:
            (folder / "error.txt").write_text(f"{code}\n\n{shown.stdout}{traceback.format_exc()}")
            return 1
        displayed = [output.data for output in shown.outputs]
        if result.result is not None:  # a shell prints the last value, where a kernel sends it
            displayed.append(shell.display_formatter.format(result.result)[0])
        outputs.append([{kind: str(value)[:100] for kind, value in data.items()} for data in displayed])
    (folder / "outputs.json").write_text(json.dumps(outputs))
    return 0


def _command(command: Sequence[str], *, cwd: Path, check: bool, **_: Any) -> subprocess.CompletedProcess[str]:
    """Be `subprocess.run` of our command line, by a fork, which draws no figure: a notebook shows its own."""
    assert list(command[1:3]) == ["-m", "lightning_rm.commands.main"]
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        said = lightning_rm(cwd, *command[3:])
    assert not check or said.returncode == 0, said.stderr
    return said


def unseen_figures(outputs: Outputs) -> list[int]:
    """Places of cells whose figure shows as its name alone: without `%matplotlib inline` nothing draws it."""
    return [
        place
        for place, shown in enumerate(outputs)
        for data in shown
        if data.get("text/plain", "").startswith("<Figure") and "image/png" not in data
    ]


def test_a_figure_that_does_not_show_is_found(tmp_path: Path) -> None:
    """With the line it is an image beside its name; in a shell without it the name alone."""
    draw = "import matplotlib.pyplot as plt\nfigure, axes = plt.subplots()\nfigure"
    inline = "%matplotlib inline"
    assert unseen_figures(in_a_fork([inline, draw, "1"], tmp_path)) == []
    assert unseen_figures(in_a_fork(["import matplotlib\nmatplotlib.use('Agg')", draw, "1"], tmp_path)) == [1]
