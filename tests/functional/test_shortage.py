"""A start or a reload that gets no thread, no memory or no descriptor."""

import resource
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.clients import refused, serves, talking
from tests.support.peers import echoed
from tests.support.run import LOOPBACK, Run, free_port
from tests.support.strace import injected, injecting


@pytest.fixture
def others(port: int) -> list[int]:
    """Three more ports that are free."""
    found = [free_port(port + 1)]
    for _ in range(2):
        found.append(free_port(found[-1] + 1))
    return found


def listeners(port: int, *more: int) -> dict[str, object]:
    """Return a configuration of one listener and of more."""
    named = {f"more{other}": {"host": LOOPBACK, "port": other} for other in more}
    return {"listener": {"echo": {"host": LOOPBACK, "port": port}, **named}}


def of_tcp(port: int) -> dict[str, object]:
    """Return a configuration of one listener, of TCP alone."""
    return {"listener": {"echo": {"host": LOOPBACK, "port": port, "protocols": "tcp"}}}


def fails(run: Run, configuration: dict[str, object], words: str, fault: str = "") -> None:
    """Check that a reload fails with these words and changes nothing."""
    with talking(run.port) as kept:
        before = run.held()
        with injected(run.pid, fault) if fault else nullcontext():
            status = run.reload(configuration)["STATUS"]
        assert words in run.wait_line("<3>reload failed, the old configuration stays: ")
        assert status.startswith("Reload failed, the old configuration is in force: ")
        assert echoed(kept)
        run.wait(lambda: run.held() == before, "all that was new closed again")
        with talking(run.port) as new:
            assert echoed(new)


@pytest.mark.parametrize(
    ("call", "error", "nth", "words"),
    [
        ("clone3", "EAGAIN", 1, "cannot be started (can't start new thread): raise TasksMax="),
        ("epoll_ctl", "ENOMEM", 1, "raise MemoryMax="),
        ("epoll_ctl", "ENOSPC", 5, "No space left on device"),
        ("socket", "EMFILE", 3, "raise LimitNOFILE="),
    ],
)
def test_a_reload_short_of_something_changes_nothing(
    start: Start,
    port: int,
    others: list[int],
    call: str,
    error: str,
    nth: int,
    words: str,
) -> None:
    """Whatever of the new thread and of the places of the new sockets cannot be had: none of the
    three listeners is there, all that was opened is closed, clients are served, and the next reload
    succeeds.
    """
    run = start(of_tcp(port))
    fails(run, listeners(port, *others), words, f"{call}:error={error}:when={nth}")
    assert all(refused(other) for other in others)
    run.reload(listeners(port, *others))
    run.rest()
    assert all(serves(other) for other in others)


def test_a_reload_without_address_space_changes_nothing(
    start: Start, port: int, others: list[int]
) -> None:
    """A limit on memory that leaves no room for the stack of a thread fails the reload."""
    run = start(of_tcp(port))
    used = run.memory_kb("VmSize") << 10
    resource.prlimit(run.pid, resource.RLIMIT_AS, (used + (4 << 20), resource.RLIM_INFINITY))
    fails(run, listeners(port, *others), "MemoryMax=")
    resource.prlimit(run.pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    run.reload(listeners(port, *others))
    run.rest()
    assert all(serves(other) for other in others)


def test_a_reload_without_descriptors_changes_nothing(
    start: Start, port: int, others: list[int]
) -> None:
    """A limit on descriptors that is lowered below what three listeners need fails the reload."""
    run = start(listeners(port))
    _, hard = resource.prlimit(run.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (len(run.links()) + 6, hard))
    fails(run, listeners(port, *others), "LimitNOFILE=")
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (hard, hard))
    run.reload(listeners(port, *others))
    run.rest()
    assert all(serves(other) for other in others)


PLANTED = """
from netsrvd.config import changes
def plan(*_):
    changes.plan = right
    raise TypeError("a bug")
right, changes.plan = changes.plan, plan
"""


def test_a_reload_that_meets_a_bug_changes_nothing(start: Start, port: int) -> None:
    """An exception of any kind is the reason of a failed reload, with the line that raised it."""
    run = start(listeners(port), planted=PLANTED)
    fails(run, listeners(port), "TypeError('a bug') at <string>:")
    run.reload(listeners(port))
    run.wait_line("configuration reloaded: nothing changed")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        *((f"clone3:error=EAGAIN:when={nth}", "cannot be started") for nth in (1, 2, 3)),
        # The first epoll is that of Python's selectors, which look for it.
        *((f"eventfd2:error=EMFILE:when={nth}", "raise LimitNOFILE=") for nth in (1, 3)),
        ("epoll_create1:error=ENOMEM:when=2", "raise MemoryMax="),
    ],
)
def test_a_start_short_of_something_says_so_in_a_line(
    start: Start, tmp_path: Path, fault: str, words: str
) -> None:
    """Status 71 and one line that names what to raise, without a traceback; READY is not told."""
    run = start(under=injecting(tmp_path, fault), ready=False)
    run.allow("netsrvd: ")
    run.wait_end(71)
    [line] = run.lines_with("netsrvd: ")
    assert words in line
    assert run.notices_with("READY") == []


def test_a_package_with_broken_entry_points_is_named(
    start: Start, tmp_path: Path, port: int
) -> None:
    """A service that is none of ours, beside an installed package whose entry points cannot be
    read: the reload fails and names the package.
    """
    folder = tmp_path / "broken-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[netsrvd.services]\na line without the sign\n")
    run = start(listeners(port), environment={"PYTHONPATH": str(tmp_path)})
    mistyped = {"listener": {"echo": {"host": LOOPBACK, "port": port, "service": "ecko"}}}
    fails(run, mistyped, "the entry points of the installed package broken cannot be read: ")


def test_the_imports_after_a_start_wait_for_descriptors(start: Start, port: int) -> None:
    """A second after the start modules are imported that it did not need: without a descriptor to
    read them nothing ends and no record comes; the daemon tries again until there is one.
    """
    run = start(listeners(port), environment={"WATCHDOG_USEC": "4000000"})  # a tick each second
    with talking(port) as kept:
        assert echoed(kept)
        resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (len(run.links()), 1024))
        run.wait_notice("WATCHDOG", len(run.notices_with("WATCHDOG")) + 3)
        assert echoed(kept)
        resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (1024, 1024))
        run.wait_notice("WATCHDOG", len(run.notices_with("WATCHDOG")) + 2)
        assert serves(port)
    run.wait_line(" closed: client", 2)
    assert [*run.lines_with("<3>"), *run.lines_with("<4>")] == []
