"""netsrvd.commands.service_view"""

import os
from pathlib import Path

import pytest

from netsrvd.commands import service_view
from netsrvd.commands.service_view import DYNAMIC_UID, Identity, View, complaint_of
from netsrvd.config import files
from netsrvd.startup import VALIDATORS
from netsrvd.systemd import systemctl

SHIPPED = {
    "LoadState": "loaded",
    "RootDirectory": "/run/netsrvd",
    "BindReadOnlyPaths": "/usr:/usr:rbind /lib:/lib:rbind -/lib64:/lib64:rbind "
    "-/etc/netsrvd:/etc/netsrvd:rbind",
    "BindPaths": "",
    "InaccessiblePaths": "-+/run/netsrvd",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "TemporaryFileSystem": "",
    "User": "netsrvd-nobody-has-this",
    "Group": "netsrvd-nobody-has-this",
    "DynamicUser": "yes",
    "SupplementaryGroups": "",
}
"""The properties of the unit as it is shipped."""

REAL_TEXTS = systemctl.texts

STRANGER = Identity(DYNAMIC_UID, DYNAMIC_UID)


def view(tmp_path: Path, **properties: str) -> View:
    """Return what a unit sees whose root has the folder `etc` of this host's folder alone."""
    given = {
        "RootDirectory": str(tmp_path / "root"),
        "BindReadOnlyPaths": f"{tmp_path}/etc:{tmp_path}/etc:rbind",
    }
    return View(service_view.places_of(given | properties), STRANGER)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """A folder that the service sees, with a file that anybody may read."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "etc"
    folder.mkdir(0o755)
    (folder / "a.toml").write_text("")
    (folder / "a.toml").chmod(0o644)
    return folder


def test_what_is_mounted_is_seen() -> None:
    """Sources by their destinations, what is hidden as None, and the root itself."""
    places = service_view.places_of(SHIPPED | {"BindPaths": "/srv/q:/usr/q"})
    assert places["/"] == "/run/netsrvd"
    assert (places["/etc/netsrvd"], places["/usr/q"]) == ("/etc/netsrvd", "/srv/q")
    assert [places[each] for each in ("/home", "/tmp", "/run/netsrvd")] == [None] * 3
    bare = service_view.places_of({"ProtectHome": "no", "PrivateTmp": "no"})
    assert bare == {"/": "/"}


def test_a_readable_file_is_no_fault(tmp_path: Path, etc: Path) -> None:
    """Nor is a folder that can be listed; what is above is made by systemd."""
    tmp_path.chmod(0o700)
    assert complaint_of(view(tmp_path), etc / "a.toml") == ""
    assert complaint_of(view(tmp_path), etc) == ""


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("a.toml", 0o640, "a.toml (mode 0640): chmod o+r "),
        ("", 0o750, "etc (mode 0750): chmod o+x "),
        ("", 0o754, "etc (mode 0754): chmod o+x "),
    ],
)
def test_modes_on_the_way_count(
    tmp_path: Path, etc: Path, name: str, mode: int, words: str
) -> None:
    """The file must be readable, and each folder above it searchable, for others."""
    (etc / name).chmod(mode)
    assert words in complaint_of(view(tmp_path), etc / "a.toml")
    unknown = View(view(tmp_path).places, None)
    assert complaint_of(unknown, etc / "a.toml") == ""


@pytest.mark.parametrize(
    ("identity", "permits"),
    [
        *((Identity(1, 5), False), (Identity(9, 2), True), (Identity(9, 8, (2,)), True)),
        (Identity(9, 8), False),
    ],
)
def test_the_class_of_the_user_decides(identity: Identity, permits: bool) -> None:  # noqa: FBT001
    """Owner, group, others: the first that fits, and no other."""
    status = os.stat_result((0o100040, 0, 0, 1, 1, 2, 0, 0, 0, 0))
    assert service_view._permits(identity, status, "r") is permits


def test_links_are_followed_in_the_root_of_the_service(tmp_path: Path, etc: Path) -> None:
    """What leads outside is not seen; what leads around inside is."""
    outside = tmp_path / "srv.toml"
    outside.write_text("")
    (etc / "out.toml").symlink_to(outside)
    (etc / "up.toml").symlink_to("../srv.toml")
    (etc / "in.toml").symlink_to("../etc/./a.toml")
    (etc / "loop.toml").symlink_to("loop.toml")
    seen = view(tmp_path)
    for name in ("out.toml", "up.toml"):
        complaint = complaint_of(seen, etc / name)
        assert complaint.startswith(f"netsrvd.service does not see {outside}: put it below")
    assert complaint_of(seen, etc / "in.toml") == ""
    assert "too many symbolic links" in complaint_of(seen, etc / "loop.toml")


def test_a_bind_from_elsewhere_leads_there(tmp_path: Path, etc: Path) -> None:
    """A drop-in that gives the service another folder is honoured, and its modes count."""
    places = f"{etc}:/srv/quotes:rbind"
    seen = view(tmp_path, BindReadOnlyPaths=places)
    assert complaint_of(seen, Path("/srv/quotes/a.toml")) == ""
    (etc / "a.toml").chmod(0o600)
    assert f"{etc}/a.toml (mode 0600)" in complaint_of(seen, Path("/srv/quotes/a.toml"))


def test_without_a_root_of_its_own_all_is_seen_but_what_is_hidden(
    tmp_path: Path, etc: Path
) -> None:
    """As after a drop-in with RootDirectory=."""
    open_unit = View(service_view.places_of({"TemporaryFileSystem": f"{etc}:ro"}), None)
    assert "does not see" in complaint_of(open_unit, etc / "a.toml")
    assert complaint_of(open_unit, tmp_path) == ""


def test_a_dynamic_user_owns_nothing() -> None:
    """A static one is who it is, root is not judged, nor is a user that nobody knows."""
    assert service_view.identity_of(SHIPPED) == STRANGER
    static = SHIPPED | {"User": "nobody", "Group": "", "DynamicUser": "no"}
    found = service_view.identity_of(static)
    assert found is not None
    assert found.user == 65534
    assert service_view.identity_of(static | {"User": "root"}) is None
    assert service_view.identity_of(static | {"User": ""}) is None
    assert service_view.identity_of(static | {"SupplementaryGroups": "no-such-group"}) is None


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a configuration at the default path of a host whose systemd has the unit."""
    main = tmp_path / "netsrvd.toml"
    for module in (files, service_view):
        monkeypatch.setattr(module, "DEFAULT_FILE", main)
    monkeypatch.setattr(systemctl, "texts", lambda *_: [SHIPPED])
    return main


def test_all_files_of_a_configuration_are_looked_at(loaded: Path) -> None:
    """The files themselves, the folder of drop-ins, quotes and modules, each at its place."""
    (loaded.parent / "conf.d").mkdir()
    quotes = loaded.parent / "quotes"
    quotes.write_text("x")
    loaded.write_text(f'[listener.lab]\nservice = "qotd"\nport = 17\nquotes = "{quotes}"\n')
    faults, notes, looked = service_view.judge(None, files.load(None, VALIDATORS))
    assert (notes, looked) == ([], True)
    assert [(fault.file, fault.line) for fault in faults] == [
        (str(loaded.parent / "conf.d"), 0),
        (str(loaded), 0),
        (str(loaded), 4),
    ]
    assert all("netsrvd.service does not see" in fault.text for fault in faults)


STAMP = '[listener.lab]\nservice = "stamp"\nport = 862\nprotocols = "udp"\nstamp_key = "{key}"\n'


@pytest.mark.parametrize(
    ("line", "passes"),
    [
        ("LoadCredential=lab:/etc/netsrvd/lab.key", True),
        ("  LoadCredential = lab:/etc/netsrvd/lab.key", True),
        ("LoadCredentialEncrypted=lab", True),
        ("SetCredential=lab:secret", True),
        ("ImportCredential=la*", True),
        ("LoadCredential=label:/etc/netsrvd/lab.key", False),
        ("#LoadCredential=lab:/etc/netsrvd/lab.key", False),
        ("ImportCredential=stamp*", False),
        ("", False),
    ],
)
def test_a_credential_must_be_passed(
    loaded: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    passes: bool,  # noqa: FBT001
) -> None:
    """A line of the unit or of one of its drop-ins has its name; systemctl does not show them."""
    drop_in = loaded.parent / "a.conf"
    drop_in.write_text(f"[Service]\n{line}\n")
    unit = SHIPPED | {"FragmentPath": "/nowhere", "DropInPaths": f"/nowhere/b.conf {drop_in}"}
    monkeypatch.setattr(systemctl, "texts", lambda *_: [unit])
    loaded.write_text(STAMP.format(key="credential:lab"))
    faults, _, _ = service_view.judge(None, files.load(None, VALIDATORS))
    found = [fault.text for fault in faults if "LoadCredential=lab:PATH" in fault.text]
    assert found == [] if passes else len(found) == 1


def test_a_key_must_be_of_the_user_of_the_service(loaded: Path) -> None:
    """Which a dynamic user has none of: the fault says how it gets one."""
    key = loaded.parent / "lab.key"
    key.touch(0o600)
    loaded.write_text(STAMP.format(key=key))
    faults, _, _ = service_view.judge(None, files.load(None, VALIDATORS))
    found = [(each.file, each.line) for each in faults if "does not own" in each.text]
    assert found == [(str(loaded), 5)]


@pytest.mark.parametrize(
    ("unit", "note"),
    [
        ({"LoadState": "not-found"}, "there is no such unit"),
        ({"LoadState": "masked"}, "there is no such unit"),
        (SHIPPED | {"RootImage": "/srv/image"}, "it has a RootImage="),
    ],
)
def test_what_was_not_looked_at_is_said(
    loaded: Path, monkeypatch: pytest.MonkeyPatch, unit: dict[str, str], note: str
) -> None:
    """Without the unit, or where it cannot be told, nothing is promised."""
    monkeypatch.setattr(systemctl, "texts", lambda *_: [unit])
    found = service_view.judge(None, files.load(None, VALIDATORS))
    assert found == ([], [f"not tried as netsrvd.service would read it: {note}"], False)


def test_without_systemd_that_is_said(
    loaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is that of systemctl."""
    monkeypatch.setattr(systemctl, "texts", REAL_TEXTS)
    monkeypatch.setattr(systemctl, "RUNNING", tmp_path / "nowhere")
    [note] = service_view.judge(None, files.load(None, VALIDATORS))[1]
    assert note.endswith("would read it: systemd does not manage this host")


def test_another_file_is_not_for_the_service(loaded: Path) -> None:
    """What `-c` names is judged as the caller reads it, unless it is the service's own."""
    other = loaded.with_name("other.toml")
    for file in (other, loaded):
        file.touch()
    assert service_view.judge(other, files.load(other, VALIDATORS)) == ([], [], False)
    assert service_view.judge(loaded, files.load(loaded, VALIDATORS))[2]


def test_a_quote_in_a_path_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its properties cannot be taken apart: that is a note, not a traceback."""
    unit = SHIPPED | {"BindReadOnlyPaths": "/srv/o'clock:/etc/netsrvd:rbind"}
    monkeypatch.setattr(systemctl, "texts", lambda *_: [unit])
    faults, [note], looked = service_view.judge(None, files.load(None, VALIDATORS))
    assert (faults, looked) == ([], False)
    assert "has a quote" in note
