"""Keeps the configuration that `netsrvd apply` has put into force, and the one before it."""

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

STATE = Path("/var/lib/netsrvd")
CURRENT, PREVIOUS, UNDONE = "applied", "applied-before", "undone"
FACTS = "state.json"
DROP_INS = "conf.d"

Files = dict[str, bytes]
"""The contents of the files of a configuration, by their paths below its folder."""


class Saved(NamedTuple):
    """A configuration that was put into force."""

    folder: Path
    main: str
    """The name of the first file."""
    units: tuple[str, ...]
    """The socket units by others that served."""
    stamps: Mapping[str, str]
    """Of each service, what differs after each start and reload."""
    time: str
    """When it was put into force, in ISO 8601."""


def read(which: str = CURRENT) -> Saved | None:
    """Return what was saved, None for nothing or for what this user may not read."""
    folder = STATE / which
    try:
        found = json.loads((folder / FACTS).read_text())
        units, stamps = tuple(found["units"]), dict(found["stamps"])
        return Saved(folder, found["main"], units, stamps, found["time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_hidden() -> bool:
    """Return whether there is a state that this user may not read."""
    folder = STATE / CURRENT
    return folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK)


def files(main: Path) -> Files:
    """Return the regular files of the configuration whose first one is `main`."""
    drop_ins = sorted((main.parent / DROP_INS).glob("*.toml"))
    paths = [main, *(path for path in drop_ins if not path.name.startswith("."))]
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():
                found[str(path.relative_to(main.parent))] = path.read_bytes()
    return found


def changed_at(main: Path) -> float:
    """Return when a file of a configuration was changed last, in seconds of the epoch."""
    found = 0.0
    for path in (main, main.parent / DROP_INS, *(main.parent / DROP_INS).glob("*.toml")):
        with contextlib.suppress(OSError):
            found = max(found, path.stat().st_ctime)
    return found


def save(main: Path, facts: Saved) -> None:
    """Keep the configuration as the one in force; what was that becomes the one before.

    The facts alone are renewed where the files are the same.
    """
    old = read()
    if old and files(old.folder / old.main) == files(main):
        _write(STATE / CURRENT / FACTS, _as_json(main, facts))
        return
    new = STATE / f"{CURRENT}.new"
    _copy(main, new, _as_json(main, facts))
    if old:
        shutil.rmtree(STATE / PREVIOUS, ignore_errors=True)
        (STATE / CURRENT).rename(STATE / PREVIOUS)
    shutil.rmtree(STATE / CURRENT, ignore_errors=True)
    new.rename(STATE / CURRENT)


def put_back(saved: Saved, main: Path) -> None:
    """Make the configuration files those that were saved; those of now are kept in `UNDONE`.

    All contents are written before the first file is replaced: a full disk changes nothing.
    """
    now, then = files(main), files(saved.folder / saved.main)
    facts = {name: (saved.folder / name).stat() for name in then}
    _copy(main, STATE / UNDONE, "")
    new: dict[Path, Path] = {}
    try:
        for name, content in then.items():
            if now.get(name) != content:
                target = main.parent / name
                new[target] = target.with_name(f".{target.name}.new")
                _write_new(new[target], content, facts[name])
    except BaseException:
        for path in new.values():
            path.unlink(missing_ok=True)
        raise
    for target, path in new.items():
        path.replace(target)
    for name in now.keys() - then.keys():
        (main.parent / name).unlink()


def _write_new(path: Path, content: bytes, facts: os.stat_result) -> None:
    """Write a file with the owner, the group and the mode of another one."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
    os.chown(path, facts.st_uid, facts.st_gid)
    path.chmod(facts.st_mode & 0o777)


def put_back_undone(main: Path) -> None:
    """Take back what `put_back` did."""
    put_back(Saved(STATE / UNDONE, main.name, (), {}, ""), main)


def _copy(main: Path, folder: Path, facts: str) -> None:
    os.makedirs(STATE, mode=0o755, exist_ok=True)  # noqa: PTH103 - with a mode
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    (folder / DROP_INS).mkdir()
    for name in files(main):
        status = (main.parent / name).stat()
        shutil.copy2(main.parent / name, folder / name)
        os.chown(folder / name, status.st_uid, status.st_gid)
    if facts:
        _write(folder / FACTS, facts)


def _as_json(main: Path, facts: Saved) -> str:
    return json.dumps(
        {
            "main": main.name,
            "units": facts.units,
            "stamps": dict(facts.stamps),
            "time": facts.time,
        }
    )


def _write(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)
