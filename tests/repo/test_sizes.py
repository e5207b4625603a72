"""No long functions. How complex one may be is bounded by ruff (C901)."""

import ast
from itertools import chain
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "netsrvd"
LONGEST_FUNCTION, USUAL_FUNCTION = 60, 30

SOURCES = {str(path.relative_to(PACKAGE)): path.read_text() for path in PACKAGE.rglob("*.py")}


def functions(name: str) -> dict[str, int]:
    """Return the number of lines of each function in a module."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(SOURCES[name])) if isinstance(node, kinds)]
    return {
        f"{name}:{node.lineno} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for node in found
    }


FUNCTIONS = dict(chain.from_iterable(functions(name).items() for name in SOURCES))


def test_functions_are_short() -> None:
    """No function has more than 60 lines."""
    assert not {name: size for name, size in FUNCTIONS.items() if size > LONGEST_FUNCTION}


def test_most_functions_are_very_short() -> None:
    """Nine functions in ten have fewer than 30 lines."""
    assert len(FUNCTIONS) > 200
    short = [size for size in FUNCTIONS.values() if size < USUAL_FUNCTION]
    assert len(short) >= 0.9 * len(FUNCTIONS)
