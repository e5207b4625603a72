"""Reads the configuration file with its drop-ins, and remembers where each key came from."""

from collections.abc import Collection
from errno import EACCES
from pathlib import Path
from typing import Any, NamedTuple

from netsrvd.config import toml
from netsrvd.config.schema import Problem, Tree, Vocabulary, effective, read_settings
from netsrvd.config.values import shortly, written
from netsrvd.errors import ConfigError
from netsrvd.settings import Settings

DEFAULT_FILE = Path("/etc/netsrvd/netsrvd.toml")
DROP_INS = "conf.d"

DEEPEST = 4
"""Keys of the longest path, `listener.NAME.options.OPTION`; tables below it are faults anyway."""

WIDEST = 60
"""Characters of a line behind which origins stand in a column; longer lines stand out alone."""


class Configuration(NamedTuple):
    """Settings, and the file that each key came from; a key without a file has its default."""

    settings: Settings
    files: tuple[Path, ...]
    origins: dict[tuple[str, ...], Path]

    def lines(
        self, words: Vocabulary, only: Collection[tuple[str, ...]] | None = None
    ) -> list[str]:
        """Return the effective configuration as TOML, a key a line, each with its origin.

        With `only`, just the keys at these paths.
        """
        rows = [
            (f"{_dotted(path)} = {written(value)}", self.origins.get(path, "default"))
            for path, value in effective(self.settings, words)
            if only is None or path in only
        ]
        width = min(WIDEST, max(len(text) for text, _ in rows))
        return [f"{text:{width}}  # {origin}" for text, origin in rows]


def load(path: Path | None, words: Vocabulary) -> Configuration:
    """Read `path` and the drop-ins `conf.d/*.toml` beside it, later names over earlier ones.

    None stands for the default file, which may be missing; a named one may not. Raises ConfigError
    with a line for each fault of all files.
    """
    main = path or DEFAULT_FILE
    files: list[Path] = []
    problems: list[str] = []
    tree: dict[str, Any] = {}
    origins: dict[tuple[str, ...], Path] = {}
    for file in (main, *_drop_ins(main.parent / DROP_INS, problems)):
        try:
            _merge(tree, toml.read(file), (), file, origins)
            files.append(file)
        except (ValueError, RecursionError) as error:  # also of UTF-8, and of numbers too long
            problems.append(f"{file}: not valid TOML: {error}")
        except FileNotFoundError:
            if path or file != main:
                problems.append(f"{file}: there is no such file")
        except OSError as error:
            problems.append(f"{file}: cannot be read: {_why(error)}")
    settings, faults = read_settings(tree, words)
    problems += [_located(fault, tree, origins) for fault in faults]
    if problems:
        raise ConfigError(problems)
    return Configuration(settings, tuple(files), origins)


def _drop_ins(folder: Path, problems: list[str]) -> list[Path]:
    """Return the drop-ins of a folder by name; a folder that cannot be listed is a problem."""
    try:
        return sorted(
            file
            for file in folder.iterdir()
            if file.suffix == ".toml" and not file.name.startswith(".")
        )
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{folder}: cannot be read: {_why(error)}")
        return []


def _why(error: OSError) -> str:
    remedy = "; netsrvd.service has a user of its own: chmod o+rX" if error.errno == EACCES else ""
    return f"{error.strerror}{remedy}"


def _merge(
    tree: dict[str, Any],
    new: Tree,
    path: tuple[str, ...],
    file: Path,
    origins: dict[tuple[str, ...], Path],
) -> None:
    """Lay `new` over `tree`: tables are joined key by key, everything else is replaced."""
    for key, value in new.items():
        here = (*path, key)
        origins[here] = file
        if isinstance(value, dict) and len(here) < DEEPEST:
            if not isinstance(tree.get(key), dict):
                tree[key] = {}
            _merge(tree[key], value, here, file, origins)
        else:
            tree[key] = value


def _located(fault: Problem, tree: Tree, origins: dict[tuple[str, ...], Path]) -> str:
    """Return the line for one fault: file, key, value, and what is wrong."""
    known = [fault.path[:length] for length in range(len(fault.path), 0, -1)]
    file = next((origins[path] for path in known if path in origins), "default configuration")
    value: Any = tree
    for key in fault.path:
        value = value.get(key) if isinstance(value, dict) else None
    said = "" if value is None or isinstance(value, dict) else f" = {shortly(value)}"
    return f"{file}: {_dotted(fault.path)}{said}: {fault.text}"


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(key if _is_bare(key) else written(key) for key in path)


def _is_bare(key: str) -> bool:
    return key.isascii() and key.replace("-", "_").isidentifier()
