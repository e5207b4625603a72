"""Another user of the host, who has no privilege at all."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


BECOME_NOBODY = """
import os, pwd
# While they can be read: a checkout may lie where nobody may look.
import netsrvd.startup, netsrvd.cli, netsrvd.commands.reload
user = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
"""


def as_nobody(script: str, *arguments: object) -> str:
    """Run a Python script as the user nobody, in the caller's network; return what it printed."""
    if os.geteuid() != 0:
        pytest.fail("becoming another user needs root: run the tests as root")
    done = subprocess.run(
        [sys.executable, "-c", BECOME_NOBODY + textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HOLD_UDP_PORT = """\
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((sys.argv[1], int(sys.argv[2])))
print("bound", flush=True)
time.sleep(60)
"""


TAKE_UDP_PORT = """
    import errno, socket, sys
    host, port = sys.argv[1], int(sys.argv[2])
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            print("bound")
        except OSError as error:
            print(errno.errorcode[error.errno])
"""
"""Binds a UDP port as anybody may whose socket and ours both have SO_REUSEADDR."""

TAKE_TCP_PORT = TAKE_UDP_PORT.replace("SOCK_DGRAM", "SOCK_STREAM").replace(
    "print", "sock.listen(); print", 1
)
"""Listens on a TCP port as anybody may who finds it free."""

FILL_QUEUES = """
    import socket, sys
    pid = sys.argv[1]
    rows = [line.split() for line in open("/proc/net/unix").read().splitlines()[1:]]
    names = {row[-1] for row in rows if "netsrvd" in row[-1]}
    names |= {f"@netsrvd/{pid}", *(f"/proc/{pid}/fd/{number}" for number in range(64))}
    connected = 0
    kinds = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]
    for name, kind in [(name, kind) for name in names for kind in kinds]:
        for _ in range(8):
            sock = socket.socket(socket.AF_UNIX, kind)
            try:
                sock.setblocking(False)
                sock.connect("\\0" + name[1:] if name.startswith("@") else name)
                connected += 1
            except OSError:
                pass
    print(connected)
"""
"""Connects to whatever Unix sockets of the daemon there are, as often as a queue is long."""
