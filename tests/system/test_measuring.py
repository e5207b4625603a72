"""Reflectors on a real Debian: the examples of the package, `netsrvd apply`, and their peers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from netsrvd.packets import stamp, udpechoplus
from tests.support.installed import SERVICE, is_active, main_pid
from tests.support.machine import Machine

SUPPORT = Path(__file__).parents[1] / "support"
DATA = Path(__file__).parents[1] / "data/stamp-vectors.txt"
VECTORS = {
    name: bytes.fromhex(text)
    for name, text in re.findall(r"^(V\d+) .*\n  (\S+)$", DATA.read_text(), re.MULTILINE)
}
CLIENT = "/srv/stamp_client.py"
EXAMPLES = "/usr/share/doc/netsrvd/examples"
CONFIG = "/etc/netsrvd/conf.d/reflectors.toml"
FOLDER = "/etc/systemd/system/netsrvd.service.d"
DROP_IN = Path(__file__).parents[2] / "packaging/examples/stamp-key.conf"

USE_KEY = re.findall(r"^#   (.*)$", DROP_IN.read_text(), re.MULTILINE)
"""What the drop-in of the package says that one should do: make a key, copy it, apply."""
KEY_FILE = "/etc/netsrvd/stamp.key"
UNDO = f"""
rm -rf {CONFIG} {FOLDER} /etc/netsrvd/stamp.key
systemctl daemon-reload
netsrvd apply
systemctl stop netsrvd.service
"""


class Answer(NamedTuple):
    """A reply, and the times between which it was under way."""

    data: bytes
    ttl: int
    sent_ns: int
    here_ns: int


@pytest.fixture
def reflecting(installed: Machine) -> Iterator[Machine]:
    """Give a machine that uses the example; undo it later."""
    installed.copy_in(SUPPORT / "stamp_client.py")
    installed.run("cp", f"{EXAMPLES}/reflectors.toml", CONFIG)
    installed.run("netsrvd", "apply")
    yield installed
    installed.run("sh", "-ec", UNDO)


def ask(machine: Machine, host: str, port: int, *requests: bytes) -> list[Answer]:
    """Return the reply to each request."""
    texts = [request.hex() for request in requests]
    said = machine.run("python3", CLIENT, host, str(port), *texts).stdout
    found = [json.loads(line) for line in said.splitlines()]
    return [Answer(**{**each, "data": bytes.fromhex(each["data"])}) for each in found]


def use_key(machine: Machine) -> None:
    """Type the commands of the drop-in."""
    for command in USE_KEY:
        machine.run("bash", "-ec", command)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_first_packet_has_its_time(reflecting: Machine, host: str) -> None:
    """It starts the daemon, which needs many milliseconds; T2 is when it came all the same."""
    reflecting.run("systemctl", "stop", SERVICE)
    assert not is_active(reflecting, SERVICE)
    [first, short] = ask(reflecting, host, 862, VECTORS["V1"], VECTORS["V13"])
    reply = stamp.read_reply(first.data)
    assert first.ttl == 255
    assert (reply.sequence, reply.sender_ttl) == (7, 64)
    assert stamp.error_ns(reply.error_estimate) < 2e9
    t2, t3 = (
        stamp.time_of(each, reply.error_estimate, first.here_ns)
        for each in (reply.received, reply.timestamp)
    )
    assert first.sent_ns <= t2 <= t3 <= first.here_ns
    # Between them the service has started, which takes longer than this on any machine.
    assert t3 - t2 > 10_000_000
    assert len(short.data) == 44
    assert main_pid(reflecting)


def test_udpechoplus_is_answered(reflecting: Machine) -> None:
    """With the numbers and times of the server, and the data."""
    requests = [udpechoplus.make_request(count, 1, b"data") for count in (1, 2)]
    answers = ask(reflecting, "127.0.0.1", 51425, *requests)
    found = [udpechoplus.read(each.data) for each in answers]
    assert [each and each.response_sequence for each in found] == [1, 2]
    assert [each.data[24:] for each in answers] == [b"data", b"data"]


def test_a_key_is_a_credential(reflecting: Machine) -> None:
    """The drop-in of the package passes it into the sandbox, where the file cannot be read; without
    it `netsrvd check` and `netsrvd apply` say what is missing.
    """
    reflecting.run("sed", "-i", "s/^#stamp_key/stamp_key/", CONFIG)
    for command in ("check", "apply"):
        failed = reflecting.run("netsrvd", command, check=False)
        assert failed.returncode != 0
        assert "listener.stamp.stamp_key" in failed.stderr
        assert "add LoadCredential=stamp:PATH" in failed.stderr
    use_key(reflecting)
    reflecting.run("netsrvd", "check")
    key = bytes.fromhex(reflecting.run("cat", KEY_FILE).stdout.removeprefix("hex:"))
    assert len(key) == 32
    [answer] = ask(reflecting, "127.0.0.1", 862, stamp.make_request(7, bytes(8), 1, key=key))
    assert stamp.read_reply(answer.data, key).sender_sequence == 7
    mode = reflecting.run("stat", "-c", "%a %U", KEY_FILE).stdout
    assert mode == "600 root\n"


def test_a_missing_key_file_is_said(reflecting: Machine) -> None:
    """The start fails, as a service that were open instead would be worse."""
    reflecting.run("sed", "-i", "s/^#stamp_key/stamp_key/", CONFIG)
    use_key(reflecting)
    reflecting.run("rm", KEY_FILE)
    assert reflecting.run("systemctl", "restart", SERVICE, check=False).returncode != 0
    use_key(reflecting)
    assert main_pid(reflecting)
