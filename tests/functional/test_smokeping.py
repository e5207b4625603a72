"""SmokePing of Debian, whose probe FPing runs the example `smokeping-probe`."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.functional.conftest import Start
from tests.support.run import COMMAND, ENVIRONMENT, PATIENCE, free_port

ROOT = Path(__file__).parents[2]
SERVERS = ROOT / "build/servers"
EXAMPLE = ROOT / "packaging/examples/smokeping-probe"

PINGS = 5

CONFIGURATION = """
*** General ***
owner = owner
contact = contact@example.net
mailhost = localhost
imgcache = {folder}
imgurl = images
datadir = {folder}/data
piddir = {folder}
cgiurl = http://localhost/
smokemail = {servers}/etc/smokeping/smokemail
tmail = {servers}/etc/smokeping/tmail
*** Alerts ***
to = contact@example.net
from = contact@example.net
*** Database ***
step = 60
pings = {pings}
AVERAGE 0.5 1 100
*** Presentation ***
template = {servers}/etc/smokeping/basepage.html
+ overview
width = 600
height = 50
range = 10h
+ detail
width = 600
height = 200
unison_tolerance = 2
"Last 3 Hours"    3h
*** Probes ***
+ FPing
binary = {binary}
hostinterval = 0.02
timeout = 5
packetsize = 100
sourceaddress = 127.0.0.1
tos = 0xb8
*** Targets ***
probe = FPing
menu = Top
title = Top
+ alive
menu = alive
title = alive
host = {alive}
+ silent
menu = silent
title = silent
host = {silent}
"""

LAST = (
    'my $f = RRDs::info($ARGV[0]); print join " ", map { $f->{"ds[$_].last_ds"} } @ARGV[1..$#ARGV]'
)


def last(file: Path, *names: str) -> list[str]:
    """Return the last values of data sources of a round robin database."""
    command = ["perl", "-MRRDs", "-e", LAST, file, *names]
    return subprocess.check_output(command, text=True, timeout=PATIENCE).split()


@pytest.fixture
def data(start: Start, tmp_path: Path) -> Path:
    """Let SmokePing measure once; return the folder of its databases."""
    run = start()
    folder = tmp_path / "smokeping"
    (folder / "data").mkdir(parents=True)
    text = CONFIGURATION.format(
        folder=folder,
        servers=SERVERS,
        pings=PINGS,
        binary=EXAMPLE,
        alive=f"127.0.0.1:{run.port}",
        silent=f"127.0.0.1:{free_port(run.port + 1)}",
    )
    configuration = folder / "config"
    configuration.write_text(text)
    ended = subprocess.run(
        [
            *("perl", "-I", SERVERS / "usr/share/perl5", SERVERS / "usr/sbin/smokeping"),
            *(f"--config={configuration}", "--debug"),
        ],
        env=ENVIRONMENT | {"PATH": f"{COMMAND.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, ended
    assert "-b100" in ended.stderr + ended.stdout
    return folder / "data"


def test_smokeping_measures_echo_by_udp(data: Path) -> None:
    """Its database gets the times of a host that answers, and the losses of one that does not."""
    names = [f"ping{number}" for number in range(1, PINGS + 1)]
    loss, median, *times = last(data / "alive.rrd", "loss", "median", *names)
    assert loss == "0"
    assert [*map(float, times)] == sorted(map(float, times))
    assert 0 < float(times[0]) <= float(median) <= float(times[-1]) < 1
    loss, median = last(data / "silent.rrd", "loss", "median")
    assert (loss, median) == (str(PINGS), "U")
