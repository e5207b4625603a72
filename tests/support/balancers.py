"""Real load balancers of Debian, in processes of their own, with configurations of the tests."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.patience import SECONDS

FORWARD = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen echo
    bind 127.0.0.1:{front}
    unique-id-format ABC%rt
    server one 127.0.0.1:{back} {options}
"""
"""HAProxy in front of one server."""

SERVERS = Path(__file__).parents[2] / "build/servers"
"""Where packaging/make-test-tools unpacks servers: none of them is to be a service of the host."""

NGINX_MODULE = SERVERS / "usr/lib/nginx/modules/ngx_stream_module.so"


def server(name: str) -> str:
    """Return the program of a server."""
    folders = (SERVERS / "usr/sbin", SERVERS / "usr/bin")
    program = shutil.which(name, path=os.pathsep.join(map(str, folders)))
    assert program, f"{name} is missing; run packaging/make-test-tools .venv build/servers"
    return program


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force if it does not end in time."""
    process.terminate()
    try:
        process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def balancer(folder: Path, argv: list[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a balancer that stays in the foreground; it ends with the block.

    What it says goes to a file in `folder`, which a failure shows.
    """
    said = folder / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield process
        assert process.poll() is None, f"{argv} ended: {said.read_text()}"
    finally:
        end(process)


@contextmanager
def haproxy(folder: Path, configuration: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run HAProxy with this configuration."""
    file = folder / "haproxy.cfg"
    file.write_text(configuration)
    with balancer(folder, [server("haproxy"), "-db", "-f", file]) as process:
        yield process


@contextmanager
def nginx(folder: Path, stream: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run nginx with this `stream` block."""
    file, log = folder / "nginx.conf", folder / "error.log"
    file.write_text(
        f"load_module {NGINX_MODULE};\ndaemon off;\nmaster_process off;\n"
        f"pid {folder}/pid;\nerror_log {log};\nevents {{}}\nstream {{\n{stream}\n}}\n"
    )
    with balancer(folder, [server("nginx"), "-e", log, "-p", folder, "-c", file]) as process:
        yield process
