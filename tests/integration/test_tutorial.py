"""docs/tutorial.ipynb: runs from top to bottom, and what is kept in it is what the site shows."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

DOCS = Path(__file__).parents[2] / "docs"


def _module(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def notebook():
    return nbformat.read(DOCS / "tutorial.ipynb", as_version=4)


def _outputs(notebook, kind):
    """What code cells show, as this kind of content."""
    shown = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]
    return [out.data[kind] for out in shown if kind in out.get("data", {})]


def test_what_is_kept_comes_from_one_run_without_an_error(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {out.output_type for cell in code for out in cell.outputs} == {"execute_result"}
    assert any("assert" in cell.source for cell in code)


def test_the_page_has_the_sentences_and_pictures_of_the_notebook(notebook):
    page, pictures = _module("site_pages")._tutorial()
    assert "ceiling.</p>" in page
    assert len(pictures) == len(_outputs(notebook, "image/svg+xml")) == 1
    assert all(name in page for name in pictures)
    assert "https://" not in page


def test_its_first_cells_run(notebook, tmp_path):
    """Up to the ceilings; the kernel is a process of its own."""
    last = next(
        i
        for i, cell in enumerate(notebook.cells)
        if "memory_rl.bounds" in cell.source and cell.cell_type == "code"
    )
    notebook.cells = notebook.cells[: last + 1]
    kept = _outputs(notebook, "text/plain")
    nbformat.write(notebook, tmp_path / "first.ipynb")
    assert _outputs(_module("run_tutorial").run(tmp_path / "first.ipynb"), "text/plain") == kept


@pytest.mark.slow
def test_the_whole_of_it_runs(notebook):
    """Its own assertions hold what came out."""
    ran = _module("run_tutorial").run()
    assert len(_outputs(ran, "text/html")) == len(_outputs(notebook, "text/html"))
