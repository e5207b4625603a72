"""What the scripts of the package do with what belongs to `netsrvd apply`."""

import json
import subprocess
from pathlib import Path

import pytest

from netsrvd.systemd import saved
from netsrvd.systemd.unit_files import HEAD

DEBIAN = Path(__file__).parents[2] / "debian"

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


def run(here: Path, name: str, verb: str) -> None:
    """Run a script with the folders of the test instead of those of this host."""
    text = (DEBIAN / f"netsrvd.{name}").read_text()
    for folder in ("/etc/systemd", "/etc/netsrvd", "/var/lib", "/run/systemd", "/usr/lib"):
        text = text.replace(f"{folder}/", f"{here}{folder}/")
    script = here / name
    script.write_text(text)
    environment = {"PATH": f"{here}/bin:/usr/bin:/bin", "HERE": str(here)}
    subprocess.run(["/bin/sh", script, verb], env=environment, check=True)


def test_a_removal_finds_escaped_names(here: Path) -> None:
    """The backslash of an interface's name reaches systemctl, and no link is left."""
    run(here, "prerm", "remove")
    calls = (here / "calls").read_text().splitlines()
    assert calls[0] == r"stop netsrvd-echo:br\x2dlan.socket netsrvd-echo:br?x2dlan@*.socket"
    assert r"kill netsrvd@a\x2db.service" in calls
    assert not list((here / "etc").rglob("netsrvd*"))
    assert (here / "var/lib/netsrvd/apply-anew").exists()


def test_the_first_state_has_the_contents_of_links(here: Path) -> None:
    """A relative link would lead nowhere from there, and a rollback would remove the file."""
    folder = here / "etc/netsrvd"
    (folder / "conf.d").mkdir(parents=True)
    (here / "etc/mine.toml").write_text("workers = 1\n")
    (folder / "netsrvd.toml").symlink_to("../mine.toml")
    (folder / "conf.d/a.toml").symlink_to("../../mine.toml")
    (folder / "conf.d/gone.toml").symlink_to("nowhere")
    run(here, "postinst", "configure")
    state = here / "var/lib/netsrvd/applied"
    (folder / "netsrvd.toml").unlink()
    found = saved.files(state / "netsrvd.toml")
    assert found == dict.fromkeys(("netsrvd.toml", "conf.d/a.toml"), b"workers = 1\n")
    assert json.loads((state / "state.json").read_text())["main"] == "netsrvd.toml"
    assert state.stat().st_mode & 0o777 == 0o700
