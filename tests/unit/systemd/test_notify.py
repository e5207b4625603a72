"""netsrvd.systemd.notify"""

import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netsrvd.systemd import notify
from netsrvd.systemd.notify import Notifier
from tests.support.patience import SECONDS

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
        (lambda notifier: notifier.feed_watchdog(), ["WATCHDOG=1"]),
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
    assert heard() == ["STATUS=\\udcff.toml: wrong"]


@pytest.mark.usefixtures("_nobody")
def test_without_systemd_nothing_is_told() -> None:
    """Where nobody listens everything is silent, and there is no watchdog."""
    notifier = Notifier()
    notifier.ready("fine")
    notifier.feed_watchdog()
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
        notifier.feed_watchdog()
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


# --- the descriptor store ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "room"),
    [
        ({}, 0),
        ({"FDSTORE": "16384"}, 16384),
        ({"NETSRVD_FDSTORE": "7"}, 7),
        ({"FDSTORE": "16384", "NETSRVD_FDSTORE": "7"}, 16384),
        ({"FDSTORE": "", "NETSRVD_FDSTORE": "7"}, 7),
        ({"FDSTORE": "0", "NETSRVD_FDSTORE": "7"}, 0),
        ({"FDSTORE": "-1"}, 0),
        ({"NETSRVD_FDSTORE": "many"}, 0),
        ({"NETSRVD_FDSTORE": "9" * 5000}, 0),
    ],
)
def test_the_room_of_the_store_is_what_systemd_says(
    monkeypatch: pytest.MonkeyPatch, notifier: Notifier, variables: dict[str, str], room: int
) -> None:
    """Before systemd 254 the unit has to say it; what is no number is no room."""
    for name in ("FDSTORE", "NETSRVD_FDSTORE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert notifier.store_room == room


@pytest.mark.usefixtures("_nobody")
def test_without_systemd_there_is_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables may be inherited; what is put nowhere is an error, what is taken out is not."""
    monkeypatch.setenv("FDSTORE", "16384")
    notifier = Notifier()
    assert notifier.store_room == 0
    with pytest.raises(OSError, match="no service manager"):
        notifier.fdstore("one", [0])
    with pytest.raises(OSError, match="no service manager"):
        notifier.barrier()
    notifier.fdstore_remove("one")
    notifier.close()


class Store:
    """The far end of NOTIFY_SOCKET, which keeps what it is given."""

    def __init__(self, sock: socket.socket) -> None:
        self.kept: list[int] = []
        self._sock = sock
        self.lines: list[list[str]] = []

    def take(self) -> list[int]:
        """Take one message; return the descriptors that came with it."""
        data, descriptors, flags, _ = socket.recv_fds(self._sock, 65536, 253)
        assert not flags & socket.MSG_CTRUNC
        self.lines.append(data.decode().split("\n"))
        self.kept += descriptors
        return descriptors


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(SECONDS)
        sock.bind(str(tmp_path / "store"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "store"))
        made = Store(sock)
        yield made
        for descriptor in made.kept:
            os.close(descriptor)


@pytest.fixture
def storing(store: Store) -> Iterator[Notifier]:
    """Return what talks to the store."""
    made = Notifier()
    yield made
    made.close()


@pytest.mark.parametrize("count", [0, 1, 250, 251, 600])
def test_descriptors_are_stored_by_the_250(store: Store, storing: Notifier, count: int) -> None:
    """Each arrives, in order, under its name, and stays when its other end is closed."""
    with tempfile.TemporaryFile() as file:
        numbers = [os.dup(file.fileno()) for _ in range(count)]
        for place, number in enumerate(numbers):
            os.close(number)
            assert os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDWR) == number
            os.lseek(number, place, os.SEEK_SET)
        storing.fdstore("handover/connection", numbers)
        for number in numbers:
            os.close(number)
    sizes = []
    while len(store.kept) < count:
        sizes.append(len(store.take()))
    assert sizes == [250] * (count // 250) + [count % 250] * bool(count % 250)
    assert [os.lseek(each, 0, os.SEEK_CUR) for each in store.kept] == [*range(count)]
    fields = ["FDSTORE=1", "FDNAME=handover/connection", "FDPOLL=0"]
    assert store.lines == [fields] * len(sizes)


def test_a_store_that_is_gone_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who gives a connection away must know whether anybody has taken it."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notifier = Notifier()
    with pytest.raises(OSError, match="not connected"):
        notifier.fdstore("one", [0])
    notifier.close()


def test_a_store_that_does_not_read_is_an_error(
    storing: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that finds no room waits for so long and no longer."""
    assert storing._socket is not None
    storing._socket.settimeout(0.01)
    with pytest.raises(TimeoutError):
        storing.fdstore("one", [0] * 250 * 10_000)


def test_what_is_stored_is_forgotten_by_its_name(heard: Heard, notifier: Notifier) -> None:
    """All of a name at once, as FDSTOREREMOVE=1 does it."""
    notifier.fdstore_remove("handover/state")
    assert heard() == ["FDSTOREREMOVE=1", "FDNAME=handover/state"]


def test_it_settles_when_systemd_has_closed_its_end(store: Store, storing: Notifier) -> None:
    """The barrier is reached when who got the pipe closes it, and not before."""
    settled: list[bool] = []
    waiting = threading.Thread(target=lambda: settled.append(storing.barrier() is None))
    waiting.start()
    [end] = store.take()
    assert store.lines == [["BARRIER=1"]]
    assert waiting.is_alive()
    assert settled == []
    store.kept.remove(end)
    os.close(end)
    waiting.join(SECONDS)
    assert settled == [True]


def test_it_does_not_settle_for_ever(
    store: Store, storing: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A systemd that does not close it is an error, and no descriptor is left behind."""
    monkeypatch.setattr(notify, "BARRIER_SECONDS", 0.01)
    before = {*Path("/proc/self/fd").iterdir()}
    with pytest.raises(TimeoutError, match="systemd does not answer"):
        storing.barrier()
    assert {*Path("/proc/self/fd").iterdir()} == before
