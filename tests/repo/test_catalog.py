"""The message catalog says what events.py says, and the manual names real records."""

import re
import subprocess
import sys
from pathlib import Path

from netsrvd.events import all_events

ROOT = Path(__file__).parents[2]
CATALOG = ROOT / "systemd/netsrvd.catalog"
MANUAL = ROOT / "packaging/man/netsrvd.7"


def test_the_catalog_is_the_one_that_the_events_make() -> None:
    """If this fails: systemd/make-catalog >systemd/netsrvd.catalog."""
    made = subprocess.run(
        [sys.executable, ROOT / "systemd/make-catalog"], capture_output=True, text=True, check=True
    )
    assert made.stdout == CATALOG.read_text(encoding="utf-8")


def test_journalctl_understands_every_entry(tmp_path: Path) -> None:
    """The catalog compiles, and each event is in it under its subject."""
    for folder in ("usr/lib/systemd/catalog", "var/lib/systemd/catalog"):
        (tmp_path / folder).mkdir(parents=True)
    copy = tmp_path / "usr/lib/systemd/catalog/netsrvd.catalog"
    copy.write_bytes(CATALOG.read_bytes())
    journalctl = ["journalctl", f"--root={tmp_path}"]
    made = subprocess.run([*journalctl, "--update-catalog"], capture_output=True, check=True)
    assert made.stderr == b""
    listed = subprocess.run(
        [*journalctl, "--list-catalog"], capture_output=True, text=True, check=True
    )
    assert sorted(listed.stdout.splitlines()) == sorted(
        f"{event.MESSAGE_ID} netsrvd: {event.SUBJECT}" for event in all_events()
    )


def test_each_event_has_an_id_of_its_own() -> None:
    """A MESSAGE_ID means one thing for ever."""
    ids = [event.MESSAGE_ID for event in all_events()]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[0-9a-f]{32}", each) for each in ids)


def test_the_ids_in_the_manual_are_those_of_events() -> None:
    """An administrator can copy a MESSAGE_ID from netsrvd(7)."""
    shown = set(re.findall(r"\b[0-9a-f]{32}\b", MANUAL.read_text(encoding="utf-8")))
    assert shown
    assert shown <= {event.MESSAGE_ID for event in all_events()}
