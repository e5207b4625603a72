"""Networks of their own for tests: namespaces, links between them, addresses on both ends.

The namespaces have no names (`ip netns` would leave those behind if the test process is killed):
they live as long as a descriptor or a socket of theirs is open.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
_HERE = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)  # os.setns and os.unshare came with Python 3.12


class Namespace:
    """A network of its own; what is made inside `entered` belongs to it for good."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @property
    def path(self) -> str:
        """Where other programs of this host find it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread, and the threads and processes that it starts, live in it."""
        home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _checked(_libc.setns(self._descriptor, CLONE_NEWNET))
            try:
                yield
            finally:
                _checked(_libc.setns(home, CLONE_NEWNET))
        finally:
            os.close(home)

    def ip(self, *commands: str) -> None:
        """Run commands of ip(8), without that word."""
        with self.entered():
            done = subprocess.run(
                ["ip", "-batch", "-"],
                input="\n".join(commands),
                capture_output=True,
                text=True,
                check=False,
            )
        assert done.returncode == 0, f"ip {commands}: {done.stderr}"

    def sysctl(self, name: str, value: object) -> None:
        """Set one of the kernel's variables, such as `net/ipv4/ip_forward`."""
        with self.entered():
            Path("/proc/sys", name).write_text(f"{value}\n", encoding="ascii")


@contextmanager
def namespace() -> Iterator[Namespace]:
    """Make a namespace whose loopback is up; it ends with the block and the last socket in it."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root: run the tests as root")
    if not shutil.which("ip"):
        pytest.fail("network namespaces need ip(8): install iproute2")
    home = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.unshare(CLONE_NEWNET))
        descriptor = os.open(_HERE, os.O_RDONLY | os.O_CLOEXEC)
        _checked(_libc.setns(home, CLONE_NEWNET))
    finally:
        os.close(home)
    try:
        made = Namespace(descriptor)
        for scope in ("all", "default"):
            made.sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
            made.sysctl(f"net/ipv6/conf/{scope}/accept_dad", 0)
        made.ip("link set lo up")
        yield made
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module", autouse=True)
def own_network() -> Iterator[None]:
    """Have the tests of a module run in a network of their own, where no other run of tests and no
    program of the host has a port or a name. (A user who may not make one has that of the host.)
    """
    if os.geteuid() != 0:
        yield
        return
    with namespace() as network, network.entered():
        yield


def link(one: Namespace, name: str, other: Namespace, other_name: str) -> None:
    """Join two namespaces with a pair of interfaces, which are up and have no addresses."""
    one.ip(f"link add {name} type veth peer name {other_name} netns {other.path}")
    for space, interface in ((one, name), (other, other_name)):
        space.ip(f"link set {interface} addrgenmode none", f"link set {interface} up")


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        pytest.fail(f"a network namespace cannot be had: {os.strerror(number)}; run as root")
