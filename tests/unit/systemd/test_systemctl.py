"""What systemctl(1) is asked, and what becomes of its answers."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from netsrvd.errors import SystemdError
from netsrvd.systemd import systemctl


def test_the_properties_of_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One dictionary a unit; a value may have the sign itself."""

    def run(argv: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert argv[-2:] == ("a.service", "b@*.service")
        return subprocess.CompletedProcess(argv, 0, "Id=a\nX=1=2\n\nId=b\nX=\n", "")

    monkeypatch.setattr(systemctl, "RUNNING", tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    found = systemctl.texts(["a.service", "b@*.service"], ["Id", "X"])
    assert found == [{"Id": "a", "X": "1=2"}, {"Id": "b", "X": ""}]


@pytest.mark.parametrize("stderr", ["no way\n", ""])
def test_a_systemctl_that_fails_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stderr: str
) -> None:
    """What it said, in one line."""
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(systemctl, "RUNNING", tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    with pytest.raises(
        SystemdError, match=rf"^systemctl show a\.service failed \(1\): {stderr.strip()}$"
    ):
        systemctl.texts(["a.service"], ["Id"])


def test_a_systemctl_that_hangs_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not waited for without end."""

    def run(argv: Sequence[str], timeout: float, **_: object) -> None:
        raise subprocess.TimeoutExpired(argv, timeout)

    monkeypatch.setattr(systemctl, "RUNNING", tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SystemdError, match="has not answered for 10 s"):
        systemctl.texts(["a.service"], ["Id"])
