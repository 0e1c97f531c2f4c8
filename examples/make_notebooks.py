"""Make the notebooks from the scripts of the workflows: ``python examples/make_notebooks.py``.

A script is divided by lines ``# %%`` and ``# %% [markdown]``; a test keeps both in step.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

HERE = Path(__file__).parent
WORKFLOWS = ("point_time_series", "classify", "similarity", "change")
_MARK = re.compile(r"^# %%(.*)$", re.MULTILINE)


def notebook(script: str) -> nbformat.NotebookNode:
    """Return a script's notebook, without outputs."""
    parts = _MARK.split(script)
    cells = []
    for i, (kind, text) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
        body = text.strip("\n")
        if "[markdown]" in kind:
            cell = new_markdown_cell(
                "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.split("\n"))
            )
        else:
            cell = new_code_cell(body)
        cell["id"] = f"cell-{i}"  # the same every time
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def main() -> None:
    """Write every notebook beside its script."""
    for name in WORKFLOWS:
        made = notebook((HERE / f"{name}.py").read_text())
        nbformat.validate(made)
        (HERE / f"{name}.ipynb").write_text(nbformat.writes(made) + "\n")


if __name__ == "__main__":
    main()
