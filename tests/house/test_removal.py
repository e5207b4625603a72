"""What a removal of the package does with the units that `netsrvd apply` has written."""

import subprocess
from pathlib import Path

import pytest

from netsrvd.systemd.unit_files import HEAD

SCRIPT = Path(__file__).parents[2] / "debian" / "netsrvd.prerm"

SYSTEMCTL = """\
#!/bin/sh
printf '%s\\n' "$*" >>"$HERE/calls"
[ "$1" = list-units ] && [ ! -e "$HERE/killed" ] && printf '%s\\n' 'netsrvd@a\\x2db.service loaded'
[ "$1" != kill ] || touch "$HERE/killed"
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a host's folders with a link-local listener on br-lan, for a service and instances."""
    folder = tmp_path / "etc/systemd/system"
    wants = folder / "sockets.target.wants"
    wants.mkdir(parents=True)
    for name, link in (
        ("netsrvd-echo:br\\x2dlan.socket", "netsrvd-echo:br\\x2dlan.socket"),
        ("netsrvd-echo:br\\x2dlan@.socket", "netsrvd-echo:br\\x2dlan@a.socket"),
    ):
        (folder / name).write_text(HEAD)
        (wants / link).symlink_to(folder / name)
    for name in ("var/lib", "run/systemd/system", "bin"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "bin/systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin/systemctl").chmod(0o755)
    return tmp_path


def test_a_removal_finds_escaped_names(here: Path) -> None:
    """The backslash of an interface's name reaches systemctl, and no link is left."""
    text = SCRIPT.read_text()
    for name in ("/etc/systemd", "/var/lib", "/run/systemd", "/usr/lib"):
        text = text.replace(f"{name}/", f"{here}{name}/")
    script = here / "prerm"
    script.write_text(text)
    environment = {"PATH": f"{here}/bin:/usr/bin:/bin", "HERE": str(here)}
    subprocess.run(["/bin/sh", script, "remove"], env=environment, check=True)
    calls = (here / "calls").read_text().splitlines()
    assert calls[0] == r"stop netsrvd-echo:br\x2dlan.socket netsrvd-echo:br?x2dlan@*.socket"
    assert r"kill netsrvd@a\x2db.service" in calls
    assert not list((here / "etc").rglob("netsrvd*"))
    assert (here / "var/lib/netsrvd/apply-anew").exists()
