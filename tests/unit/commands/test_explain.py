"""netsrvd.commands.explain"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from netsrvd.access.connections import ConnectionPolicy
from netsrvd.commands import explain
from netsrvd.errors import UsageError

CONFIGURATION = """
[listener.echo]
allow = ["local", "198.51.100.0/24", "2001:db8::/32"]
deny = ["198.51.100.66", "2001:db8:6::/48"]
unlimited = ["loopback", "198.51.100.1"]

[listener.web]
protocols = ["tcp"]
port = 7007

[listener.other]
protocols = ["udp"]
port = 7008
refused_ports = []

[listener.behind]
port = 7009
allow = ["192.0.2.0/24"]
proxies = ["10.0.0.1"]
"""


class Told(NamedTuple):
    """What the command returned and printed."""

    status: int
    verdict: str
    notes: list[str]


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what asks about a listener and an address."""
    config = tmp_path / "netsrvd.toml"
    config.write_text(CONFIGURATION)

    def asked(listener: str, address: str, *, udp: bool = False) -> Told:
        arguments = argparse.Namespace(
            config=config, listener=listener, address=address, udp=udp, json=False
        )
        status = explain.run(arguments)
        verdict, *notes = capsys.readouterr().out.splitlines()
        return Told(status, verdict, [note.strip() for note in notes])

    return asked


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("127.0.0.1", 'let in: allow has "local"'),
        ("198.51.100.7:4711", 'let in: allow has "198.51.100.0/24"'),
        ("::ffff:198.51.100.7", 'let in: allow has "198.51.100.0/24"'),
        ("198.51.100.66", 'refused: access: deny has "198.51.100.66"'),
        ("2001:db8::1", 'let in: allow has "2001:db8::/32"'),
        ("[2001:db8:6::1]:4711", 'refused: access: deny has "2001:db8:6::/48"'),
        ("203.0.113.1", "refused: access: no entry of allow contains it"),
    ],
)
@pytest.mark.parametrize("udp", [False, True])
def test_the_entry_that_decides_is_named(ask: Any, address: str, verdict: str, udp: bool) -> None:  # noqa: FBT001
    """By TCP and by UDP, with the exit status 0 for in and 1 for refused."""
    told = ask("echo", address, udp=udp)
    assert told.verdict.endswith(f": {verdict}")
    assert told.status == (0 if "let in" in verdict else 1)


@pytest.mark.parametrize(
    ("listener", "port", "verdict"),
    [
        ("echo", 53, 'refused: port: source port 53: refused_ports has "privileged"'),
        ("echo", 7008, 'refused: port: source port 7008: refused_ports has "own"'),
        ("echo", 51423, 'refused: port: source port 51423: refused_ports has "own"'),
        ("echo", 7007, "let in"),  # which is TCP alone
        ("other", 53, "let in"),
    ],
)
def test_source_ports_are_judged(ask: Any, listener: str, port: int, verdict: str) -> None:
    """Own ports are those of all listeners that answer datagrams."""
    told = ask(listener, f"127.0.0.1:{port}", udp=True)
    assert f": {verdict}" in told.verdict
    assert told.status == (0 if verdict == "let in" else 1)


def test_without_a_port_nothing_is_said_of_ports(ask: Any) -> None:
    """The verdict is that of the address, and a note says so."""
    told = ask("echo", "127.0.0.1", udp=True)
    assert told.status == 0
    assert "without a port, nothing is said of refused_ports" in told.notes


@pytest.mark.parametrize(("listener", "udp"), [("web", True), ("other", False)])
def test_a_protocol_that_is_not_served_refuses_everybody(
    ask: Any,
    listener: str,
    udp: bool,  # noqa: FBT001
) -> None:
    """The reason is the protocol."""
    told = ask(listener, "127.0.0.1:40000", udp=udp)
    assert told.status == 1
    assert (
        f": refused: protocol: the listener serves {'tcp' if udp else 'udp'} only" in told.verdict
    )


def test_behind_a_proxy_the_named_client_is_judged(ask: Any) -> None:
    """The proxy itself is let in, with the advice whom to ask for; for a client it is all the same
    by which way it comes; a listener without proxies says nothing of them.
    """
    told = ask("behind", "10.0.0.1")
    assert told.verdict.endswith(': let in: proxies has "10.0.0.1"')
    assert told.notes[0].startswith("it is a proxy: whom its header names is judged instead")
    told = ask("behind", "192.0.2.1")
    assert told.verdict.endswith(': let in: allow has "192.0.2.0/24"')
    assert told.notes[0] == "so it is whether it comes by itself or by a proxy"
    assert not any("a proxy" in note for note in ask("echo", "127.0.0.1").notes)


def test_the_limits_of_the_source_are_shown(ask: Any) -> None:
    """With the source that shares them, and the file or default that each comes from."""
    told = ask("echo", "2001:db8::1")
    assert "it shares the limits of the source 2001:db8::/64" in told.notes
    keys = {note.partition(" = ")[0]: note for note in told.notes}
    assert "netsrvd.toml" in keys["listener.echo.allow"]
    assert keys["listener.echo.connection_rate"].endswith("# default")
    assert "listener.echo.datagram_rate" not in keys
    told = ask("echo", "198.51.100.1")
    assert "it is in unlimited: no limit of a source holds for it" in told.notes


def test_it_judges_as_the_daemon_does(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the policy says is the verdict, whatever that is."""
    monkeypatch.setattr(ConnectionPolicy, "admit", lambda *_: (None, ("whim", "because")))
    assert ask("echo", "127.0.0.1").verdict == "echo: tcp 127.0.0.1: refused: whim: because"


@pytest.mark.parametrize(
    ("text", "peer"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("::1", ("::1", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("fe80::1%eth0", ("fe80::1%eth0", 0)),
        ("[::ffff:192.0.2.1]:7", ("192.0.2.1", 7)),
        ("0:0:0:0:0:FFFF:c000:201", ("192.0.2.1", 0)),
        ("::ffff:1:192.0.2.7", ("::ffff:1:c000:207", 0)),
    ],
)
def test_addresses_are_read(text: str, peer: tuple[str, int]) -> None:
    """With a port or without; an IPv4-mapped one is the IPv4 one."""
    assert explain.address(text) == peer


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "localhost",
            "192.0.2",
            "192.0.2.1:",
            "192.0.2.1:0",
            "192.0.2.1:65536",
            "192.0.2.1:x",
        ),
        *("[::1", "[::1]", "[::1]7", "[::1]:", "::1:x:", "192.0.2.1:-1", "192.0.2.1: 7", "[]:7"),
    ],
)
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    """The error shows what would have been one."""
    with pytest.raises(UsageError, match="is no address; expected one such as"):
        explain.address(text)
