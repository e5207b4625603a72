"""systemd finds no fault with the units, and the sandbox is as tight as it is said to be."""

import ipaddress
import json
import re
import resource
import subprocess
from pathlib import Path

import pytest

from netsrvd import startup
from netsrvd.settings import ListenerSettings, Settings
from netsrvd.systemd.unit_files import DROP_IN_NAME, drop_in, escaped, unit_files

SYSTEMD = Path(__file__).parents[2] / "systemd"
SERVICES = ("netsrvd.service", "netsrvd@.service")
EXAMPLES = sorted(SYSTEMD.parent.glob("packaging/examples/*.toml"))
CONTROL = ("netsrvd-control.socket", "netsrvd-control@.socket")
UNITS = (*SERVICES, "netsrvd.socket", "netsrvd@.socket", *CONTROL)
MOST_EXPOSED = 0.9

PROGRAMS = r"(?m)^(Exec\w+=[-+]*)/usr/(?:bin/netsrvd|libexec/netsrvd/[\w-]+)"
"""What only the package installs."""


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Copy the units, with a program in place of the one that only the package installs."""
    program = tmp_path / "netsrvd"
    program.touch(mode=0o755)
    copies = []
    for name in UNITS:
        text = (SYSTEMD / name).read_text(encoding="utf-8")
        copy = tmp_path / name
        copy.write_text(re.sub(PROGRAMS, rf"\1{program}", text))
        copies.append(copy)
    return copies


def test_systemd_has_nothing_to_say_about_the_units(units: list[Path]) -> None:
    """No unknown directive, no missing program, no dependency that cannot be."""
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.stdout + verified.stderr == ""
    assert verified.returncode == 0


@pytest.mark.parametrize("name", SERVICES)
def test_the_exposure_of_the_service_is_small(name: str) -> None:
    """Everything unused is denied: `systemd-analyze security` gives 0.9 at most."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    judged = subprocess.run([*command, SYSTEMD / name], capture_output=True, text=True, check=True)
    found = re.search(r"Overall exposure level for netsrvd\S*: ([\d.]+)", judged.stdout)
    assert found, judged.stdout
    assert float(found[1]) <= MOST_EXPOSED, judged.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_only_what_the_service_needs_is_exposed(name: str) -> None:
    """The network, the journal's sockets and what ProtectClock= itself leaves: no more."""
    command = ["systemd-analyze", "security", "--offline=true", "--json=short", "--no-pager"]
    judged = subprocess.run([*command, SYSTEMD / name], capture_output=True, text=True, check=True)
    exposed = {row["json_field"] for row in json.loads(judged.stdout) if row["exposure"]}
    assert exposed <= {
        "PrivateNetwork",
        "RestrictAddressFamilies_AF_INET_INET6",
        "RestrictAddressFamilies_AF_UNIX",
        "IPAddressDeny",
        "DeviceAllow",
    }


GROUPS = [
    *("224.0.0.0", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    *("ff00::", "ff02::1", "ffff::1"),
]
HOSTS = [
    *("127.0.0.1", "10.0.0.1", "169.254.1.1", "192.168.0.1", "192.0.2.1", "223.255.255.255"),
    *("::1", "::ffff:192.0.2.1", "64:ff9b::1", "2001:db8::1", "fc00::1", "fe80::1", "feff::1"),
]


@pytest.mark.parametrize("name", [each for each in UNITS if each not in CONTROL])
def test_only_addresses_of_one_host_pass_the_filter(name: str) -> None:
    """The units let through each address that can be one host's, and none of a group."""
    text = (SYSTEMD / name).read_text(encoding="utf-8")
    assert "\nIPAddressDeny=any\n" in text
    lines = re.findall(r"(?m)^IPAddressAllow=(.*)$", text)
    allowed = [ipaddress.ip_network(each) for line in lines for each in line.split()]

    def passes(host: str) -> bool:
        return any(ipaddress.ip_address(host) in network for network in allowed)

    assert [host for host in GROUPS if passes(host)] == []
    assert [host for host in HOSTS if not passes(host)] == []


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        ("service", "netsrvd@.service"),
        ("socket", "netsrvd@.socket"),
        ("control", "netsrvd-control@.socket"),
    ],
)
def test_the_templates_are_those_that_the_units_make(kind: str, unit: str) -> None:
    """If this fails: systemd/make-template KIND >systemd/UNIT."""
    made = subprocess.run(
        [SYSTEMD / "make-template", kind], capture_output=True, text=True, check=True
    )
    assert made.stdout == (SYSTEMD / unit).read_text(encoding="utf-8")


def without_comments(text: str) -> str:
    """Return the lines of a unit that systemd reads."""
    return "\n".join(line for line in text.splitlines() if line and not line.startswith("#"))


@pytest.mark.parametrize("instances", [False, True])
def test_apply_writes_the_units_that_are_shipped(*, instances: bool) -> None:
    """For the default listener `netsrvd apply` would write netsrvd.socket, but for its comments."""
    [listener] = Settings().listeners
    [made] = unit_files(listener, listener.endpoints(), instances=instances)
    shipped = SYSTEMD / ("netsrvd@.socket" if instances else "netsrvd.socket")
    assert without_comments(made.text) == without_comments(shipped.read_text(encoding="utf-8"))


def test_systemd_has_nothing_to_say_about_written_units(units: list[Path]) -> None:
    """The units of all sorts of listeners are right, together with the drop-in that names them."""
    folder = units[0].parent
    listeners = [
        ListenerSettings("a-b.c", hosts=("192.0.2.1", "fe80::1%lan-1"), port=7),
        ListenerSettings("wide", protocols=("tcp",), port=9, interface="br-0"),
        ListenerSettings(
            "large", port=13, options={"SO_RCVBUF": 1 << 20, "TCP_WINDOW_CLAMP": 4096}
        ),
    ]
    made = [each for one in listeners for each in unit_files(one, one.endpoints())]
    # systemd-analyze takes what follows a colon for another name of the unit.
    names = [each.name.replace(":", "-") for each in made]
    for name, each in zip(names, made, strict=True):
        (folder / name).write_text(each.text)
    (folder / "netsrvd.service.d").mkdir()
    text = drop_in("netsrvd.service", names)
    (folder / "netsrvd.service.d" / DROP_IN_NAME).write_text(text)
    paths = [*units, *(folder / name for name in names)]
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.stdout + verified.stderr == ""
    assert verified.returncode == 0


def test_names_of_listeners_are_names_of_units() -> None:
    """Every character of a listener's name may stand in a unit's name as it is."""
    for name in ("a", "A-b_c.d", "0" * 63):
        listener = ListenerSettings(name)
        [unit] = unit_files(listener, listener.endpoints())
        command = ["systemd-escape", "--mangle", unit.name]
        mangled = subprocess.run(command, capture_output=True, text=True, check=True)
        assert mangled.stdout == f"{unit.name}\n"
        part = ["systemd-escape", "br-lan_0.1:2é"]
        assert subprocess.run(part, capture_output=True, text=True, check=True).stdout.strip() == (
            escaped("br-lan_0.1:2é")
        )


def test_enabling_one_unit_does_not_drag_the_other_along() -> None:
    """Also= would bring the socket back for an administrator who has disabled it."""
    for name in UNITS:
        assert "\nAlso=" not in (SYSTEMD / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [None, *EXAMPLES], ids=lambda path: path.name if path else "none")
def test_the_unit_has_descriptors_for_each_example(
    path: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that an example has taken into use, and the listener `echo` of the default beside
    it, no start begins with a warning of too few descriptors.
    """
    text = (SYSTEMD / "netsrvd.service").read_text(encoding="utf-8")
    limit = int(re.findall(r"(?m)^LimitNOFILE=(.*)$", text)[0])
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    example = path.read_text() if path else ""
    own = tmp_path / "netsrvd.toml"
    own.write_text("[listener.echo]\n" * ("[listener.echo]" not in example) + example)
    settings = startup.read_configuration(own).settings
    sockets = sum(len(listener.endpoints()) for listener in settings.listeners)
    assert startup.connection_limit(settings, sockets)[1] == []
