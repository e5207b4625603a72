"""netsrvd.startup"""

import errno
import os
import resource
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from netsrvd import startup
from netsrvd.config import changes
from netsrvd.errors import ActivationError, ConfigError, DetachError, SocketError
from netsrvd.events import DEBUG
from netsrvd.events.connections import ConnectionsLimited
from netsrvd.events.log import LogFallback
from netsrvd.events.sockets import FamilyMissing, Listening, OptionAdjusted
from netsrvd.log import journal, stderr, syslog
from netsrvd.services import base
from netsrvd.services.base import Service
from netsrvd.settings import DEFAULT_PORT, Endpoint, ListenerSettings, LogSettings, Settings
from netsrvd.sockets import bind
from netsrvd.sockets.activation import ActivatedSocket
from netsrvd.sockets.bind import FamilyMissingError, ListeningSocket
from tests.support.listening import FakeSocket
from tests.support.planned import configuration
from tests.support.reports import Failures

ECHO = ListenerSettings("echo")
Open = Callable[[Endpoint, ListenerSettings], ListeningSocket]


# --- which log --------------------------------------------------------------------------------


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the folder in which a socket `journal` or `syslog` means that there is such a log."""
    for name in startup.LOG_SOCKETS:
        monkeypatch.setitem(startup.LOG_SOCKETS, name, tmp_path / name)
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    return tmp_path


@contextmanager
def listening(logs: Path, names: str) -> Iterator[None]:
    """Have log daemons listen meanwhile."""
    with ExitStack() as stack:
        for name in names.split():
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            sock.bind(str(logs / name))
        yield


@pytest.mark.parametrize(
    ("target", "detached", "there", "chosen"),
    [
        ("auto", False, "", "stderr"),
        ("auto", False, "journal syslog", "stderr"),
        ("auto", True, "journal syslog", "syslog"),
        ("journal", False, "journal", "journal"),
        ("journal", True, "journal", "journal"),
        ("syslog", False, "syslog", "syslog"),
        ("stderr", False, "journal", "stderr"),
    ],
)
def test_the_log_that_fits_is_chosen(
    logs: Path,
    target: str,
    detached: bool,  # noqa: FBT001
    there: str,
    chosen: str,
) -> None:
    """A log that is asked for and there is taken; `auto` is the one that fits the start."""
    with listening(logs, there):
        assert startup.choose_log(target, detached=detached) == (chosen, [])


@pytest.mark.parametrize(
    ("target", "detached", "there", "used", "reason"),
    [
        ("journal", False, "", "stderr", "{}/journal does not exist"),
        ("journal", False, "syslog", "syslog", "{}/journal does not exist"),
        ("syslog", False, "journal", "journal", "{}/syslog does not exist"),
        ("auto", True, "journal", "journal", "{}/syslog does not exist"),
        ("stderr", True, "syslog", "syslog", "it is closed"),
    ],
)
def test_a_log_that_is_missing_is_replaced(
    logs: Path,
    target: str,
    detached: bool,  # noqa: FBT001
    there: str,
    used: str,
    reason: str,
) -> None:
    """Another log takes the place of a missing one, and a record says so."""
    wanted = "syslog" if target == "auto" else target
    with listening(logs, there):
        assert startup.choose_log(target, detached=detached) == (
            used,
            [LogFallback(wanted, used, reason.format(logs))],
        )


def test_a_log_that_its_daemon_has_left_is_replaced(logs: Path) -> None:
    """The file of a socket is there, but nobody listens."""
    with listening(logs, "syslog"):
        pass
    reason = f"{logs}/syslog: Connection refused"
    assert startup.choose_log("syslog", detached=False) == (
        "stderr",
        [LogFallback("syslog", "stderr", reason)],
    )


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("target", ["auto", "journal", "syslog", "stderr"])
def test_nobody_leaves_the_terminal_without_a_log(target: str) -> None:
    """A daemon whose records nobody could read does not start."""
    with pytest.raises(DetachError, match="neither syslog nor a journal"):
        startup.choose_log(target, detached=True)


def test_systemd_is_known_by_its_stream(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is the journal where standard error leads there already (systemd.exec(5))."""
    with listening(logs, "journal"), tempfile.TemporaryFile("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert startup.choose_log("auto", detached=False) == ("journal", [])
        monkeypatch.setenv("JOURNAL_STREAM", "1:1")
        assert startup.choose_log("auto", detached=False) == ("stderr", [])


def test_a_service_waits_for_its_journal(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While journald is away systemd gives a service /dev/null as standard error: no record goes
    there, and the journal is used as soon as it is back.
    """
    with Path(os.devnull).open("w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("SYSTEMD_EXEC_PID", str(os.getpid()))
        assert startup.choose_log("auto", detached=False) == ("journal", [])
        with listening(logs, "syslog"):
            used, notes = startup.choose_log("auto", detached=False)
            assert (used, [type(note) for note in notes]) == ("syslog", [LogFallback])
        monkeypatch.setenv("SYSTEMD_EXEC_PID", "1")
        assert startup.choose_log("auto", detached=False) == ("stderr", [])


def test_without_a_standard_error_it_is_not_systemd(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed standard error is nobody's stream."""

    def fileno() -> int:
        return -1

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(fileno=fileno))
    assert startup.choose_log("auto", detached=False) == ("stderr", [])


def test_every_log_can_be_made() -> None:
    """Each name of the configuration is a log of that name; making it opens nothing."""
    made = {name: log() for name, log in startup.LOGS.items()}
    assert {name: log.name for name, log in made.items()} == {name: name for name in made}
    kinds = {type(log) for log in made.values()}
    assert kinds == {journal.JournalLog, syslog.SyslogLog, stderr.StderrLog}


# --- sockets ----------------------------------------------------------------------------------


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Callable[[Open], None]:
    """Have endpoints opened as the test says."""
    return lambda opening: monkeypatch.setattr(bind, "open_endpoint", opening)


def opened(
    endpoint: Endpoint, listener: ListenerSettings, *, share: bool = False
) -> ListeningSocket:
    """Open a socket that is none, with one option adjusted."""
    sock = FakeSocket(address=(endpoint.host, endpoint.port))
    adjusted = (("SO_RCVBUF", "1", "2304"),)
    return ListeningSocket(sock, endpoint.protocol, listener, "bound", adjusted)  # type: ignore[arg-type]


def test_what_nobody_passed_is_bound_and_reported(opens: Callable[[Open], None]) -> None:
    """Each socket has its record, and each option that the kernel gave another value."""
    opens(opened)
    sockets, notes = startup.open_sockets(configuration(Settings()), [])
    assert {*sockets} == {*ECHO.endpoints()}
    assert notes[:2] == [
        Listening("echo", "echo", "tcp", "0.0.0.0", DEFAULT_PORT, "bound"),
        OptionAdjusted("echo", "tcp", "SO_RCVBUF", "1", "2304"),
    ]
    assert len(notes) == 2 * len(sockets)


def test_what_was_passed_is_not_bound_besides(opens: Callable[[Open], None]) -> None:
    """systemd's TCP sockets serve the listener's TCP alone; UDP is bound as configured."""
    opens(opened)
    passed = [
        ActivatedSocket(FakeSocket(address=("0.0.0.0", 7)), "echo"),  # type: ignore[arg-type]
        ActivatedSocket(FakeSocket(socket.AF_INET6, address=("::", 7)), "echo"),  # type: ignore[arg-type]
    ]
    sockets, notes = startup.open_sockets(configuration(Settings()), passed)
    assert len(sockets[Endpoint("echo", "tcp")]) == 2
    assert {end.protocol for end in sockets if end.port} == {"udp"}
    origins = [note.origin for note in notes if isinstance(note, Listening)]
    assert origins == ["systemd", "systemd", "bound", "bound"]


def test_what_a_reload_opens_is_reported_too(opens: Callable[[Open], None]) -> None:
    """A reload binds by the same function, which also tells what came of it."""
    opens(opened)
    _, notes = startup.bind_all(changes.endpoints(Settings(), ()))
    assert [type(note) for note in notes] == [Listening, OptionAdjusted] * 4


def test_one_failure_closes_everything(opens: Callable[[Open], None]) -> None:
    """All or nothing: what was bound before the failure is closed again."""
    made: list[ListeningSocket] = []

    def open_until_udp(
        endpoint: Endpoint, listener: ListenerSettings, **_: bool
    ) -> ListeningSocket:
        if endpoint.protocol == "udp":
            raise SocketError("in use")
        made.append(opened(endpoint, listener))
        return made[-1]

    opens(open_until_udp)
    with pytest.raises(SocketError, match="in use"):
        startup.open_sockets(configuration(Settings()), [])
    assert len(made) == 2
    assert all(one.sock.closed for one in made)  # type: ignore[attr-defined]


def test_a_missing_family_is_a_note(opens: Callable[[Open], None]) -> None:
    """A kernel without IPv6 serves IPv4, and says so for each protocol."""

    def open_ipv4(endpoint: Endpoint, listener: ListenerSettings, **_: bool) -> ListeningSocket:
        if ":" in endpoint.host:
            raise FamilyMissingError("IPv6")
        return opened(endpoint, listener)

    opens(open_ipv4)
    sockets, notes = startup.open_sockets(configuration(Settings()), [])
    assert {end.host for end in sockets} == {"0.0.0.0"}
    missing = [note for note in notes if isinstance(note, FamilyMissing)]
    assert missing == [FamilyMissing("echo", each, "IPv6") for each in ("tcp", "udp")]


def test_nothing_is_bound_where_a_passed_socket_does_not_fit(opens: Callable[[Open], None]) -> None:
    """A socket unit that does not fit is found before anything is bound."""
    opens(lambda *_: pytest.fail("bound"))
    with pytest.raises(ActivationError):
        startup.open_sockets(
            configuration(Settings()), [ActivatedSocket(FakeSocket(listens=False), "x")]
        )  # type: ignore[arg-type]


# --- parts ------------------------------------------------------------------------------------


def test_the_reporter_is_built_as_configured() -> None:
    """Log, level, queue and what happens when it is full are those of the settings."""
    settings = Settings(log=LogSettings(level="debug", queue_records=1, when_full="wait"))
    log_writer = startup.build_log_writer(settings, "stderr", Failures())
    assert (log_writer.level, log_writer.thread.name) == (DEBUG, "log")
    assert not log_writer.congested
    log_writer.put(LogFallback("a", "b", "c"))
    assert log_writer.congested
    log_writer.thread.join()


NEW = ListenerSettings("new", allow=("any",))


def test_a_service_that_cannot_be_had_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at once, each with its listener and what is wrong."""

    def broken(name: str, settings: ListenerSettings, present: base.ServerView) -> Service:
        raise OSError(errno.ENOENT, "No such file or directory", f"/{settings.name}")

    monkeypatch.setattr(startup, "prepare", broken)
    with pytest.raises(ConfigError) as caught:
        startup.prepare_services(Settings(listeners=(ECHO, NEW)), base.ServerView())
    assert caught.value.problems == [
        f"listener {one.name}: service echo: [Errno 2] No such file or directory: '/{one.name}'"
        for one in (ECHO, NEW)
    ]


def test_own_ports_are_those_of_udp() -> None:
    """Whoever bound the socket."""
    found = [
        ListeningSocket(FakeSocket(address=("127.0.0.1", port)), protocol, ECHO, origin)  # type: ignore[arg-type]
        for port, protocol, origin in (
            (7, "udp", "systemd"),
            (8, "tcp", "bound"),
            (9, "udp", "bound"),
        )
    ]
    assert startup.own_udp_ports(found) == {7, 9}


def test_too_few_descriptors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is configured beyond the descriptors is reduced, and reported."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
    places, notes = startup.connection_limit(Settings(), 4)
    assert notes == [ConnectionsLimited(10_000, places, 100)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (65_536, 65_536))
    assert startup.connection_limit(Settings(), 4) == (10_000, [])


def test_a_setting_that_is_not_used_any_more_is_named(tmp_path: Path) -> None:
    """It is a warning with its place, and all else is in force."""
    file = tmp_path / "netsrvd.toml"
    file.write_text("workers = 3\n[listener.echo]\nport = 1234\n")
    configuration = startup.read_configuration(file)
    [note] = startup.ignored_settings(configuration)
    assert note.text().startswith(f"ignored: {file}:1: workers = 3: ")
    assert [each.port for each in configuration.settings.listeners] == [1234]
    file.write_text("[listener.echo]\nport = 1234\n")
    assert startup.ignored_settings(startup.read_configuration(file)) == []


def test_the_configuration_is_read_with_the_validators_of_each_part(tmp_path: Path) -> None:
    """Services, socket options and access words are those that the program has."""
    file = tmp_path / "netsrvd.toml"
    file.write_text('[listener.echo]\nservice = "echo"\nallow = "any"\noptions.SO_KEEPALIVE = true')
    [listener] = startup.read_configuration(file).settings.listeners
    assert listener.options["SO_KEEPALIVE"] is True
