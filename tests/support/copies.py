"""Copies of the package, whose files a test may replace."""

import shutil
from pathlib import Path

import netsrvd


def copy_package(folder: Path) -> None:
    """Copy the package into a folder, without what another run of tests is writing there."""
    half_written = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(Path(netsrvd.__file__).parent, folder / "netsrvd", ignore=half_written)
