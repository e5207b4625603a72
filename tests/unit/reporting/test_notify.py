"""netsrvd.reporting.notify"""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netsrvd.reporting.notify import Notifier

Heard = Callable[[], list[str]]


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """Stand in for systemd; the result returns the lines of the last message."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield lambda: sock.recv(65536).decode().split("\n")


@pytest.fixture
def notifier(heard: Heard) -> Iterator[Notifier]:
    """Return what talks to it."""
    made = Notifier()
    yield made
    made.close()


@pytest.fixture
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)


@pytest.mark.parametrize(
    ("tell", "lines"),
    [
        (lambda notifier: notifier.ready("fine"), ["READY=1", "STATUS=fine"]),
        (
            lambda notifier: notifier.stopping("on SIGTERM", 1.5),
            ["STOPPING=1", "STATUS=on SIGTERM", "EXTEND_TIMEOUT_USEC=1500000"],
        ),
        (lambda notifier: notifier.status("busy"), ["STATUS=busy"]),
        (lambda notifier: notifier.alive(), ["WATCHDOG=1"]),
    ],
)
def test_systemd_is_told(
    heard: Heard, notifier: Notifier, tell: Callable[[Notifier], None], lines: list[str]
) -> None:
    """Readiness, stop, status and progress are told in the words of sd_notify(3)."""
    tell(notifier)
    assert heard() == lines


def test_a_reload_carries_its_time(heard: Heard, notifier: Notifier) -> None:
    """systemd matches a reload with the time of its request, on the monotonic clock."""
    notifier.reloading()
    reloading, began, status = heard()
    assert (reloading, status) == ("RELOADING=1", "STATUS=Reloading")
    assert int(began.removeprefix("MONOTONIC_USEC=")) > 0


def test_the_same_status_is_told_once(heard: Heard, notifier: Notifier) -> None:
    """systemd hears of a status when it is a new one."""
    for status in ("one", "one", "two"):
        notifier.status(status)
    assert (heard(), heard()) == (["STATUS=one"], ["STATUS=two"])
    with pytest.raises(BlockingIOError):
        heard()


@pytest.mark.parametrize("tell", [Notifier.ready, Notifier.status])
def test_a_status_is_one_line(
    heard: Heard, notifier: Notifier, tell: Callable[[Notifier, str], None]
) -> None:
    """Errors of several lines cannot say anything else to systemd, such as WATCHDOG=trigger."""
    tell(notifier, "a.toml: wrong\nWATCHDOG=trigger")
    assert heard()[-1] == "STATUS=a.toml: wrong; WATCHDOG=trigger"


def test_a_status_can_name_any_file(heard: Heard, notifier: Notifier) -> None:
    """The name of a file need not be UTF-8, and a message about it must not end the daemon."""
    notifier.status("\udcff.toml: wrong")
    assert heard() == ["STATUS=?.toml: wrong"]


@pytest.mark.usefixtures("_nobody")
def test_without_systemd_nothing_is_told() -> None:
    """Where nobody listens everything is silent, and there is no watchdog."""
    notifier = Notifier()
    notifier.ready("fine")
    notifier.alive()
    notifier.close()
    assert notifier.watchdog_seconds == 0.0


def test_a_systemd_that_is_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The variable may be inherited from whoever listened there once."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notifier = Notifier()
    notifier.ready("fine")
    notifier.close()


def test_the_socket_may_have_an_abstract_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that begins with @ is one of the abstract namespace (unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind("")  # the kernel chooses one
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + sock.getsockname()[1:].decode())
        notifier = Notifier()
        notifier.alive()
        notifier.close()
        assert sock.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({"WATCHDOG_USEC": "9" * 400}, 0.0),
        ({"WATCHDOG_USEC": "9" * 5000}, 0.0),
    ],
)
def test_the_watchdog_is_for_this_process(
    monkeypatch: pytest.MonkeyPatch,
    notifier: Notifier,
    variables: dict[str, str],
    seconds: float,
) -> None:
    """The watchdog's time is that of systemd, if it is meant for this very process."""
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert notifier.watchdog_seconds == seconds
