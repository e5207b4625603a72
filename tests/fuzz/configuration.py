"""Configuration files: any bytes are a ConfigError or settings, which survive being printed."""

import tempfile
from pathlib import Path

from netsrvd.config import files
from netsrvd.errors import ConfigError
from netsrvd.startup import VALIDATORS

NEXT_FILE = b"\n#+ drop-in\n"
"""What separates the main file and the drop-ins of one input; a comment, if it is mutilated."""

MOST_DROP_INS = 4


def check(data: bytes) -> None:
    """Load the files that the input holds; what is printed of them must mean the same settings."""
    main, *drop_ins = data.split(NEXT_FILE, MOST_DROP_INS)
    with tempfile.TemporaryDirectory(prefix="netsrvd-fuzz-") as name:
        folder = Path(name)
        (folder / "conf.d").mkdir()
        (folder / "netsrvd.toml").write_bytes(main)
        for number, drop_in in enumerate(drop_ins):
            (folder / f"conf.d/{number}.toml").write_bytes(drop_in)
        try:
            found = files.load(folder / "netsrvd.toml", VALIDATORS)
        except ConfigError as error:
            assert error.problems
            assert all(problem.isprintable() for problem in error.problems), error.problems
            return
        lines = found.lines(VALIDATORS)
        assert all(line.isprintable() for line in lines), lines
        (folder / "printed.toml").write_text("\n".join(lines), encoding="utf-8")
        for drop_in in (folder / "conf.d").iterdir():
            drop_in.unlink()
        again = files.load(folder / "printed.toml", VALIDATORS)
    assert again.settings == found.settings
    # True equals 1 and False 0: the printed options must also be of the same types.
    kinds = [[type(value) for value in each.options.values()] for each in found.settings.listeners]
    assert kinds == [[type(v) for v in each.options.values()] for each in again.settings.listeners]
