"""The installed command, in a process of its own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.detached import Syslog
from tests.support.namespaces import namespace, own_network  # noqa: F401 - for all modules
from tests.support.run import Run, echo, free_port

Start = Callable[..., Run]


@pytest.fixture
def port() -> int:
    """A port that is free."""
    return free_port()


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[Start]:
    """Start `netsrvd run -c FILE`, by default for echo on loopback, and wait until it serves.

    When the test is over each run is looked at and ended, see `Run`.
    """
    with ExitStack() as runs:

        def started(
            configuration: Mapping[str, object] | str | None = None,
            *arguments: str,
            ready: bool = True,
            **how: Any,
        ) -> Run:
            folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            config = folder / "netsrvd.toml"
            run = Run("-c", config, *arguments, **how)
            run.port, run.config = port, config
            run.configure(echo(port) if configuration is None else configuration)
            runs.enter_context(run)
            if ready:
                run.wait_ready()
            return run

        yield started


@pytest.fixture
def alone() -> Iterator[None]:
    """Put the test and all that it starts into a network of its own."""
    with namespace() as network, network.entered():
        yield


@pytest.fixture
def syslog(tmp_path: Path) -> Iterator[Syslog]:
    """The host's syslog, as far as the programs can see."""
    syslog = Syslog(tmp_path)
    yield syslog
    syslog.go()
