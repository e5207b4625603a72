"""Reads the configuration file with its drop-ins, and remembers where each key came from."""

import re
from collections.abc import Collection, Mapping
from errno import EACCES
from pathlib import Path
from typing import Any, NamedTuple

from netsrvd.config import toml
from netsrvd.config.schema import (
    UNUSED,
    Tree,
    Validators,
    by_default,
    effective,
    read_settings,
)
from netsrvd.config.values import shortly, written
from netsrvd.errors import ConfigError, Fault
from netsrvd.escapes import escaped
from netsrvd.settings import DEFAULT_SERVICE, Settings

DEFAULT_FILE = Path("/etc/netsrvd/netsrvd.toml")
DROP_INS = "conf.d"

DEEPEST = 4
"""Keys of the longest path, `listener.NAME.options.OPTION`; tables below it are faults anyway."""

KEY_OF_LISTENER = 3
"""Parts of the path `listener.NAME.KEY`."""

WIDEST = 60
"""Characters of a line behind which origins stand in a column; longer lines stand out alone."""


TOML_PLACE = r" \(at line ([0-9]+)(?:, (column [0-9]+))?\)$"
"""Where an error of tomllib says that it is."""

QUOTES_MISSING = ("Invalid value", "Expected newline or end of document after a statement")
"""What tomllib says of a text that stands without quotation marks."""

KeyPath = tuple[str, ...]


class Sources:
    """The texts of the files that were read. Finds the line of a key when it is asked for one."""

    __slots__ = ("_lines", "origins", "texts", "tree")

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        """What all files together say."""
        self.origins: dict[KeyPath, Path] = {}
        """The file that decides each key."""
        self.texts: dict[Path, str] = {}
        self._lines: dict[Path, Mapping[KeyPath, int]] = {}

    def line(self, path: KeyPath) -> int:
        """Return the line of a key in the file that it is from, 0 where that is not known."""
        file = self.origins.get(path)
        if file is None:
            return 0
        if file not in self._lines:
            from netsrvd.config.key_lines import key_lines  # noqa: PLC0415 - for faults and `check`

            self._lines[file] = key_lines(self.texts.get(file, ""))
        return self._lines[file].get(path, 0)

    def fault(self, text: str, *paths: KeyPath) -> Fault:
        """Return a fault at the first of these keys that a file has, or at a table around it."""
        around = [paths[-1][:length] for length in range(len(paths[-1]) - 1, 0, -1)]
        found = next((path for path in (*paths, *around) if path in self.origins), ())
        file = escaped(str(self.origins[found])) if found else "default configuration"
        key = found if found in paths else paths[-1]
        value: Any = self.tree
        for part in key:
            value = value.get(part) if isinstance(value, dict) else None
        said = "" if value is None or isinstance(value, dict) else f" = {shortly(value)}"
        return Fault(f"{dotted(key)}{said}: {text}", file, self.line(found), key)


class Row(NamedTuple):
    """One key of the effective configuration."""

    path: KeyPath
    value: Any
    file: Path | None
    """The file that it is from; None for a default."""
    line: int
    is_default: bool
    """Whether the value is the default one, also if a file says so."""

    @property
    def origin(self) -> str:
        """Return where the key is from, for people."""
        if self.file is None:
            return "default"
        name = escaped(str(self.file))
        return f"{name}:{self.line}" if self.line else name


class Configuration(NamedTuple):
    """Settings, and the files that they are from."""

    settings: Settings
    files: tuple[Path, ...]
    sources: Sources
    unread: tuple[Path, ...] = ()
    """What is in the folder of the drop-ins and is none, by its name."""
    path: Path | None = None
    """The file that was asked for; None for the default one."""

    def rows(self, words: Validators, only: Collection[KeyPath] | None = None) -> list[Row]:
        """Return all keys of the effective configuration, or just those at these paths."""
        chosen = self.settings.listeners
        if only is not None:
            named = {path[1] for path in only if path[0] == "listener"}
            chosen = tuple(each for each in chosen if each.name in named)
        listeners = tuple(
            by_default(each.name, each.service)._replace(service=DEFAULT_SERVICE) for each in chosen
        )
        default = dict(effective(Settings(listeners=listeners), words))
        rows = []
        for path, value in effective(self.settings._replace(listeners=chosen), words):
            file, line = self.sources.origins.get(path), self.sources.line(path)
            if (path in UNUSED and file is None) or (only is not None and path not in only):
                continue
            same = path[-1] != "enabled" and path in default and default[path] == value
            rows.append(Row(path, value, file, line, same))
        return rows

    def objects(
        self, words: Validators, only: Collection[KeyPath] | None = None
    ) -> list[dict[str, Any]]:
        """Return the effective configuration for JSON, or just the keys at these paths."""
        return [
            {
                "key": dotted(row.path),
                "value": row.value,
                "default": row.is_default,
                "file": escaped(str(row.file)) if row.file else None,
                "line": row.line or None,
            }
            for row in self.rows(words, only)
        ]

    @property
    def named(self) -> dict[str, set[str]]:
        """Return the keys that the files have in each listener's table, by the listener's name."""
        found: dict[str, set[str]] = {}
        for path in self.sources.origins:
            if len(path) == KEY_OF_LISTENER and path[0] == "listener":
                found.setdefault(path[1], set()).add(path[2])
        return found

    def lines(
        self,
        words: Validators,
        only: Collection[KeyPath] | None = None,
        *,
        without_defaults: bool = False,
    ) -> list[str]:
        """Return the effective configuration as TOML, a key a line, each with its origin.

        With `only`, just the keys at these paths.
        """
        rows = [
            (f"{dotted(row.path)} = {written(row.value)}", row.origin)
            for row in self.rows(words, only)
            if not (without_defaults and row.is_default)
        ]
        width = min(WIDEST, max((len(text) for text, _ in rows), default=0))
        return [f"{text:{width}}  # {origin}" for text, origin in rows]


def load(path: Path | None, words: Validators) -> Configuration:
    """Read `path` and the drop-ins `conf.d/*.toml` beside it, later names over earlier ones.

    None stands for the default file, which may be missing; a named one may not. Raises ConfigError
    with a line for each fault of all files.
    """
    main = path or DEFAULT_FILE
    faults: list[Fault] = []
    sources = Sources()
    drop_ins, unread = _drop_ins(main.parent / DROP_INS, faults)
    for file in (main, *drop_ins):
        try:
            text = toml.text_of(file)
            sources.texts[file] = text
            _merge(sources.tree, toml.parse(text), (), file, sources.origins)
        except (ValueError, RecursionError) as error:  # also of UTF-8, and of numbers too long
            faults.append(_not_toml(file, error))
            sources.texts.pop(file, None)
        except FileNotFoundError:
            if path or file != main:
                faults.append(Fault("there is no such file", escaped(str(file))))
        except OSError as error:
            faults.append(Fault(f"cannot be read: {_why(error)}", escaped(str(file))))
    settings, problems = read_settings(sources.tree, words)
    faults += [sources.fault(problem.text, problem.path) for problem in problems]
    if faults:
        raise ConfigError(faults)
    return Configuration(settings, tuple(sources.texts), sources, tuple(unread), path)


def _drop_ins(folder: Path, faults: list[Fault]) -> tuple[list[Path], list[Path]]:
    """Return the drop-ins of a folder by name, and what else is there.

    A folder that cannot be listed is a fault.
    """
    try:
        files = sorted(folder.iterdir())
    except FileNotFoundError:
        return [], []
    except OSError as error:
        faults.append(Fault(f"cannot be read: {_why(error)}", escaped(str(folder))))
        return [], []
    wanted: list[Path] = []
    others: list[Path] = []
    for each in files:
        is_wanted = each.suffix == ".toml" and not each.name.startswith(".")
        (wanted if is_wanted else others).append(each)
    return wanted, others


def _not_toml(file: Path, error: Exception) -> Fault:
    """Return the fault of a file that is not TOML, with the line where that shows."""
    said = str(error)
    found = re.search(TOML_PLACE, said)
    hint = "; a text stands in quotation marks" if said.startswith(QUOTES_MISSING) else ""
    line = int(found[1]) if found else 0
    column = f" ({found[2]})" if found and found[2] else ""
    text = said[: found.start()] if found else said
    return Fault(f"not valid TOML: {text}{column}{hint}", escaped(str(file)), line)


def _why(error: OSError) -> str:
    remedy = "; netsrvd.service has a user of its own: chmod o+rX" if error.errno == EACCES else ""
    return f"{error.strerror}{remedy}"


def _merge(
    tree: dict[str, Any],
    new: Tree,
    path: KeyPath,
    file: Path,
    origins: dict[KeyPath, Path],
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


def dotted(path: KeyPath) -> str:
    """Return a path as TOML has it."""
    return ".".join(key if _is_bare(key) else written(key) for key in path)


def _is_bare(key: str) -> bool:
    return key.isascii() and key.replace("-", "_").isidentifier()
