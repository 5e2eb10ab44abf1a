"""The notebooks of docs/tutorials run from first to last cell in their quick form, and hold no output.

A code cell may carry `quick` in its metadata: values that names get after the cell, so that a test takes
seconds.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """The cells with code."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_three():
    assert [notebook.stem for notebook in NOTEBOOKS] == ["distil_and_run", "fine_tune", "first_md"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_output(notebook):
    for cell in code_cells(notebook):
        assert not cell["outputs"] and cell["execution_count"] is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(notebook, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(FOLDER)
    before = set(FOLDER.iterdir())
    names: dict[str, Any] = {}
    quick: set[str] = set()
    for number, cell in enumerate(code_cells(notebook)):
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)
        values = cell["metadata"].get("quick", {})
        assert set(values) <= names.keys()
        names |= values
        quick |= values.keys()
        if "output" in names:
            names["output"] = tmp_path / "output"
    plt.close("all")
    assert quick and set(FOLDER.iterdir()) == before
    assert capsys.readouterr().out  # every notebook shows numbers
