"""The status page and the book in a real browser, from the package on a real Debian."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Page, browser
from tests.support.installed import configure
from tests.support.loads import visited
from tests.support.machine import Machine

PICTURE = Path(__file__).parents[2] / "build/pictures/status-page.png"

HOSTILE = "\"><u>x&y'</td><script>window.harm</script>"
"""A package gives this name to a handler, which becomes the service of a listener."""

PACKAGE = """
set -e
folder=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib", "posix_local"))')
mkdir -p "$folder/lab-1.dist-info" && cd "$folder"
printf "Metadata-Version: 2.1\\nName: lab\\nVersion: 1\\n" >lab-1.dist-info/METADATA
printf "def serve(client):\\n    return None\\n" >lab.py
cat >lab-1.dist-info/entry_points.txt
"""

PORT = 51425
URL = f"http://127.0.0.1:{PORT}/"

CONFIGURATION = f"""
[listener.metrics]
service = "metrics"
host = ["127.0.0.1", "::1"]
port = {PORT}

[listener.shut]
host = "127.0.0.1"
port = 51427
deny = "loopback"
"""

HOSTILE_LISTENER = f"""
[listener.hostile]
service = {json.dumps(HOSTILE)}
host = "127.0.0.1"
port = 51426
"""

LOAD = "for i in $(seq 20); do echo hello | nc -N 127.0.0.1 51423; done"
REFUSED = "for i in 1 2 3; do nc -N 127.0.0.1 51427 </dev/null; done"

ROW = """
[...document.querySelectorAll("#{table} tbody tr")].map((row) => [...row.cells].map(
    (cell) => cell.textContent)).find((row) => row[0] === "{listener}" && row.includes("{word}"))
"""


@pytest.fixture(scope="module")
def served(installed: Machine) -> Machine:
    """Give a machine whose daemon serves the page, and echo to local clients."""
    configure(installed, CONFIGURATION)
    installed.run("systemctl", "start", "netsrvd.service")
    return installed


@pytest.fixture
def page(served: Machine) -> Iterator[Page]:
    with browser(served) as page:
        yield page


def row(page: Page, listener: str, word: str, table: str = "listeners") -> list[str] | None:
    """Return the texts of the row of a listener that has a word."""
    found: list[str] | None = page.value(ROW.format(table=table, listener=listener, word=word))
    return found


pytestmark = pytest.mark.parametrize("machine", ["trixie"], indirect=True, scope="module")


def test_the_figures_change_under_load(page: Page, served: Machine) -> None:
    """Without a reload of the page; the history is drawn, and nothing but the daemon was asked."""
    page.load(URL)
    before = row(page, "echo", "tcp")
    assert before
    served.run("sh", "-c", LOAD)
    served.run("sh", "-c", REFUSED)
    count = int(before[6]) + 20
    page.wait(lambda: (row(page, "echo", "tcp") or [""] * 7)[6] == str(count), "the connections")
    page.wait(lambda: (row(page, "shut", "access", "refusals") or [""] * 4)[3] == "3", "refusals")
    line = "document.querySelector('[data-series=accepted] polyline').getAttribute('points')"
    with visited(served, count=3):  # clients that come and go all the time
        page.wait(lambda: (page.value(line) or "").count(" ") >= 8, "the history")
    assert not page.value("document.getElementById('charts').hidden")
    assert page.console() == []
    asked = page.urls()
    assert asked >= {URL, f"{URL}status.json"}
    assert all(url.startswith((URL, "data:")) for url in asked)
    page.screenshot(PICTURE)


@pytest.fixture
def hostile(served: Machine) -> Iterator[None]:
    """Add a listener whose service has a hostile name."""
    named = f"[netsrvd.services]\n{HOSTILE} = lab:serve\n"
    served.run("sh", "-c", PACKAGE, input=named)
    configure(served, CONFIGURATION + HOSTILE_LISTENER)
    served.run("systemctl", "reload", "netsrvd.service")
    yield
    configure(served, CONFIGURATION)
    served.run("systemctl", "reload", "netsrvd.service")


def test_hostile_names_do_no_harm(page: Page, hostile: None) -> None:
    """They are shown as they are, by the page and by its refresh, and make no element."""
    for is_disabled in (True, False):
        page.call("Emulation.setScriptExecutionDisabled", value=is_disabled)
        page.load(URL)
        page.wait(lambda: is_refreshed(page) != is_disabled, "the refresh")  # noqa: B023
        assert (row(page, "hostile", "tcp") or ["", ""])[1] == HOSTILE
        assert page.value("document.querySelectorAll('u').length") == 0
    assert page.console() == []


STATE = "document.getElementById('state').textContent"


def is_refreshed(page: Page) -> bool:
    """Return whether the page shows an answer to its script."""
    return "reload the page" not in page.value(STATE)


def test_what_is_injected_does_not_run(page: Page) -> None:
    """The policy forbids scripts and styles that are not the page's, and requests elsewhere."""
    page.load(URL)
    page.value(
        "const one = document.createElement('script'); one.textContent = 'window.harm = 1';"
        "document.body.append(one); fetch('http://192.0.2.1/').catch(() => { window.kept = 1; })"
    )
    page.wait(lambda: page.value("window.kept"), "the refusal")
    assert page.value("window.harm") is None
    assert any("Content Security Policy" in str(each) for each in page.console())


def test_it_is_whole_without_a_script(page: Page) -> None:
    """The figures are there, and what needs a script is not."""
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.load(URL)
    text = page.value("document.body.innerText")
    assert "reload the page for newer figures" in text
    assert "netsrvd" in text
    assert (row(page, "echo", "tcp") or [])[3]
    assert page.value("getComputedStyle(document.getElementById('charts')).display") == "none"
    assert page.console() == []


def test_it_fits_a_phone_and_the_dark(page: Page) -> None:
    """A table scrolls within itself; the colours follow the browser's."""
    ground = "getComputedStyle(document.body).backgroundColor"
    page.load(URL)
    light = page.value(ground)
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=390, height=800, deviceScaleFactor=2, mobile=True,
    )  # fmt: skip
    page.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    page.load(URL)
    assert page.value(ground) != light
    assert page.value("document.documentElement.scrollWidth") <= 390
    page.screenshot(PICTURE.with_name("status-page-dark.png"))


def test_a_restart_is_seen(page: Page, served: Machine) -> None:
    """The page says that the daemon does not answer, and goes on when it does."""
    page.load(URL)
    page.wait(lambda: is_refreshed(page), "the refresh")
    served.run("systemctl", "stop", "netsrvd.service")
    page.wait(lambda: page.value(STATE).startswith("No answer"), "the loss")
    served.run("systemctl", "start", "netsrvd.service")
    page.wait(lambda: page.value(STATE).startswith("As of"), "the return")


BOOK = "/usr/share/doc/netsrvd/html"
BROKEN_IMAGES = "[...document.images].filter((image) => !image.naturalWidth).map((i) => i.src)"
DESK, TELEPHONE = 1300, 390
"""Widths in pixels."""


@pytest.mark.parametrize("width", [DESK, TELEPHONE])
def test_the_book_is_read_at_a_desk_and_on_a_telephone(
    page: Page, installed: Machine, width: int
) -> None:
    """Each page of the installed book fits the width, shows its pictures, loads nothing that is not
    installed, and says nothing on the console; files that it links to are there.
    """
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=800, deviceScaleFactor=1, mobile=width == TELEPHONE,
    )  # fmt: skip
    names = installed.run("sh", "-c", f"cd {BOOK}; ls *.html").stdout.split()
    assert len(names) > 10
    links: set[str] = set()
    for name in names:
        page.load(f"file://{BOOK}/{name}")
        assert page.value("document.documentElement.scrollWidth") <= width, name
        assert page.value(BROKEN_IMAGES) == [], name
        links |= {*page.value("[...document.links].map((link) => link.href.split('#')[0])")}
        if name == "configuring.html":
            page.screenshot(PICTURE.with_name(f"book-{width}.png"))
    assert page.console() == []
    assert all(url.startswith(f"file://{BOOK}/") for url in page.urls())
    files = [link.removeprefix("file://") for link in sorted(links) if link.startswith("file:")]
    installed.run("ls", *files)
