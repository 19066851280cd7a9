"""Readers run cells again: every notebook bears each cell twice, all cells backwards, and itself twice."""

import copy
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").rglob("*.ipynb"))
ORDERS = {
    "each cell twice": lambda cells: [copy.deepcopy(cell) for cell in cells for _ in range(2)],
    "then backwards, then once more": lambda cells: copy.deepcopy([*cells, *cells[::-1], *cells]),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_bears_cells_that_are_run_again(path, order):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    notebook.cells = ORDERS[order](code)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": path.parent}}).execute()
