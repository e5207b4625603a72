"""Modules that are imported late are those that the daemon imports a second after READY."""

import ast
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import pytest

import netsrvd
from netsrvd import preload, startup
from netsrvd.services import SERVICES

ROOT = Path(netsrvd.__file__).parent

BEFORE = {"__main__.py", "arguments.py", "cli.py", "detach.py", "sockets/activation.py"}
"""What these import late they import before READY; so do the commands."""

LATER = {*chain.from_iterable(preload.FOR_SERVICES.values()), "netsrvd.timed"}
"""What a service needs that few configure: imported with it, or soon after."""

LARGE = {"hmac", "importlib", "netsrvd.services.http", "netsrvd.services.page"}
"""What a reload imports and can fail in: importlib.metadata, 10 ms and 2 MB, if it names a handler;
libcrypto, 2 MB, for a key of `stamp`; h11, 10 ms and 1 MB, and its page if it adds `metrics`."""

LOOKS = {"netsrvd.control.methods"}
"""What answers those that look at the daemon is imported at the first look, if the package is still
that of the start (tests/functional/test_control.py)."""


def late_imports() -> Iterator[tuple[str, str]]:
    """Yield each file that imports something within a function, and what."""
    for path in sorted(ROOT.rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name in BEFORE or name.startswith("commands/"):
            continue
        functions = (
            each
            for each in ast.walk(ast.parse(path.read_text()))
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        )
        for function in functions:
            for node in ast.walk(function):
                if isinstance(node, ast.Import):
                    yield from ((name, each.name) for each in node.names)
                elif isinstance(node, ast.ImportFrom):
                    yield from (
                        (name, _module(node.module or "", each.name)) for each in node.names
                    )


def _module(package: str, name: str) -> str:
    """Return the module that `from package import name` imports."""
    if package.startswith("netsrvd") and find_spec(package).submodule_search_locations is not None:
        return f"{package}.{name}" if find_spec(f"{package}.{name}") else package
    return package


@pytest.mark.parametrize(("file", "module"), sorted(set(late_imports())))
def test_what_is_imported_late_is_preloaded(file: str, module: str) -> None:
    """An upgrade would otherwise give the daemon a module of another version."""
    assert module in {*preload.MODULES, *LATER, *LARGE, *LOOKS, "netsrvd.preload"}, file


def test_every_service_is_preloaded() -> None:
    """A reload may name each of them but the large ones (`startup.LARGE`)."""
    found = {f"netsrvd.services.{name}" for name in SERVICES if name not in startup.LARGE}
    assert found <= {*preload.MODULES}


def test_what_is_preloaded_is_there() -> None:
    """No name is one that a module had once."""
    assert [name for name in preload.MODULES if find_spec(name) is None] == []
