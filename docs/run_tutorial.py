"""Runs docs/tutorial.ipynb from top to bottom, and keeps what it shows.

python docs/run_tutorial.py       (about a minute)
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIAL = Path(__file__).with_name("tutorial.ipynb")


def run(path: Path = TUTORIAL) -> nbformat.NotebookNode:
    """The notebook with fresh outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails, such as one that asserts what came out.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", record_timing=False).execute()
    del notebook.metadata["language_info"]  # the version of whoever ran it
    return notebook


if __name__ == "__main__":
    nbformat.write(run(), TUTORIAL)
