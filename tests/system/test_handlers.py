"""Services of the administrator's own, and connections that systemd accepts, on real machines."""

import pytest

from netsrvd.events.connections import Closed
from tests.support.machine import Machine
from tests.support.patience import eventually

HANDLER = '''\
"""Answers who it is, and what it can see."""

import os


def serve(connection):
    connection.recv()
    connection.send(f"{os.getuid()} {os.listdir('/')}\\n".encode())
'''

DROP_IN = """\
[listener.lab]
service = "python:lab:serve"
protocols = "tcp"
port = 51500
"""

ACCEPTING = """\
[Socket]
ListenStream=51600
Accept=yes
"""

PER_CONNECTION = """\
[Service]
ExecStart=-/usr/bin/netsrvd run --inetd
StandardInput=socket
{more}
DynamicUser=yes
"""


def test_a_handler_serves_in_the_sandbox(quiet: Machine) -> None:
    """A module in /usr/local/lib/netsrvd needs no drop-in, and has the daemon's rights."""
    quiet.run("mkdir", "-p", "/usr/local/lib/netsrvd")
    quiet.run("tee", "/usr/local/lib/netsrvd/lab.py", input=HANDLER)
    quiet.run("tee", "/etc/netsrvd/conf.d/lab.toml", input=DROP_IN)
    try:
        quiet.run("systemctl", "start", "netsrvd.service")
        said = quiet.run("nc", "-N", "127.0.0.1", "51500", input="hello\n").stdout
        uid, _, seen = said.partition(" ")
        assert int(uid) in range(61184, 65520)
        assert "home" not in seen
        assert "usr" in seen
    finally:
        quiet.run("rm", "/etc/netsrvd/conf.d/lab.toml")


@pytest.mark.parametrize("more", ["", "StandardError=journal"])
def test_systemd_accepts_and_netsrvd_serves(installed: Machine, more: str) -> None:
    """A socket unit with Accept=yes: what is sent comes back and nothing else, and the journal has
    both records, whether standard error is the client's or the journal.
    """
    installed.run("tee", "/etc/systemd/system/each.socket", input=ACCEPTING)
    unit = PER_CONNECTION.format(more=more)
    installed.run("tee", "/etc/systemd/system/each@.service", input=unit)
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "start", "each.socket")
    ours = ["--identifier=netsrvd", "NETSRVD_LOCAL_PORT=51600"]
    closed = f"MESSAGE_ID={Closed.MESSAGE_ID}"
    before = len(installed.journal(*ours))
    try:
        for host in ("127.0.0.1", "::1"):
            assert installed.run("nc", "-N", host, "51600", input="hello\n").stdout == "hello\n"
        eventually(lambda: len(installed.journal(*ours)) == before + 4, "both records of both")
        last = installed.journal(*ours, closed)[-1]
        assert (last["NETSRVD_REASON"], last["NETSRVD_BYTES_SENT"]) == ("client", "6")
    finally:
        installed.run("systemctl", "stop", "each.socket")
