"""The exit statuses that a command of the program can reach, by its source.

From the function `run` of a command on, each function that may be called is looked at: what it
names, and what it imports. A method may be called if its class and its name are both mentioned
somewhere. Errors that are caught on the way count as well, so the result can have too many
statuses; it lacks none that an error type or a constant of `os` names.
"""

import ast
import importlib
import inspect
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from netsrvd.errors import NetsrvdError

ROOT = Path(__file__).parents[2]
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef

COMMON = {os.EX_USAGE, os.EX_SOFTWARE, os.EX_OSERR, os.EX_IOERR, 130}
"""What `cli.main` returns for any command: for wrong arguments, a module that cannot be imported,
a lack of memory or descriptors, an output that cannot be written, and Ctrl-C.
"""


class Definition(NamedTuple):
    """A function, a class, or an assignment at the top of a module or a class."""

    module: str
    name: str
    node: ast.AST
    within: str = ""
    """The class of a method."""


@cache
def definitions(module: str) -> dict[str, Definition]:
    """Return what a module defines at its top, by name."""
    file = importlib.import_module(module).__file__ or ""
    found = {}
    for node in ast.parse(Path(file).read_text()).body:
        if isinstance(node, FUNCTIONS | ast.ClassDef):
            found[node.name] = Definition(module, node.name, node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    found[target.id] = Definition(module, target.id, node)
    return found


@cache
def imports(module: str) -> dict[str, tuple[str, str]]:
    """Return what a module imports of the package, at any place, by the name that it has there: the
    module, and the name within it or "".
    """
    file = importlib.import_module(module).__file__ or ""
    found = {}
    for node in ast.walk(ast.parse(Path(file).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("netsrvd"):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                is_module = (ROOT / f"{whole.replace('.', '/')}.py").exists()
                where = (whole, "") if is_module else (node.module or "", alias.name)
                found[alias.asname or alias.name] = where
    return found


class Reach:
    """What can be called from a function on."""

    def __init__(self, module: str, name: str) -> None:
        self.statuses: set[int] = set()
        self._done: set[tuple[str, str, str]] = set()
        self._todo = [definitions(module)[name]]
        self._classes: dict[str, list[Definition]] = {}
        """Methods of the classes that were mentioned, by their names."""
        self._called: set[str] = set()
        """Names of attributes that were mentioned."""
        while self._todo:
            self._look(self._todo.pop())

    def _look(self, found: Definition) -> None:
        key = found.module, found.within, found.name
        if key in self._done:
            return
        self._done.add(key)
        if isinstance(found.node, ast.ClassDef):
            self._add_class(found)
            return
        for node in evaluated(found.node):
            if isinstance(node, ast.Name):
                self._mention(found.module, node.id)
            elif isinstance(node, ast.Attribute):
                self._attribute(found.module, node)
            if kind := error(found.module, node):
                self.statuses.add(kind.exit_status)

    def _add_class(self, found: Definition) -> None:
        for node in found.node.body:  # type: ignore[attr-defined]
            if not isinstance(node, FUNCTIONS):
                continue
            method = Definition(found.module, node.name, node, found.name)
            self._classes.setdefault(node.name, []).append(method)
            if node.name in self._called or node.name.startswith("__"):
                self._todo.append(method)
        for base in found.node.bases:  # type: ignore[attr-defined]
            for node in ast.walk(base):
                if isinstance(node, ast.Name):
                    self._mention(found.module, node.id)

    def _mention(self, module: str, name: str) -> None:
        where, inner = imports(module).get(name, (module, name))
        if inner and (found := definitions(where).get(inner)):
            self._todo.append(found)

    def _attribute(self, module: str, node: ast.Attribute) -> None:
        value = node.value
        if isinstance(value, ast.Name):
            if value.id == "os" and node.attr.startswith("EX_"):
                self.statuses.add(getattr(os, node.attr))
                return
            where, inner = imports(module).get(value.id, ("", ""))
            if where and not inner:
                self._mention_in(where, node.attr)
                return
        if node.attr not in self._called:
            self._called.add(node.attr)
            self._todo += self._classes.get(node.attr, [])

    def _mention_in(self, module: str, name: str) -> None:
        if found := definitions(module).get(name):
            self._todo.append(found)
        elif name in imports(module):
            self._mention(module, name)


def evaluated(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a function, but those that only ask for the type of an error, and
    annotations.
    """
    yield node
    for name, value in ast.iter_fields(node):
        is_type = name == "type" and isinstance(node, ast.ExceptHandler)
        if is_type or name in {"annotation", "returns"}:
            continue
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            continue
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from evaluated(each)


def error(module: str, node: ast.AST) -> type[NetsrvdError] | None:
    """Return the type of error that a part of a module names."""
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    where, inner = imports(module).get(name, (module, name))
    kind = getattr(importlib.import_module(where), inner, None) if inner else None
    return kind if inspect.isclass(kind) and issubclass(kind, NetsrvdError) else None


def reachable(command: str) -> set[int]:
    """Return the statuses from 64 on that a command can end with."""
    found = Reach(f"netsrvd.commands.{command}", "run").statuses
    return {status for status in found | COMMON if status >= os.EX_USAGE}
