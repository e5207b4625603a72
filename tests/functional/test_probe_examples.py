"""The examples of netsrvd-probe(1) work as they are written."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.manuals import pages
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE

[PAGE] = [page for page in pages() if page.name == "netsrvd-probe"]
QUICKER = {"1000": "10", "100ms": "10ms"}
"""What an example has for a long measurement."""


@pytest.mark.parametrize("example", PAGE.examples())
def test_examples(start: Start, port: int, tmp_path: Path, example: str) -> None:
    """Each has an answer from a netsrvd, and draws the picture that it names."""
    start()
    program, *arguments = shlex.split(example)
    assert program == "netsrvd"
    words = [QUICKER.get(each, each) for each in arguments]
    words = [f"127.0.0.1:{port}" if each == "host.example" else each for each in words]
    done = subprocess.run(
        [COMMAND, *words],
        cwd=tmp_path,
        env=ENVIRONMENT | {"MPLCONFIGDIR": str(tmp_path), "PYTHONWARNINGS": "default"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done
    assert "127.0.0.1" in done.stdout or "OK" in done.stdout
    if "--plot" in words:
        assert (tmp_path / words[words.index("--plot") + 1]).stat().st_size > 1000
