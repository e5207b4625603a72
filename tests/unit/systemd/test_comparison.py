"""What `netsrvd check` says of the socket units of a host."""

from pathlib import Path

import pytest

from netsrvd.config import files
from netsrvd.startup import VALIDATORS
from netsrvd.systemd import comparison
from netsrvd.systemd.plan import Host, Target


@pytest.mark.parametrize(
    ("config", "is_compared"),
    [(None, True), (files.DEFAULT_FILE, True), (Path("/srv/other.toml"), False)],
)
def test_only_what_the_service_reads_is_compared(
    config: Path | None, monkeypatch: pytest.MonkeyPatch, *, is_compared: bool
) -> None:
    """`netsrvd apply`, to which a difference leads, takes the file that ExecStart= names."""
    host = Host((Target("netsrvd.service"),), {}, config=config)
    monkeypatch.setattr(comparison, "look", lambda: host)
    found = comparison.compare(files.load(None, VALIDATORS))
    assert bool(found.differences) == is_compared
    assert found.problem == ("" if is_compared else "the service reads /srv/other.toml")
