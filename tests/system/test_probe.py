"""`netsrvd probe` of the package on a real Debian."""

from tests.support.installed import NOBODY
from tests.support.machine import Machine


def test_an_ordinary_user_measures(quiet: Machine) -> None:
    """Without any privilege the first probe starts the daemon, and the kernel stamps all."""
    ended = quiet.run(*NOBODY, "netsrvd", "probe", "-W", "30s", "-n", "5", "-i", "50ms", "::1")
    assert "5 sent, 5 received, 0 lost (0 %)" in ended.stdout
    assert "stamps: kernel" in ended.stdout


def test_what_the_package_only_recommends(quiet: Machine) -> None:
    """Where python3-rich and python3-matplotlib are not installed, a line says what to install."""
    for option, module in (("--plot=x.svg", "matplotlib"), ("--live", "rich")):
        command = ["script", "-qec", f"netsrvd probe {option} ::1", "/dev/null"]
        ended = quiet.run(*command, check=False)
        assert ended.returncode == 70
        assert f"install python3-{module}" in ended.stdout


def test_the_manual(quiet: Machine) -> None:
    """The package has the manual page and the example for SmokePing."""
    listed = quiet.run("dpkg", "-L", "netsrvd").stdout.splitlines()
    assert "/usr/share/man/man1/netsrvd-probe.1.gz" in listed
    example = "/usr/share/doc/netsrvd/examples/smokeping-probe"
    assert example in listed
    ended = quiet.run("sh", example, "-C", "2", "-q", "-p50", "-t30000", "-6", "localhost")
    assert ended.stderr.startswith("localhost : ")
