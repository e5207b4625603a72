"""netsrvd.reload_socket"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netsrvd import reload_socket as module
from netsrvd.reload_socket import (
    LONGEST_ANSWER,
    MOST_WAITING,
    Outside,
    ReloadSocket,
    answer,
    identity,
    look_outside,
    path,
    told_outside,
)
from tests.support.patience import SECONDS


@pytest.fixture
def reload_socket() -> Iterator[ReloadSocket]:
    made = ReloadSocket()
    yield made
    made.close()


def ask(stack: ExitStack, seconds: float = SECONDS) -> socket.socket:
    """Return the connection of somebody who asks this process."""
    sock = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    sock.settimeout(seconds)
    sock.connect(path(os.getpid()))
    return sock


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


@pytest.mark.parametrize(
    ("problem", "heard"),
    [
        ("", b"\n"),
        ("a.toml: one\na.toml: two", b"\na.toml: one\na.toml: two"),
        ("größe", "\ngröße".encode()),
        ("\udcff.toml: wrong", b"\n?.toml: wrong"),
    ],
)
def test_all_who_have_asked_hear_how_it_went(
    reload_socket: ReloadSocket, stack: ExitStack, problem: str, heard: bytes
) -> None:
    """Each has the whole answer in one message, and then the end; later ones wait for another."""
    clients = [ask(stack) for _ in range(3)]
    waiting = reload_socket.waiting()
    late = ask(stack)
    answer(waiting, problem)
    for client in clients:
        assert client.recv(1 << 20) == heard
        assert client.recv(1) == b""
    late.setblocking(False)
    with pytest.raises(BlockingIOError):
        late.recv(1)
    answer(reload_socket.waiting(), "")
    assert late.recv(100) == b"\n"


def test_others_hear_nothing(
    reload_socket: ReloadSocket, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only root and the daemon's own user have an answer, which may tell of the configuration."""
    users = [4000, 3000, 0]
    monkeypatch.setattr(module, "credentials", lambda _: (1, users.pop(0)))
    monkeypatch.setattr(os, "geteuid", lambda: 3000)
    clients = [ask(stack) for _ in range(3)]
    answer(reload_socket.waiting(), "secret")
    heard = [client.recv(100) for client in clients]
    assert heard == [b"", b"\nsecret", b"\nsecret"]


def test_the_kernel_says_who_asks(reload_socket: ReloadSocket, stack: ExitStack) -> None:
    """It is this process, of this user."""
    ask(stack)
    [sock] = reload_socket.waiting()
    with sock:
        assert module.credentials(sock) == (os.getpid(), os.geteuid())


def test_nobody_may_have_asked(reload_socket: ReloadSocket) -> None:
    """Who reloads by a signal alone waits for no answer."""
    assert reload_socket.waiting() == []
    answer([], "")


def test_so_many_wait_and_no_more(reload_socket: ReloadSocket, stack: ExitStack) -> None:
    """Each is a descriptor; one more comes when the others have been taken."""
    for _ in range(MOST_WAITING):
        ask(stack, 0.0)
    with pytest.raises(BlockingIOError):
        ask(stack, 0.0)
    waiting = reload_socket.waiting()
    assert len(waiting) == MOST_WAITING
    late = ask(stack, 0.0)
    answer(waiting, "")
    answer(reload_socket.waiting(), "later")
    assert late.recv(100) == b"\nlater"


def test_a_long_answer_is_cut(reload_socket: ReloadSocket, stack: ExitStack) -> None:
    """The log has the rest."""
    client = ask(stack)
    answer(reload_socket.waiting(), "x" * (LONGEST_ANSWER + 1))
    assert client.recv(1 << 20) == b"\n" + b"x" * LONGEST_ANSWER


def test_who_has_gone_is_no_error(reload_socket: ReloadSocket, stack: ExitStack) -> None:
    """The others have their answer all the same."""
    ask(stack).close()
    client = ask(stack)
    answer(reload_socket.waiting(), "")
    assert client.recv(100) == b"\n"


def test_no_directory_may_be_there(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written anywhere: then reloads work, and no caller hears of them."""
    monkeypatch.setattr(module, "DIRECTORIES", ("/nonexistent",))
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    reload_socket = ReloadSocket()
    with pytest.raises(FileNotFoundError):
        ask(stack)
    assert reload_socket.waiting() == []
    reload_socket.close()


def test_who_asks_a_daemon_that_ends_is_not_kept_waiting(stack: ExitStack) -> None:
    """The end of the daemon is the end of the connection, and the next one is refused."""
    reload_socket = ReloadSocket()
    client = ask(stack)
    reload_socket.close()
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    with pytest.raises(FileNotFoundError):
        ask(stack)


@pytest.mark.parametrize("directory", ["/etc", "/no/such", "/a b\n", "/\udcff"])
def test_what_the_caller_sees_arrives_as_it_is(
    reload_socket: ReloadSocket, stack: ExitStack, directory: str
) -> None:
    """The directory's name, device and inode are the same on both sides, whatever the name is."""
    ask(stack).send(look_outside(directory).message())
    [asker] = reload_socket.waiting()
    outside = told_outside(asker)
    assert outside == look_outside(directory)
    assert outside is not None
    assert outside.configuration == identity(directory)
    assert (outside.configuration == "") == (directory != "/etc")
    answer([asker], "")


@pytest.mark.parametrize("message", [None, b"x", b"\0" * 20, b"\0" * 40_000])
def test_a_caller_that_says_nothing_of_use_sees_nothing(
    reload_socket: ReloadSocket, stack: ExitStack, message: bytes | None
) -> None:
    """An older command sends nothing; nobody waits for it, and no message is a fault."""
    caller = ask(stack)
    if message:
        caller.send(message)
    [asker] = reload_socket.waiting()
    assert told_outside(asker) is None
    answer([asker], "")


def test_a_replaced_directory_has_another_identity(tmp_path: Path) -> None:
    """A copy under the same name is another directory."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    before = identity(str(tmp_path / "one"))
    (tmp_path / "one").rename(tmp_path / "old")
    (tmp_path / "two").rename(tmp_path / "one")
    assert Outside("", "", before, "") != Outside("", "", identity(str(tmp_path / "one")), "")
