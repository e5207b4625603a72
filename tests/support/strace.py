"""System calls of a program that fail as they are told to, by strace(1)."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.patience import eventually


def injecting(folder: Path, fault: str) -> list[str]:
    """Return the command line that runs another, in the same process, with a fault in its calls.

    The fault is written `CALL:error=ERRNO:when=FIRST`; each thread counts for itself.
    """
    call = fault.partition(":")[0]
    # The tracer is a process apart, so that the program is the process that was started.
    quiet = ["-DD", "-f", "-qq", "--seccomp-bpf", f"--output={folder / 'trace'}"]
    return ["strace", *quiet, f"--trace={call}", f"--inject={fault}"]


@contextmanager
def injected(pid: int, fault: str, sock: socket.socket | None = None) -> Iterator[None]:
    """Have calls of a running process fail meanwhile: those of all its threads.

    With a socket of ours only the calls for the other end of its connection, in that process.
    """
    only = [f"--trace-path={_other_end(pid, sock)}"] if sock else []
    call = fault.partition(":")[0]
    command = ["strace", "-f", f"--attach={pid}", *only, f"--trace={call}", f"--inject={fault}"]
    with subprocess.Popen(
        [*command, f"--output={os.devnull}"], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr
        line = tracer.stderr.readline()
        assert "attached" in line, line
        try:
            yield
        finally:
            tracer.terminate()


def _other_end(pid: int, sock: socket.socket) -> str:
    """Return the name, in /proc/PID/fd, of the other end of a TCP connection over IPv4.

    Its inode is 0 until the process has accepted it.
    """
    ends = [_as_in_proc(sock.getpeername()), _as_in_proc(sock.getsockname())]

    def inode() -> int:
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()
        return sum(int(fields[9]) for fields in map(str.split, lines) if fields[1:3] == ends)

    return f"socket:[{eventually(inode, f'no connection from {sock.getsockname()}')}]"


def _as_in_proc(address: tuple[str, int]) -> str:
    host, port = address
    return f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"
