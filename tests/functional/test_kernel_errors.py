"""What the daemon makes of system calls that fail, by the errors that their manual pages name."""

import errno
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.clients import HELLO, answer, ended, serves, talking
from tests.support.peers import connect, datagrams, echoed
from tests.support.run import LOOPBACK, Run, echo
from tests.support.strace import injected, injecting

HOST = "127.0.0.1"

Faulty = Callable[..., Run]


@pytest.fixture
def faulty(start: Start, port: int, tmp_path: Path) -> Faulty:
    """Start a run in which the first such call of each thread, or the `nth`, fails so."""

    def started(call: str, error: str, nth: int = 1, **how: object) -> Run:
        fault = f"{call}:error={error}:when={nth}"
        return start(echo(port, host=[HOST]), under=injecting(tmp_path, fault), **how)

    return started


def _named(error: str) -> str:
    """Return the name that Python has for an error that has two, such as EOPNOTSUPP."""
    return errno.errorcode[getattr(errno, error)]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        *((call, "EINTR") for call in ("accept4", "epoll_wait", "recvmmsg")),
        *((call, "EAGAIN") for call in ("accept4", "recvmmsg")),
        ("epoll_wait", "ENOMEM"),  # select(2) names it
    ],
)
def test_a_call_that_is_to_be_made_again_is(faulty: Faulty, call: str, error: str) -> None:
    """An interrupted call, or one that came too early, is no news: the client sees nothing."""
    run = faulty(call, error, nth=2)
    assert serves(run.port, [HOST])
    run.end()
    assert run.lines_with("<4>") == []


@pytest.mark.parametrize("call", ["read", "write"])
@pytest.mark.parametrize("error", ["EINTR", "EAGAIN"])
def test_a_call_for_a_connection_is_made_again(
    start: Start, port: int, call: str, error: str
) -> None:
    """So the client gets its answer."""
    run = start(echo(port, host=[HOST]))
    with talking(port) as sock:
        with injected(run.pid, f"{call}:error={error}:when=1..3", sock):
            assert all(echoed(sock) for _ in range(4))
        assert echoed(sock)
    run.end()
    assert run.lines_with("<4>") == []


@pytest.mark.parametrize(
    "error",
    [
        # The connection was lost while it waited (accept(2): pending network errors).
        *("ECONNABORTED", "EPERM", "EPROTO", "ENOPROTOOPT", "ENETDOWN", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "ETIMEDOUT", "ECONNRESET"),
        *("ENOSR", "ESOCKTNOSUPPORT", "EPROTONOSUPPORT"),
        # What no manual page names: a filter, a tunnel, ss -K.
        *("EIO", "EACCES", "EREMOTEIO", "EKEYREJECTED", "EPIPE"),
        # Something is short.
        *("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"),
    ],
)
def test_accept_goes_on(faulty: Faulty, error: str) -> None:
    """After an error of one connection, or while something is short, clients are served."""
    run = faulty("accept4", error)
    assert serves(run.port, [HOST])
    run.end()
    [line] = run.lines_with("<4>")
    assert line.startswith(f"<4>echo: accept on {HOST}:{run.port}: {_named(error)}: ")


READ_ERRORS = (
    *("ENOMEM", "ETIMEDOUT", "ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH"),  # tcp(7)
    *("EBADF", "EFAULT", "EINVAL", "ENOTSOCK"),
)
WRITE_ERRORS = (
    *("ENOBUFS", "ENOMEM", "EPERM", "EACCES", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"),
    *("EBADF", "EDESTADDRREQ", "EFAULT", "EINVAL", "EISCONN", "EMSGSIZE"),
    *("ENOTSOCK", "EOPNOTSUPP"),
)


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        *(("read", each, "reset") for each in ("ECONNRESET", "ENOTCONN")),
        *(("read", each, "network") for each in READ_ERRORS),
        *(("write", each, "reset") for each in ("EPIPE", "ECONNRESET", "ENOTCONN")),
        *(("write", each, "network") for each in WRITE_ERRORS),
    ],
)
def test_an_error_of_a_connection_ends_it_alone(
    start: Start, port: int, call: str, error: str, reason: str
) -> None:
    """Its record tells the reason; the others are served."""
    run = start(echo(port, host=[HOST]))
    with talking(port) as kept:
        with talking(port) as sock, injected(run.pid, f"{call}:error={error}", sock):
            assert _ends(sock)
        run.wait_line(f"closed: {reason}")
        assert echoed(kept)
    assert serves(port, [HOST])


@pytest.mark.parametrize("error", ["ENOMEM", "ENOSPC", "EPERM", "ELOOP"])
def test_a_connection_that_epoll_does_not_take_ends_alone(
    start: Start, port: int, error: str
) -> None:
    """Its record tells the reason; the others are served."""
    run = start(echo(port, host=[HOST]))
    with talking(port) as kept:
        with injected(run.pid, f"epoll_ctl:error={error}"), connect((HOST, port)) as sock:
            assert _ends(sock)
        run.wait_line("closed: network")
        assert echoed(kept)
    assert serves(port, [HOST])


def _ends(sock: socket.socket) -> bool:
    """Return whether the server closes before it has answered twice."""
    with suppress(ConnectionError):
        for _ in range(2):
            sock.sendall(HELLO)
            if not sock.recv(len(HELLO)):
                return True
        return False
    return True


@pytest.mark.parametrize(
    "error",
    [
        # What an answer to somebody met on its way (udp(7), icmp(7)).
        *("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENOPROTOOPT", "EOPNOTSUPP"),
        *("EHOSTDOWN", "ENONET", "EPROTO", "EACCES", "EMSGSIZE"),
        # Something is short, or down.
        *("ENOMEM", "ENOBUFS", "ENETDOWN", "EPERM"),
        # What no manual page names.
        *("ECONNABORTED", "ECONNRESET", "ENOTCONN", "ETIMEDOUT", "EPIPE", "EIO", "EKEYREJECTED"),
    ],
)
def test_receiving_datagrams_goes_on(faulty: Faulty, error: str) -> None:
    """Whatever an earlier answer met, or what is short, the datagram that waits is answered."""
    run = faulty("recvmmsg", error)
    assert serves(run.port, [HOST])
    run.end()
    [line] = run.lines_with("<4>")
    assert line.startswith(f"<4>echo: receiving on {HOST}:{run.port}: {_named(error)}: ")


@pytest.mark.parametrize(
    "error",
    [
        *("EAGAIN", "EINTR", "ENOBUFS", "ENOMEM", "EPERM", "EACCES"),
        *("ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "EMSGSIZE", "EINVAL"),
        *("EALREADY", "EBADF", "ECONNRESET", "EDESTADDRREQ", "EFAULT", "EISCONN", "ENOTCONN"),
        *("ENOTSOCK", "EOPNOTSUPP", "EPIPE"),
    ],
)
def test_an_answer_that_cannot_be_sent_is_counted(faulty: Faulty, error: str) -> None:
    """It concerns one datagram: the next one of the same peer is answered, the summary says why."""
    run = faulty("sendmmsg", error)
    with datagrams(HOST) as sender:
        sender.connect((HOST, run.port))
        sender.send(b"lost")
        sender.send(HELLO)
        assert sender.recv(100) == HELLO
    assert serves(run.port, [HOST])
    run.end()
    assert run.lines_with(
        f"2 in, 1 out, 0 refused, 0 truncated, 1 unsent, last error: {_named(error)}"
    )


@pytest.mark.parametrize(
    ("call", "error", "thread"),
    [
        *(("accept4", each, "tcp") for each in ("EBADF", "EFAULT", "EINVAL", "ENOTSOCK")),
        *(("recvmmsg", each, "udp") for each in ("EBADF", "EFAULT", "EINVAL", "ENOTSOCK")),
        *(("epoll_wait", each, "tcp") for each in ("EBADF", "EFAULT", "EINVAL")),
    ],
)
def test_an_error_of_our_own_ends_the_process(
    faulty: Faulty, call: str, error: str, thread: str
) -> None:
    """What only a bug can cause is no reason to go on half dead: status 70, and a record."""
    run = faulty(call, error, ready=False, environment={"PYTHONWARNINGS": ""})
    run.wait(lambda: run.notices or run.process.poll() is not None, "beginning")
    with datagrams(HOST) as sender:
        sender.sendto(HELLO, (HOST, run.port))
    with suppress(OSError), connect((HOST, run.port)) as sock:
        _ends(sock)
    run.allow("thread ", "Traceback ", "  ", "OSError: ")
    run.wait_end(70)
    assert run.lines_with(f"<3>thread {thread}")


def aborted(*selected: str) -> None:
    """Abort the sockets of this network that `ss` selects, as an administrator may (ss(8))."""
    subprocess.run(["ss", "--kill", *selected], check=True, capture_output=True)


@pytest.mark.usefixtures("alone")
def test_ss_cannot_end_the_daemon(start: Start, port: int) -> None:
    """`ss -K` on its UDP sockets and connections ends those connections alone: datagrams are
    answered as before, and so are new clients.
    """
    run = start(echo(port))
    with talking(port) as kept, talking(port, "::1") as killed:
        aborted("--all", "--udp", f"sport = :{port}")
        assert all(answer(port, host=host) == HELLO for host in LOOPBACK)
        assert echoed(kept)
        aborted("--tcp", f"sport = :{port}", f"dport = :{killed.getsockname()[1]}")
        assert ended(killed)
        assert echoed(kept)
        assert serves(port)
    run.end()
    assert run.lines_with("receiving on ") != []


@pytest.mark.usefixtures("alone")
def test_ss_cannot_end_a_handler_or_a_lobby(start: Start, port: int, tmp_path: Path) -> None:
    """Connections of handlers and those that wait for the header of a proxy end by it alone."""
    (tmp_path / "aborted_handler.py").write_text(ECHOES)
    configuration = {
        "listener": {
            "handled": {
                "port": port,
                "protocols": ["tcp"],
                "service": "python:aborted_handler:serve",
            },
            "proxied": {"port": port + 1, "protocols": ["tcp"], "proxies": ["127.0.0.1"]},
        }
    }
    run = start(configuration, environment={"PYTHONPATH": str(tmp_path)})
    with talking(port) as handled, connect((HOST, port + 1)) as waiting:
        aborted("--tcp", f"( sport = :{port} or sport = :{port + 1} )")
        assert ended(handled)
        assert ended(waiting)
        with talking(port) as again:
            assert echoed(again)
    run.wait_line("closed: ", 2)
    run.rest()


ECHOES = """
def serve(conversation):
    while data := conversation.recv():
        conversation.send(data)
"""
