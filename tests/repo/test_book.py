"""The documents are one book: their links lead somewhere, their HTML needs no network."""

import html.parser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.documents import DOCUMENTS, others, steps

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!`)\[[^]]*\]\(([^) ]+)\)")


def prose(page: Path) -> str:
    """Return the text of a page without its blocks of commands."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors that a code forge gives the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        anchor = base = re.sub(r"[^\w\s-]", "", text.lower()).replace(" ", "-")
        count = 0
        while anchor in found:
            count += 1
            anchor = f"{base}-{count}"
        found.add(anchor)
    return found


def broken_links(page: Path) -> Iterator[str]:
    """Yield the links of a page to files and headings that are not there."""
    for link in LINK.findall(prose(page)):
        if urlsplit(link).scheme:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Each link of a document leads to a file and a heading of the repository."""
    assert [*broken_links(page)] == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """The test above sees a file, a page's heading and a heading of the same page that are not
    there.
    """
    (tmp_path / "other.md").write_text("# One `word`\n## One\n## One\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n[a](other.md#one-word) [b](#page) [c](other.md#one-1) [d](https://example.org/)\n"
        "[e](gone.md) [f](other.md#two) [g](#three)\n```\n[h](gone)\n```\n"
    )
    assert [*broken_links(page)] == ["gone.md", "other.md#two", "#three"]


def test_the_page_of_records_is_the_one_that_the_events_make() -> None:
    """If this fails: docs/book/make-records >docs/records.md."""
    command = [sys.executable, DOCS / "book/make-records"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout == (DOCS / "records.md").read_text()


class Parsed(html.parser.HTMLParser):
    """The elements of an HTML page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.tags.add(tag)
        self.ids |= {values["id"]} if "id" in values else set()
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif reference := values.get("src") or values.get("href"):
            self.loaded.append(reference)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Parsed]:
    """Return the pages of the book in HTML, which are made anew, by the names of their files."""
    folder = tmp_path_factory.mktemp("book") / "html"
    subprocess.run([ROOT / "packaging/make-docs", folder], check=True)
    pages = {page.name: Parsed(page) for page in folder.glob("*.html")}
    pages |= {
        str(path.relative_to(folder)): Parsed(Path("/dev/null"))
        for path in folder.rglob("*.*")
        if path.suffix != ".html"
    }
    return pages


def test_each_page_is_in_the_book(book: dict[str, Parsed]) -> None:
    """Each document of docs/ is a page, and the first page leads to all others."""
    names = {page.with_suffix(".html").name for page in DOCS.glob("*.md")}
    assert {name for name in book if name.endswith(".html")} == names
    assert {urlsplit(link).path for link in book["index.html"].links} >= names - {"index.html"}


def test_the_book_needs_no_network_and_no_script(book: dict[str, Parsed]) -> None:
    """All that a page loads lies beside it, and no page has a script."""
    for name, page in book.items():
        assert "script" not in page.tags, name
        for reference in page.loaded:
            assert unquote(reference) in book, (name, reference)


def test_links_of_the_book_lead_somewhere(book: dict[str, Parsed]) -> None:
    """Each link to a page of the book leads to a page and a place in it that are there; others are
    to files that are installed beside the book, and to addresses of the web.
    """
    for name, page in book.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                assert parts.scheme in {"http", "https"}, (name, link)
            elif link.startswith("../"):
                assert re.fullmatch(r"\.\./(SECURITY\.md|examples/[\w./-]+)", link), (name, link)
            else:
                target = book[parts.path or name]
                assert not parts.fragment or parts.fragment in target.ids, (name, link)


WORDS = DOCS / "book/words.txt"
CODE = re.compile(r"`[^`]*`")
NOT_PROSE = re.compile(r"\]\([^)]*\)|<!--.*?-->|<[^>]*>|\S*[_/=@\d]\S*", re.DOTALL)
WORD = re.compile(r"[^\W\d_]+(?:'(?!s\b)[^\W\d_]+)*")
CHECKED = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs", "packaging")
CHECKED += ("netsrvd", "systemd", "debian")


def words_of(page: Path) -> set[str]:
    """Return the words of a page's prose, without what looks like a name of code."""
    return {*WORD.findall(NOT_PROSE.sub(" ", CODE.sub(" ", prose(page))))}


def listed() -> list[str]:
    """Return the words that the dictionary lacks and the project uses."""
    return WORDS.read_text().split()


def unknown(words: set[str]) -> set[str]:
    """Return those words that neither the dictionary nor the list of the project has.

    A word of the list may begin with a capital letter, or have no others.
    """
    capitalized = {word[0].upper() + word[1:] for word in listed()}
    own = {*listed(), *capitalized, *map(str.upper, listed())}
    command = ["hunspell", "-l", "-i", "utf-8", "-d", "en_US"]
    text = "\n".join(sorted(words - own))
    found = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert not found.stderr
    return {*found.stdout.split()}


def test_words_are_spelled_right() -> None:
    """Each word of a document is in the dictionary or in docs/book/words.txt."""
    found = {page.name: words for page in PAGES if (words := unknown(words_of(page)))}
    assert not found, "correct these, or add them to docs/book/words.txt"
    assert unknown({"daemon", "datagram", "recieved"}) == {"recieved"}


def test_the_list_of_words_is_needed() -> None:
    """Each word of docs/book/words.txt stands in a document."""
    used = {word.lower() for page in PAGES for word in words_of(page)}
    assert [word for word in listed() if word.lower() not in used] == []


def test_common_misspellings() -> None:
    """codespell knows no misspelling in the program, its package and its documents."""
    command = ["codespell", "--quiet-level=2", "--ignore-words-list=nd,reenable,keep-alives"]
    found = subprocess.run(
        [*command, *CHECKED], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (found.stdout, found.returncode) == ("", 0)


def test_the_page_of_settings_is_the_one_that_the_pages_make() -> None:
    """If this fails: docs/book/make-settings >docs/settings.md."""
    command = [sys.executable, DOCS / "book/make-settings"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout == (DOCS / "settings.md").read_text()


NO_COMMANDS = {
    "docs/design.md": ["netsrvd/"],
    "docs/getting-started.md": ["$ nc localhost 51423", "10:04:11.507 info    echo: 127.0.0.1:"],
    "docs/handlers.md": ["[Service]", '[project.entry-points."netsrvd.services"]'],
    "docs/measuring.md": ["--- 192.0.2.1:862, stamp ---"],
    "docs/monitoring.md": [
        '{"daemons": [{"name": "netsrvd.service",',
        "netsrvd.service 1.0.0 runs for",
        "# /etc/prometheus/prometheus.yml",
        "# /etc/cron.d/netsrvd-metrics,",
    ],
    "docs/operating.md": ["# inetd.conf"],
}
"""How blocks begin that are output, parts of files, and files of other programs."""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_block_is_known(document: str) -> None:
    """A block of a document is of commands or a file, which tests/system/test_documents.py types
    and writes, or it is listed here.
    """
    found, known = [*others(document)], NO_COMMANDS.get(document, [])
    assert len(found) == len(known)
    assert [
        line for line, start in zip(found, known, strict=True) if not line.startswith(start)
    ] == []


def measurements() -> list[str]:
    """Return the commands of all documents that measure or test for minutes."""
    words = ("make ", "python -m tests.", ".venv/bin/python -m tests.", "NETSRVD=")
    commands = {step.command for document in DOCUMENTS for step in steps(document)}
    return sorted(command for command in commands if command.startswith(words))


def missing(command: str) -> set[str]:
    """Return what such a command needs and the repository lacks: a target, a module, an option."""
    words = re.sub(r"^\S+=", "", command).split()
    if "make" in words:
        dry = ["make", "--dry-run", *words[words.index("make") + 1 :]]
        environment = os.environ | {"MAKEFLAGS": ""}
        done = subprocess.run(dry, cwd=ROOT, env=environment, capture_output=True, check=False)
        return {*words} if done.returncode else set()
    module = ROOT / words[2].replace(".", "/")
    source = module.with_suffix(".py")
    if not source.exists():
        return {words[2]}
    options = {word for word in words if word.startswith("--")}
    return {option for option in options if f'"{option}"' not in source.read_text()}


@pytest.mark.parametrize("command", measurements())
def test_commands_that_take_minutes_would_run(command: str) -> None:
    """`make` has the target; the module is there and has the options."""
    assert missing(command) == set()


def test_a_command_that_would_not_run_is_found() -> None:
    """The test above sees targets, modules and options that are not there."""
    assert missing("make no-such")
    assert missing("python -m tests.bench.none") == {"tests.bench.none"}
    assert missing("python -m tests.bench.run --report --none") == {"--none"}


TEST_PATH = re.compile(r"(?<![\w./])tests/[\w/.-]+\w")
TEST_NAME = re.compile(r"\btest_\w+\b(?!\.py)")
MODULE = re.compile(r"`(\w[\w/]*\.py)\b")


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """Return the names of all tests."""
    sources = (ROOT / "tests").rglob("*.py")
    return {name for path in sources for name in re.findall(r"def (test_\w+)", path.read_text())}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_names_of_the_source_is_there(document: str, tests: set[str]) -> None:
    """Each file, folder and test that a document names as a proof or as a place exists."""
    text = (ROOT / document).read_text()
    assert {path for path in TEST_PATH.findall(text) if not (ROOT / path).exists()} == set()
    sources = [f"/{path.relative_to(ROOT)}" for path in ROOT.glob("[nt]*/**/*.py")]
    modules = MODULE.findall(text)
    assert {name for name in modules if not [p for p in sources if p.endswith(f"/{name}")]} == set()
    assert {*TEST_NAME.findall(TEST_PATH.sub("", text))} - tests == set()
