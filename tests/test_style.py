"How code is laid out: ruff, short cells, and chapters that share calls instead of copies."

import ast
import itertools
import json
import subprocess
import sys
from difflib import SequenceMatcher
from pathlib import Path

import pytest

root = Path(__file__).parents[1]
NOTEBOOKS = sorted(path for path in (root / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
CHAPTERS = sorted((root / "nbs").glob("ch*.ipynb"))
LONGEST_CELL, LONGEST_CLASS, LONGEST_COPY = 60, 100, 5  # lines


def cells_of(path):
    "Code cells of a notebook as (text, tags)."
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    return [("".join(cell["source"]), cell["metadata"].get("tags", [])) for cell in cells]


def lines_of(path):
    "Lines of a chapter's code, without imports, comments, and the parameters, which all chapters have alike."
    lines = []
    for source, tags in cells_of(path):
        nodes = ast.walk(ast.parse(source))
        imports = [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]
        skipped = {number for node in imports for number in range(node.lineno, node.end_lineno + 1)}
        here = [line.strip() for number, line in enumerate(source.splitlines(), 1) if number not in skipped]
        lines += [] if "parameters" in tags else [line for line in here if line and line[0] != "#"]
    return lines


@pytest.mark.parametrize("words", ["check --output-format concise", "format --check"])
def test_ruff(words):
    ran = subprocess.run(
        [sys.executable, "-m", "ruff", *words.split(), "--no-cache", "."], cwd=root, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.relative_to(root / "nbs")))
def test_cells_are_short(path):
    "A class stands in one cell, and may be longer: ruff's layout gives each argument a line of its own."
    for source, _ in cells_of(path):
        lines = [line for line in source.splitlines() if not line.startswith("#|")]
        one_class = [type(node) for node in ast.parse("\n".join(lines)).body] == [ast.ClassDef]
        assert len(lines) <= (LONGEST_CLASS if one_class else LONGEST_CELL), source[:60]


@pytest.mark.parametrize("one, other", [*itertools.combinations(CHAPTERS, 2)], ids=lambda path: path.stem)
def test_chapters_share_calls_and_not_copies(one, other):
    here, there = lines_of(one), lines_of(other)
    found = SequenceMatcher(None, here, there, autojunk=False).find_longest_match()
    assert found.size <= LONGEST_COPY, "\n".join(here[found.a : found.a + found.size])
