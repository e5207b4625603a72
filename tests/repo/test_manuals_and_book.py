"""The manual pages and the book (README.md, docs/) say the same, as far as machines can tell."""

import re
import shlex
import signal
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsrvd.arguments import COMMANDS
from netsrvd.counters import REFUSED_REASONS, UNANSWERED_REASONS
from netsrvd.daemon import SIGNALS
from netsrvd.events import all_events
from netsrvd.services import SERVICES
from tests.support.documents import DOCUMENTS, ROOT, steps
from tests.support.manuals import Page, pages

PAGES = {str(page): page for page in pages()}
COMMAND, CONFIGURATION, OVERVIEW = map(
    PAGES.__getitem__, ("netsrvd(1)", "netsrvd.toml(5)", "netsrvd(7)")
)
BOOK = {name: (ROOT / name).read_text() for name in DOCUMENTS}
MANUALS = "\n".join(page.text for page in PAGES.values())
WHOLE_BOOK = "\n".join(BOOK.values())

ROW = re.compile(r"^\|(?P<cells>.*)\|$", re.MULTILINE)
SECTIONS = {"top": "GLOBAL SETTINGS", "[log]": "LOG SETTINGS", "listener": "LISTENERS"}


def rows(text: str, *headings: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables whose first headings are these."""
    is_ours = False
    for line in text.splitlines():
        if not (found := ROW.match(line)):
            is_ours = False
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", found["cells"])]
        if cells[: len(headings)] == list(headings):
            is_ours = True
        elif is_ours and not set(line) <= set("|-: "):
            yield cells


def code(cell: str) -> list[str]:
    """Return the words of a cell that are code."""
    return re.findall(r"`([^`]+)`", cell)


def settings(text: str) -> Iterator[tuple[str, str]]:
    """Yield each setting of the tables of a document, with its default."""
    for cells in rows(text, "setting", "default"):
        yield from zip(code(cells[0]), code(cells[1]), strict=True)
    for key, _, default, *_ in rows(text, "setting", "in", "default"):
        yield from zip(code(key), code(default), strict=True)


def toml(value: str) -> object:
    """Return the value that a text of TOML means."""
    return tomllib.loads(f"value = {value}")["value"]


def test_settings_and_their_defaults() -> None:
    """Each table of settings has the defaults of netsrvd.toml(5), and together they have all."""
    known: dict[str, list[object]] = {}
    for heading in SECTIONS.values():
        for key, value in CONFIGURATION.defaults(heading):
            known.setdefault(key, []).append(toml(value))
    shown = [(key, value) for text in BOOK.values() for key, value in settings(text)]
    assert {key for key, _ in shown} == known.keys() - {"workers"}
    for key, value in shown:
        assert toml(value) in known[key], (key, value)


def test_where_a_setting_stands() -> None:
    """The book has each setting in the table of the configuration where netsrvd.toml(5) has it."""
    listed = {
        (code(key)[0], SECTIONS[place])
        for text in BOOK.values()
        for key, places, *_ in rows(text, "setting", "in", "default")
        for place in places.replace("`", "").split(", ")
    }
    known = {(key, each) for each in SECTIONS.values() for key, _ in CONFIGURATION.defaults(each)}
    assert listed == known - {("workers", "GLOBAL SETTINGS")}


def test_services() -> None:
    """The table of services has those of netsrvd(7), and handlers."""
    listed = [code(cells[0])[0] for cells in rows(WHOLE_BOOK, "service", "RFC")]
    assert [each for each in listed if ":" not in each] == sorted(SERVICES, key=listed.index)
    assert {each for each in listed if ":" not in each} == OVERVIEW.entries("SERVICES")


def test_reasons() -> None:
    """Each reason of a refusal that netsrvd(7) explains is a symptom in the book, and no other."""
    named = {*re.findall(r'"refused: ([a-z-]+)"', WHOLE_BOOK)}
    assert named == {*REFUSED_REASONS, *UNANSWERED_REASONS}
    assert named == OVERVIEW.entries("LOG RECORDS", "Reasons of a refusal")
    ends = {*re.findall(r'"closed: ([a-z-]+)"', WHOLE_BOOK)}
    assert ends
    assert ends <= OVERVIEW.entries("LOG RECORDS", "Reasons of an end")


def test_exit_statuses() -> None:
    """An exit status in the book is one of netsrvd(1), that of a start one of netsrvd-run(1)."""
    assert {int(each) for each in re.findall(r"\bstatus (\d+)\b", WHOLE_BOOK)} <= COMMAND.statuses()
    starts = {
        int(each) for each in re.findall(r"fails (?:at once |again )?with status (\d+)", WHOLE_BOOK)
    }
    assert starts
    assert starts <= PAGES["netsrvd-run(1)"].statuses()
    unit = (ROOT / "systemd/netsrvd.service").read_text()
    [prevented] = re.findall(r"^RestartPreventExitStatus=(.*)$", unit, re.MULTILINE)
    *first, last = prevented.split()
    sentence = f"all failures but {', '.join(first)} and {last}, which"
    assert sentence in PAGES["netsrvd-run(1)"].text.replace("\n", " ")


def test_signals() -> None:
    """netsrvd(7) explains each signal that the daemon handles, and no other; the book names no
    signal besides, but for the one that nothing handles.
    """
    explained = {
        word
        for entry in OVERVIEW.lines("It", "SIGNALS")
        for word in entry
        if word.startswith("SIG")
    }
    assert explained == {signal.Signals(each).name for each in SIGNALS}
    assert {*re.findall(r"\bSIG[A-Z]+\d?\b", WHOLE_BOOK)} - {"SIGNAL"} <= explained | {"SIGKILL"}


def units(text: str) -> set[str]:
    """Return the units of systemd that a text names, those of instances as their templates."""
    names = re.findall(r"\bnetsrvd[\w@:*-]*\.(?:service|socket)\b", text)
    return {re.sub(r"@[\w*]*", "@", each) for each in names}


def test_units() -> None:
    """netsrvd(7) names each unit that is installed; the book names none that the pages do not."""
    installed = {path.name for path in (ROOT / "systemd").glob("netsrvd*.s*") if path.is_file()}
    assert units(OVERVIEW.sections()["SYNOPSIS"]) == installed
    assert units(OVERVIEW.text) >= installed
    of_listeners = re.compile(r"netsrvd-(?:LISTENER|echo|\*)")
    others = {each for each in units(WHOLE_BOOK) if not of_listeners.match(each)}
    assert others <= units(MANUALS)


DOCUMENTS = "/usr/share/doc/netsrvd/"
EXAMPLES_OF_FILES = re.compile(
    r"/etc/netsrvd/conf\.d/[\w-]+\.toml|/usr/local/lib/netsrvd/\w+\.py|/etc/(?:cron|xinetd)\.d/.*"
    r"|/run/netsrvd\.pid|/run/netsrvd-control@NAME\.sock|/usr/bin/netsrvd"
)
"""Files of a reader's own, which the book writes, and the command."""


def files(text: str) -> set[str]:
    """Return the files and folders with the program's name in their paths."""
    found = re.findall(r"(?<![\w~.])/(?:etc|run|var|usr)/[\w/@.*-]*netsrvd[\w/@.*-]*", text)
    return {each.rstrip("./") for each in found}


def test_files() -> None:
    """The book names no file of the program that the pages do not name."""
    ours = {each for each in files(WHOLE_BOOK) if not EXAMPLES_OF_FILES.fullmatch(each)}
    ours = {each for each in ours if not each.startswith(DOCUMENTS)}
    known = files(MANUALS) | {
        str(parent) for each in files(MANUALS) for parent in Path(each).parents
    }
    assert ours <= known


def test_files_of_the_pages() -> None:
    """Each file that a page names stands in the program, in a unit, or in what packages install."""
    folders = ("netsrvd/**/*.py", "systemd/*", "debian/*", "packaging/*")
    found = [path for pattern in folders for path in ROOT.glob(pattern) if path.is_file()]
    sources = "\n".join(path.read_text() for path in found)
    for each in files(MANUALS):
        if EXAMPLES_OF_FILES.fullmatch(each) or each.startswith(DOCUMENTS):
            continue
        beginning = re.split(r"[*@:]|LISTENER|undone", each)[0].rstrip("/")
        place = beginning if each.startswith(("/run", "/var")) else Path(beginning).name
        assert place in sources, each


def test_documents_are_installed() -> None:
    """Each document and example that a page or the book names by its path is installed."""
    documents = {Path(each).name for each in (ROOT / "debian/netsrvd.docs").read_text().split()}
    examples = ROOT / "packaging/examples"
    for each in files(MANUALS + WHOLE_BOOK):
        name = each.removeprefix(DOCUMENTS)
        if each.startswith(f"{DOCUMENTS}examples"):
            assert (examples / name.removeprefix("examples").lstrip("/")).exists(), each
        elif name.startswith("html"):
            assert (ROOT / "docs" / name.removeprefix("html/").replace(".html", ".md")).exists()
        elif each.startswith(DOCUMENTS):
            assert name in documents, each


def test_fields() -> None:
    """Each field of records that the pages or the book name is one of a record."""
    known = {f"NETSRVD_{name.upper()}" for event in all_events() for name in event.FIELDS}
    known |= {f"{name}_REASONS" for name in known}
    variables = {entry for line in OVERVIEW.lines("Ev") for entry in line} | {
        word for entry in OVERVIEW.lines("It", "ENVIRONMENT") for word in entry
    }
    for text in (MANUALS, WHOLE_BOOK):
        named = {*re.findall(r"\bNETSRVD_[A-Z_]+\b", text)}
        assert named - known - variables == set()


def command_lines() -> list[str]:
    """Return the command lines of the program in the book."""
    typed = [step.command for name in BOOK for step in steps(name) if step.command]
    lines = [part.strip() for each in typed for part in re.split(r"&&|\||;|>", each)]
    return sorted({each for each in lines if each.startswith("netsrvd ")})


@pytest.mark.parametrize("line", command_lines())
def test_options_of_the_book(line: str) -> None:
    """Each option of a command in the book is one of the command's page."""
    _, command, *arguments = shlex.split(line)
    if command.startswith("-"):
        assert command in {"--help", "--version"}
        return
    assert command in COMMANDS
    page: Page = PAGES[f"netsrvd-{command}(1)"]
    known = {flag for each in page.options() for flag in each.flags}
    fping = arguments.index("--fping") if "--fping" in arguments else len(arguments)
    used = {each.partition("=")[0] for each in arguments[:fping] if re.match(r"--?[a-zA-Z]", each)}
    assert used <= known
