"""What faults and rewrites use of the modules that they change is there: a renamed function must not leave them behind."""

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

SOURCES = sorted(path for path in Path(__file__).parent.glob("*.py") if path.stem != "__main__")


def missing(path):
    """Yield the line and the text of every name that a module is asked for and does not have."""
    module = importlib.import_module(f"{__package__}.{path.stem}")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = getattr(module, node.value.id, None), node.attr
            if isinstance(owner, ModuleType) and not hasattr(owner, name):
                yield node.lineno, f"{node.value.id}.{name}"
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "patching":
            owner, name = (ast.unparse(argument) for argument in node.args[:2])
            if owner in vars(module) and not hasattr(getattr(module, owner), ast.literal_eval(name)):
                yield node.lineno, f"{owner}, {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_names_that_are_used_exist(path):
    assert not list(missing(path))
