"""netsrvd.commands.sockopts."""

import argparse
import errno
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from netsrvd.commands import sockopts
from netsrvd.errors import ConfigError, UsageError
from netsrvd.settings import Endpoint, ListenerSettings
from netsrvd.sockets import bind, options

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def sockopts_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command with a configuration; return its exit status and its lines."""

    def run(
        text: str = "", *, listener: str | None = None, as_json: bool = False
    ) -> tuple[int, list[str]]:
        file = tmp_path / "netsrvd.toml"
        file.write_text(text)
        arguments = argparse.Namespace(listener=listener, config=file, json=as_json)
        status = sockopts.run(arguments)
        said = capsys.readouterr()
        assert said.err == ""
        return status, said.out.splitlines()

    return run


def trials(**settings: object) -> dict[tuple[str, str, str], sockopts.Trial]:
    """Return the trials of a listener, by protocol, host and option."""
    listener = ListenerSettings("echo", **settings)  # type: ignore[arg-type]
    found = list(sockopts.trials(listener))
    by_key = {(each.endpoint.protocol, each.endpoint.host, each.option): each for each in found}
    assert len(by_key) == len(found)
    return by_key


# --- without a listener -----------------------------------------------------------------------


def test_every_option_has_a_line(sockopts_run: Run) -> None:
    """The list has headings and one line for each option, with its number and both values."""
    status, lines = sockopts_run()
    assert status == os.EX_OK
    assert lines[0].split() == ["NAME", "LEVEL", "NO", "TCP", "UDP", "MEANING"]
    assert [line.split()[0] for line in lines[1:]] == [*options.OPTIONS]
    [line] = [line for line in lines if line.startswith("SO_KEEPALIVE ")]
    assert line.split()[1:6] == ["SOL_SOCKET", str(socket.SO_KEEPALIVE), "false", "false", "Send"]
    [line] = [line for line in lines if line.startswith("TCP_NODELAY ")]
    assert line.split()[1:5] == ["IPPROTO_TCP", str(socket.TCP_NODELAY), "false", "-"]


def test_the_columns_are_aligned(sockopts_run: Run) -> None:
    """Every meaning begins in the column of its heading, and no line ends with a space."""
    _, lines = sockopts_run()
    column = lines[0].index("MEANING")
    meanings = [option.meaning for option in options.OPTIONS.values()]
    assert [line[column:] for line in lines[1:]] == meanings
    assert [line for line in lines if line != line.rstrip()] == []


def test_without_a_listener_no_configuration_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The list of all options can be had with a configuration that is broken."""
    arguments = argparse.Namespace(listener=None, config=tmp_path / "missing.toml", json=False)
    assert sockopts.run(arguments) == os.EX_OK
    assert capsys.readouterr().out


def test_json_has_the_same_options(sockopts_run: Run) -> None:
    """`--json` gives an object an option; values are booleans and numbers, null for neither."""
    _, lines = sockopts_run(as_json=True)
    found = {each["name"]: each for each in json.loads("\n".join(lines))}
    assert [*found] == [*options.OPTIONS]
    assert found["TCP_NODELAY"] == {
        "name": "TCP_NODELAY",
        "level": "IPPROTO_TCP",
        "number": socket.TCP_NODELAY,
        "kind": "flag",
        "refused": None,
        "tcp": False,
        "udp": None,
        "meaning": options.OPTIONS["TCP_NODELAY"].meaning,
    }
    assert found["IP_TTL"]["tcp"] == found["IP_TTL"]["udp"]
    assert isinstance(found["IP_TTL"]["tcp"], int)
    assert found["SO_TYPE"]["refused"] == "is read-only"


# --- aligned ----------------------------------------------------------------------------------

ROWS = [("NAME", "MEANING"), ("A", "the first letter"), ("LONG", "")]


@pytest.mark.parametrize(
    ("columns", "lines"),
    [
        (None, ["NAME  MEANING", "A     the first letter", "LONG"]),
        (22, ["NAME  MEANING", "A     the first letter", "LONG"]),
        (21, ["NAME", "    MEANING", "A", "    the first letter", "LONG"]),
    ],
)
def test_a_narrow_terminal_gets_the_last_cell_on_its_own_line(
    columns: int | None, lines: list[str]
) -> None:
    """What does not fit is not cut or wrapped: the last cell moves to a line of its own."""
    assert sockopts.aligned(ROWS, columns) == lines


def test_the_terminal_tells_its_width(sockopts_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal its width decides; anywhere else lines may be as long as they are."""
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, sockopts_run()[1])) > 80
    monkeypatch.setattr(sockopts.sys.stdout, "isatty", lambda: True)
    assert max(map(len, sockopts_run()[1])) <= 80


# --- with a listener --------------------------------------------------------------------------


def test_what_a_listener_sets_is_shown_for_each_socket(sockopts_run: Run) -> None:
    """Each socket has a line for each option that fits it, the daemon's own first."""
    status, lines = sockopts_run(
        '[listener.echo]\nport = 7007\nhost = "127.0.0.1"\noptions.TCP_KEEPIDLE = 60\n',
        listener="echo",
    )
    assert status == os.EX_OK
    assert [line.split(maxsplit=5) for line in lines] == [
        ["SOCKET", "OPTION", "ASKED", "GIVEN", "NOTE"],
        ["tcp", "127.0.0.1:7007", "SO_REUSEADDR", "true", "true", "by the daemon itself"],
        ["tcp", "127.0.0.1:7007", "TCP_NODELAY", "true", "true"],
        ["tcp", "127.0.0.1:7007", "TCP_NOTSENT_LOWAT", "131072", "131072"],
        ["tcp", "127.0.0.1:7007", "SO_OOBINLINE", "true", "true"],
        ["tcp", "127.0.0.1:7007", "TCP_KEEPIDLE", "60", "60"],
        ["udp", "127.0.0.1:7007", "SO_REUSEADDR", "false", "false", "by the daemon itself"],
        ["udp", "127.0.0.1:7007", "IP_PKTINFO", "true", "true", "by the daemon itself"],
        ["udp", "127.0.0.1:7007", "SO_OOBINLINE", "true", "true"],
    ]


def test_json_has_the_same_trials(sockopts_run: Run) -> None:
    """`--json` gives an object an option and socket."""
    _, lines = sockopts_run(
        '[listener.echo]\nhost = "127.0.0.1"\nprotocols = "tcp"\nport = 7007\n',
        listener="echo",
        as_json=True,
    )
    where = {"listener": "echo", "protocol": "tcp", "host": "127.0.0.1", "port": 7007}
    assert json.loads("\n".join(lines)) == [
        where
        | {"option": "SO_REUSEADDR", "asked": True, "given": True, "note": sockopts.BY_ITSELF},
        where | {"option": "TCP_NODELAY", "asked": True, "given": True, "note": None},
        where | {"option": "TCP_NOTSENT_LOWAT", "asked": 131072, "given": 131072, "note": None},
        where | {"option": "SO_OOBINLINE", "asked": True, "given": True, "note": None},
    ]


def test_an_unknown_listener_is_a_usage_error(sockopts_run: Run) -> None:
    """A listener that is not configured: the error names those that are."""
    with pytest.raises(UsageError, match="there is no listener ech; known: echo, other"):
        sockopts_run("[listener.other]\nport = 7008\n", listener="ech")


def test_a_faulty_configuration_is_a_configuration_error(sockopts_run: Run) -> None:
    """What is wrong with the configuration flies up to the caller."""
    with pytest.raises(ConfigError, match="SO_KEEPALIVE"):
        sockopts_run("[listener.echo.options]\nSO_KEEPALIVE = 1\n", listener="echo")


def test_nothing_is_bound(sockopts_run: Run) -> None:
    """The sockets are made and set, but never bound: a running daemon is not in the way."""
    with socket.create_server(("127.0.0.1", 0)) as running:
        port = running.getsockname()[1]
        text = f'[listener.echo]\nhost = "127.0.0.1"\nport = {port}\n'
        assert sockopts_run(text, listener="echo")[0] == os.EX_OK


def test_ipv6_sockets_are_for_ipv6_alone() -> None:
    """On IPv6 the daemon sets IPV6_V6ONLY, and asks for IPv6's packet information."""
    found = trials(hosts=("::1",))
    assert found["tcp", "::1", "IPV6_V6ONLY"].given is True
    assert found["udp", "::1", "IPV6_RECVPKTINFO"].given is True
    assert ("udp", "::1", "IP_PKTINFO") not in found


def test_a_buffer_is_doubled_and_a_clamped_one_told() -> None:
    """A buffer is shown as the kernel has it; the note tells doubling from clamping."""
    found = trials(hosts=("127.0.0.1",), options={"SO_RCVBUF": 65536, "SO_SNDBUF": 2**31 - 1})
    taken = found["tcp", "127.0.0.1", "SO_RCVBUF"]
    assert (taken.given, taken.note) == (131072, "the kernel doubles it")
    clamped = found["tcp", "127.0.0.1", "SO_SNDBUF"]
    assert clamped.note == "not as asked, the kernel doubles it"


def test_another_value_is_told() -> None:
    """TCP_DEFER_ACCEPT is rounded to whole retransmissions: the note says so."""
    found = trials(hosts=("127.0.0.1",), options={"TCP_DEFER_ACCEPT": 5})
    rounded = found["tcp", "127.0.0.1", "TCP_DEFER_ACCEPT"]
    assert (rounded.asked, rounded.note) == (5, "not as asked")


def test_an_option_that_the_kernel_refuses_is_told() -> None:
    """An error concerns one option; the others follow."""
    found = trials(hosts=("127.0.0.1",), options={"TCP_CONGESTION": "nonesuch", "IP_TTL": 9})
    assert found["tcp", "127.0.0.1", "TCP_CONGESTION"].note == os.strerror(errno.ENOENT)
    assert found["tcp", "127.0.0.1", "IP_TTL"].given == 9


def test_an_interface_is_set_like_an_option() -> None:
    """A listener's interface shows as SO_BINDTODEVICE; one that is missing tells so."""
    found = trials(hosts=("127.0.0.1",), interface="lo")
    assert found["tcp", "127.0.0.1", "SO_BINDTODEVICE"].given == "lo"
    found = trials(hosts=("127.0.0.1",), interface="nonesuch0")
    assert found["tcp", "127.0.0.1", "SO_BINDTODEVICE"].note == os.strerror(errno.ENODEV)


def test_a_missing_family_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without IPv6 has no such socket; the IPv4 ones follow or come before."""
    make = bind.make

    def make_ipv4(endpoint: Endpoint) -> socket.socket:
        if ":" in endpoint.host:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        return make(endpoint)

    monkeypatch.setattr(bind, "make", make_ipv4)
    found = trials()
    missing = found["tcp", "::", "-"]
    assert missing.note == f"no such socket: {os.strerror(errno.EAFNOSUPPORT)}"
    assert found["tcp", "0.0.0.0", "SO_REUSEADDR"].given is True
