"""What `make release` leaves in build/release, and that a second build has the same bytes."""

import filecmp
import json
import os
import subprocess
import tarfile
import tomllib
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

import netsrvd

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "build/release-tools/bin"
VERSION = netsrvd.__version__
WHEEL = f"netsrvd-{VERSION}-py3-none-any.whl"
SDIST = f"netsrvd-{VERSION}.tar.gz"
SBOM = f"netsrvd-{VERSION}.cdx.json"
SOURCE = f"netsrvd_{VERSION}.tar.xz"
FILES = {
    *(WHEEL, SDIST, SBOM, SOURCE, "SHA256SUMS"),
    *(f"netsrvd_{VERSION}.dsc", f"netsrvd_{VERSION}_all.deb"),
}
"""All that a release has."""

IN_WHEEL = {
    "share/bash-completion/completions/netsrvd": "packaging/completions/bash/netsrvd",
    "share/fish/vendor_completions.d/netsrvd.fish": "packaging/completions/fish/netsrvd.fish",
    "share/zsh/site-functions/_netsrvd": "packaging/completions/zsh/_netsrvd",
} | {
    f"share/man/man{page.suffix[1:]}/{page.name}": f"packaging/man/{page.name}"
    for page in (ROOT / "packaging/man").iterdir()
}
"""What the wheel has besides the program, and what each file is a copy of."""

VALIDATE = """\
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()))
"""


@pytest.fixture(scope="module")
def release() -> Path:
    """Build a release of the work tree as an engineer does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(["make", "release"], cwd=ROOT, env=environment, check=True)
    return ROOT / "build/release"


def epoch() -> int:
    """Return the time of the newest entry of debian/changelog, in seconds since 1970."""
    command = ["dpkg-parsechangelog", "--show-field", "Timestamp"]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)


def test_two_builds_are_the_same(release: Path) -> None:
    """A release has a known set of files, and a build in another folder and time zone has the same
    bytes.
    """
    assert {path.name for path in release.iterdir()} == FILES
    again = release.with_name("release-again")
    same, different, odd = filecmp.cmpfiles(release, again, FILES, shallow=False)
    assert (set(same), different, odd) == (FILES, [], [])


def test_times_are_those_of_the_changelog(release: Path) -> None:
    """No file in the archives is younger than the newest entry of debian/changelog."""
    for name in (SDIST, SOURCE):
        with tarfile.open(release / name) as archive:
            assert max(member.mtime for member in archive) == epoch(), name
    with zipfile.ZipFile(release / WHEEL) as wheel:
        newest = max(member.date_time for member in wheel.infolist())
    assert datetime(*newest, tzinfo=UTC).timestamp() <= epoch()


def test_the_wheel_has_the_manual_pages_and_completions(release: Path) -> None:
    """They lie below the prefix where man(1) and the shells look, and have the bytes of the
    source.
    """
    with zipfile.ZipFile(release / WHEEL) as wheel:
        place = f"netsrvd-{VERSION}.data/data/"
        found = {name.removeprefix(place) for name in wheel.namelist() if name.startswith(place)}
        assert found == {*IN_WHEEL}
        for name, source in IN_WHEEL.items():
            assert wheel.read(place + name) == (ROOT / source).read_bytes()


def test_the_sdist_is_the_whole_source(release: Path) -> None:
    """It has every file that the Debian source package has, the tests too."""
    listed: list[set[str]] = []
    for name in (SDIST, SOURCE):
        with tarfile.open(release / name) as archive:
            listed.append({member.name for member in archive if member.isfile()})
    top = f"netsrvd-{VERSION}/"
    assert listed[1] - listed[0] == set()
    assert f"{top}tests/system/{Path(__file__).name}" in listed[0]


def test_the_sbom_is_valid_and_complete(release: Path) -> None:
    """The SBOM keeps the schema of CycloneDX, and names the version, the license, and each
    package that the wheel depends on with its version.
    """
    text = (release / SBOM).read_text()
    validator = [TOOLS / "python", "-c", VALIDATE]
    done = subprocess.run(validator, input=text, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"

    sbom = json.loads(text)
    component = sbom["metadata"]["component"]
    assert (component["name"], component["version"]) == ("netsrvd", VERSION)
    assert component["licenses"][0]["license"]["id"] == "MIT"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [direct] = [each for each in sbom["dependencies"] if each["ref"] == component["bom-ref"]]
    names = {each.partition(">")[0] for each in project["dependencies"]}
    assert {reference.partition("==")[0] for reference in direct["dependsOn"]} == names
    versions = {each["name"]: each["version"] for each in sbom["components"]}
    assert set(versions) == names | {"lockfile"}


def test_the_sums_are_right(release: Path) -> None:
    """sha256sum(1) finds each file of the release as SHA256SUMS says."""
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=release, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count(": OK\n")) == (0, len(FILES) - 1), done.stderr
