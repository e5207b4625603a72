"""`netsrvd top` with the packages of Debian, for a member of the group adm."""

import subprocess
from pathlib import Path

import pytest

from tests.support.documents import ROOT
from tests.support.installed import NOBODY, SERVICE, SUPPORT, main_pid, talk
from tests.support.machine import Machine
from tests.support.patience import eventually

MEMBER = ["setpriv", "--reuid=watcher", "--regid=watcher", "--init-groups", "--"]
RICH = "/usr/lib/python3/dist-packages/rich"
TMUX = ["tmux", "-S", "/tmp/top.tmux", "-f", "/dev/null"]


@pytest.fixture
def member(quiet: Machine) -> Machine:
    """Give a machine with a user who is a member of adm; the service runs."""
    exists = quiet.run("id", "watcher", check=False).returncode == 0
    if not exists:
        quiet.run("useradd", "--create-home", "--groups=adm", "watcher")
    quiet.run("systemctl", "start", SERVICE)
    return quiet


def test_without_rich(member: Machine) -> None:
    """Where python3-rich is not installed, one line says so."""
    member.run("mv", RICH, "/srv/rich")
    done = member.run("script", "-qec", "netsrvd top", "/dev/null", check=False)
    member.run("mv", "/srv/rich", RICH)
    assert done.returncode == 70
    assert done.stdout.splitlines() == [
        "netsrvd: top: the Python module rich is missing: install python3-rich, or by pip: rich"
    ]


def test_what_the_daemon_of_systemd_does(member: Machine, trees: dict[str, Path]) -> None:
    """With python3-rich a member of adm sees the daemon that systemd runs, and its connections;
    after a stop it sees that it does not run, and `top` does not start it.
    """
    folder = ROOT / "build/top" / member.suite
    fetch = Path(__file__).with_name("fetch")
    tree = trees[member.suite]
    subprocess.run([fetch, member.suite, tree, folder, "tmux"], check=True)
    archives = member.copy_in(folder / "archives")
    member.run("sh", "-ec", f"apt-get install --yes {archives}/*.deb")

    pid = main_pid(member)
    load = member.copy_in(SUPPORT / "journal_load.py")
    command = member.command("python3", load, "hold", "127.0.0.13", "wait", "leave")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        size = ["-x", "80", "-y", "24"]
        member.run(*MEMBER, *TMUX, "new-session", "-d", *size, "-eTERM=screen", "netsrvd top; cat")
        wait_screen(member, f"PID {pid}", "1 of ", "sent/s", "q quit")
        member.run(*MEMBER, *TMUX, "send-keys", "2")
        wait_screen(member, "1 connections, by bytes", "127.0.0.13:")
        holder.stdin.write("\n")
    assert holder.returncode == 0
    wait_screen(member, "0 connections, by bytes")
    member.run("systemctl", "stop", "netsrvd.socket", SERVICE)
    wait_screen(member, f"{SERVICE} does not run: inactive")
    assert member.run("systemctl", "is-active", SERVICE, check=False).stdout == "inactive\n"
    member.run("systemctl", "start", "netsrvd.socket")
    talk(member, "tcp", "again")
    wait_screen(member, f"PID {main_pid(member)}")
    member.run(*MEMBER, *TMUX, "kill-server")


def wait_screen(machine: Machine, *texts: str) -> None:
    """Wait until all these texts are on the screen."""

    def seen() -> bool:
        screen = machine.run(*MEMBER, *TMUX, "capture-pane", "-p").stdout
        return all(text in screen for text in texts)

    eventually(seen, f"{texts} on the screen")


def test_for_root_and_adm_alone(member: Machine) -> None:
    """Another user is told who may ask."""
    command = [*NOBODY, "script", "-qec", "netsrvd top", "/dev/null"]
    done = member.run(*command, check=False)
    assert done.returncode == 77
    [line] = done.stdout.splitlines()
    assert line.endswith("root and the group adm may ask; `adduser USER adm` adds a user")
