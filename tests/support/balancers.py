"""Real load balancers of Debian, in processes of their own, with configurations of the tests."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

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

NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


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
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def haproxy(folder: Path, configuration: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run HAProxy with this configuration."""
    if not (program := shutil.which("haproxy")):
        pytest.fail("install haproxy")
    file = folder / "haproxy.cfg"
    file.write_text(configuration)
    with balancer(folder, [program, "-db", "-f", file]) as process:
        yield process


@contextmanager
def nginx(folder: Path, stream: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run nginx with this `stream` block."""
    if not (program := shutil.which("nginx")) or not NGINX_MODULE.exists():
        pytest.fail("install nginx and libnginx-mod-stream")
    file, log = folder / "nginx.conf", folder / "error.log"
    file.write_text(
        f"load_module {NGINX_MODULE};\ndaemon off;\nmaster_process off;\n"
        f"pid {folder}/pid;\nerror_log {log};\nevents {{}}\nstream {{\n{stream}\n}}\n"
    )
    with balancer(folder, [program, "-e", log, "-p", folder, "-c", file]) as process:
        yield process
