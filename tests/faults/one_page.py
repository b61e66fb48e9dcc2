"""Run a notebook of one cell into a folder: python one_page.py FOLDER CELL. Ends as the command line does."""

import os
import sys
from pathlib import Path

import nbformat

from sparselib import experiments
from sparselib.repro import notebooks
from sparselib.repro import parameters as typed

PAGE = experiments.PAGES["00_quickstart"]


def main(folder, cell):
    template, tags = folder / "page.ipynb", {"tags": ["parameters"]}
    if not template.exists():
        cells = [nbformat.v4.new_code_cell(typed.cell(PAGE), metadata=tags), nbformat.v4.new_code_cell(cell)]
        kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}}
        own = folder / f"{os.getpid()}.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), own)
        own.replace(template)
    notebooks.template = lambda _: template
    try:
        notebooks.execute(typed.resolve(PAGE, {}), folder / "out.ipynb", book=False)
    except notebooks.NotebookError as error:
        sys.exit(f"sparselib: {error}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
