"""Parts of `netsrvd apply` that need no systemd."""

import argparse
from pathlib import Path

import pytest

from netsrvd.commands import apply
from netsrvd.errors import UsageError

ALONE = argparse.Namespace(dry_run=False)


def test_nobody_else_can_hold_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can open a file can lock it: it is for its owner alone, also one of before."""
    lock = tmp_path / "lock"
    lock.touch(mode=0o644)
    monkeypatch.setattr(apply, "LOCK", lock)
    with apply._alone(ALONE):
        assert lock.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UsageError, match="another"), apply._alone(ALONE):
            pass
