"README.md is nbs/index.ipynb without its code directives: `python tests/readme.py` writes it, a test holds it in step."

import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).parents[1]


def readme():
    "The text of README.md."
    notebook = nbformat.read(root / "nbs" / "index.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if not re.search(r"^#\|\s*hide", cell.source, re.M)]
    for cell in notebook.cells:
        cell.source = re.sub(r"^#\|.*\n", "", cell.source, flags=re.M).replace("](../", "](")
    notebook.metadata["language_info"] = {"name": "python"}
    text, _ = MarkdownExporter().from_notebook_node(notebook)
    return text.strip() + "\n"


if __name__ == "__main__":
    (root / "README.md").write_text(readme(), encoding="utf-8")
