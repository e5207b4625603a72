"""Which ports a firewall closes."""

from pathlib import Path

import pytest

from netsrvd.systemd import firewall

RULES = """\
### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### allow udp 51423 0.0.0.0/0 any 0.0.0.0/0 netsrvd - in
### tuple ### limit any 7 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### allow tcp 1000:2000,9 0.0.0.0/0 any 0.0.0.0/0 in
### tuple ### deny tcp 8 0.0.0.0/0 any 0.0.0.0/0 in
"""


@pytest.mark.parametrize(
    ("port", "is_closed"),
    [
        (("tcp", 22), False),
        (("udp", 22), True),
        (("udp", 51423), False),
        (("udp", 7), False),
        (("tcp", 1500), False),
        (("tcp", 9), False),
        (("tcp", 8), True),
    ],
)
def test_rules_of_ufw(port: tuple[str, int], *, is_closed: bool) -> None:
    """SourcePorts, lists, ranges, and rules for both protocols."""
    assert bool(firewall.closed([port], RULES)) is is_closed


def test_only_an_active_ufw_that_closes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one that is off, nor one that lets everything in."""
    monkeypatch.setattr(firewall, "UFW", tmp_path)
    monkeypatch.setattr(firewall, "UFW_DEFAULTS", tmp_path / "default")
    assert firewall.ufw_hints([("tcp", 7)]) == []
    (tmp_path / "ufw.conf").write_text("ENABLED=yes\n")
    (tmp_path / "default").write_text('DEFAULT_INPUT_POLICY="ACCEPT"\n')
    assert firewall.ufw_hints([("tcp", 7)]) == []
    (tmp_path / "default").write_text('DEFAULT_INPUT_POLICY="DROP"\n')
    assert firewall.ufw_hints([("tcp", 7)]) == ["ufw closes tcp port 7: ufw allow 7/tcp"]
    (tmp_path / "user.rules").write_text(RULES)
    assert firewall.ufw_hints([("tcp", 7)]) == []


def test_firewalld_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that its default zone has not is told with the command that opens it."""
    program = tmp_path / "firewall-cmd"
    program.write_text("#!/bin/sh\ncase $2 in --state | *=7/tcp) exit 0 ;; esac\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    [line] = firewall.firewalld_hints([("tcp", 7), ("udp", 7)])
    assert line.startswith("firewalld closes udp port 7: firewall-cmd --permanent --add-port=7/udp")
    program.write_text("#!/bin/sh\nexit 252\n")
    assert firewall.firewalld_hints([("udp", 7)]) == []
