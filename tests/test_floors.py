"Arrows of the house point down (DESIGN.md): drawn from the import statements, lazy ones and imports by name included."

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

package = Path(__file__).parents[1] / "scalable_arch"
GROUND, METHODS = (
    {"errors", "files", "versions", "compiled", "progress"},
    {"han", "hdl", "nge", "nos", "cdnet", "msinet"},
)
FLOORS = [  # a room, or rooms that do not see each other, and what else they may import besides the ground floor
    ({"nn", "data", "metrics"}, set()),
    ({"train"}, {"nn", "data", "metrics"}),
    ({"nas"}, {"nn", "data", "metrics", "train"}),
    (METHODS, {"nn", "data", "metrics", "train", "nas"}),
    ({"study"}, {"data", "metrics"}),
    ({"models"}, METHODS | {"nn", "nas", "train"}),
    ({"kinds"}, METHODS | {"nn", "data", "metrics", "train", "nas", "study", "models"}),
    ({"canaries"}, METHODS | {"nn", "data", "metrics", "train", "nas", "study", "models", "kinds"}),
    ({"own"}, {"nn", "data", "metrics", "train", "models", "kinds"}),
    ({"commands"}, {"models", "own"}),
    ({"book"}, METHODS | {"nn", "data", "metrics", "train", "nas", "study", "models", "kinds", "canaries"}),
    ({"cli"}, {"data", "study", "kinds", "commands"}),
    ({"__init__"}, {"models"}),
]
BELOW = {
    "errors": set(),
    "files": {"errors"},
    "versions": {"errors"},
    "compiled": {"errors", "files"},
    "progress": set(),
}
BELOW |= {room: GROUND | below for rooms, below in FLOORS for room in rooms}
name_of = lambda path: ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
MODULES = {name_of(path): path for path in package.rglob("*.py") if path.name != "_modidx.py"}
room = lambda module: (module.split(".") + ["__init__"])[1]


def mentioned(module):
    "Dotted names that a module imports or takes from the package, and texts that `import_module` may be given there."
    tree, above = ast.parse(MODULES[module].read_text(encoding="utf-8")), module.split(".")
    above = above if MODULES[module].name == "__init__.py" else above[:-1]
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    by_name = called & {"import_module", "importlib.import_module", "__import__"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name != "scalable_arch")  # told by its attributes
        elif isinstance(node, ast.ImportFrom):
            start = above[: len(above) + 1 - node.level] if node.level else []
            yield from (".".join([*start, *filter(None, [node.module]), alias.name]) for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif by_name and isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from {node.value, f"scalable_arch.{node.value}"} & set(MODULES)


def imports(module):
    "Modules of ours that a module imports; the package's own version and place are everybody's."
    found = set()
    for name in mentioned(module):
        while name.startswith("scalable_arch") and name not in MODULES:
            name = "" if name.startswith("scalable_arch.__") else name.rpartition(".")[0]
        found |= {name} & set(MODULES)
    return found - {module}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module):
    upward = {name for name in imports(module) if room(name) not in BELOW[room(module)] | {room(module)}}
    assert not upward, f"{module} imports from a floor above, or from a neighbour"


def test_no_circles():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()  # CycleError names one


def test_a_name_has_one_meaning():
    "What two modules of the library call by one name: commands and the names under which users know two searches."
    homes = {}
    for name, path in MODULES.items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                homes.setdefault(node.name, set()).add(name)
    assert {name for name, found in homes.items() if len(found) > 1} == {"ledger", "main", "reproduce", "search"}
