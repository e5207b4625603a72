"""`netsrvd probe` of the package on a real Debian."""

from tests.support.installed import NOBODY
from tests.support.machine import Machine


def test_an_ordinary_user_measures(quiet: Machine) -> None:
    """Without any privilege the first probe starts the daemon, and the kernel stamps all."""
    ended = quiet.run(*NOBODY, "netsrvd", "probe", "-W", "30s", "-n", "5", "-i", "50ms", "::1")
    assert "5 sent, 5 received, 0 lost (0 %)" in ended.stdout
    assert "stamps: kernel" in ended.stdout


def test_what_the_package_only_suggests(quiet: Machine) -> None:
    """Where python3-matplotlib is not installed, a line says what to install."""
    ended = quiet.run("netsrvd", "probe", "--plot=x.svg", "::1", check=False)
    assert ended.returncode == 70
    assert "install python3-matplotlib" in ended.stderr


def test_a_table_that_changes(quiet: Machine) -> None:
    """The table is drawn by the python3-rich of Debian."""
    command = "netsrvd probe --live -W 30s -n 5 -i 50ms ::1"
    ended = quiet.run("script", "-qec", command, "/dev/null")
    assert "history" in ended.stdout
    assert "5 sent, 5 received, 0 lost (0 %)" in ended.stdout


def test_the_manual(quiet: Machine) -> None:
    """The package has the manual page and the example for SmokePing."""
    listed = quiet.run("dpkg", "-L", "netsrvd").stdout.splitlines()
    assert "/usr/share/man/man1/netsrvd-probe.1.gz" in listed
    example = "/usr/share/doc/netsrvd/examples/smokeping-probe"
    assert example in listed
    ended = quiet.run("sh", example, "-C", "2", "-q", "-p50", "-t30000", "-6", "localhost")
    assert ended.stderr.startswith("localhost : ")
