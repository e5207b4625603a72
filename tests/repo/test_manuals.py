"""The manual pages have what the program has, and no complaint of the programs that show them."""

import argparse
import inspect
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from netsrvd import arguments, startup
from netsrvd.commands import explain, status, thresholds
from netsrvd.config import files, schema
from netsrvd.control import interface
from netsrvd.counters import CLOSED_REASONS, ENDED_REASONS, REFUSED_REASONS, UNANSWERED_REASONS
from netsrvd.probe import fping, report
from netsrvd.services import SERVICES
from netsrvd.settings import DEFAULT_OPTIONS, ListenerSettings, LogSettings, Settings
from tests.support.exit_statuses import reachable
from tests.support.manuals import FOLDER, Page, pages, plain

PAGES = pages()
BY_NAME = {str(page): page for page in PAGES}
COMMAND, CONFIGURATION, OVERVIEW = map(
    BY_NAME.__getitem__, ("netsrvd(1)", "netsrvd.toml(5)", "netsrvd(7)")
)

HEADINGS = ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO"]
HEADINGS_OF_COMMANDS = [*HEADINGS, "OPTIONS", "EXIT STATUS"]

OF_OTHERS = {
    *(("daemon", "7"), ("ip", "7"), ("ipv6", "7"), ("socket", "7"), ("tcp", "7"), ("udp", "7")),
    *(("fortune", "6"), ("fping", "8"), ("inetd", "8"), ("journalctl", "1"), ("nc", "1")),
    *(("ping", "8"), ("sd-daemon", "3"), ("sd_listen_fds", "3"), ("sd_notify", "3")),
    *(("sd_watchdog_enabled", "3"), ("systemctl", "1"), ("systemd", "1"), ("systemd.exec", "5")),
    *(("systemd.socket", "5"), ("tcpserver", "1"), ("ufw", "8"), ("varlinkctl", "1")),
    ("xinetd", "8"),
}
"""Pages of other packages of Debian."""


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by the name of its page."""
    top = arguments.parser()
    [commands] = [each.choices for each in top._actions if isinstance(each.choices, dict)]
    return {f"netsrvd-{name}": parser for name, parser in commands.items()}


PARSERS = parsers()
OF_COMMANDS = {page.name: page for page in PAGES if page.section == "1" and page is not COMMAND}


def flags(parser: argparse.ArgumentParser) -> dict[str, bool]:
    """Return the options of a parser, and whether each takes a value."""
    actions = parser._actions
    return {flag: action.nargs != 0 for action in actions for flag in action.option_strings}


def test_each_command_has_a_page() -> None:
    """There is a page for each command, and for no other word; netsrvd(1) refers to all."""
    assert OF_COMMANDS.keys() == PARSERS.keys()
    assert {name for name, section in COMMAND.references() if section == "1"} == PARSERS.keys()


@pytest.mark.parametrize("name", PARSERS)
def test_the_list_of_options_is_that_of_the_parser(name: str) -> None:
    """The page of a command has an entry for each option, and no other, with a value if it takes
    one.
    """
    listed = {flag: each.takes_value for each in OF_COMMANDS[name].options() for flag in each.flags}
    assert listed == flags(PARSERS[name])


@pytest.mark.parametrize("name", PARSERS)
def test_the_synopsis_is_that_of_the_parser(name: str) -> None:
    """The synopsis has each option, by one of its names, and each argument, and no other."""
    page, known = OF_COMMANDS[name], flags(PARSERS[name])
    shown = {flag: each.takes_value for each in page.synopsis() for flag in each.flags}
    assert shown.items() <= known.items()
    for action in PARSERS[name]._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        if action.option_strings:
            assert {*action.option_strings} & {*shown}, action.option_strings
        else:
            names = action.choices or [str(action.metavar or action.dest).split("[")[0]]
            assert {*names} <= page.synopsis_words()


def test_the_command_itself_has_its_options() -> None:
    """netsrvd(1) has the options of the command without a subcommand, and those that several
    subcommands share with the subcommands that have each.
    """
    own = flags(arguments.parser())
    shared = {each.flags[0]: each.takes_value for each in COMMAND.options()}
    assert own.items() <= shared.items()
    for flag in shared.keys() - own.keys():
        having = [name for name, parser in PARSERS.items() if flag in flags(parser)]
        assert len(having) > 1, flag
        text = COMMAND.text.split(f"Fl {flag[1:]}", 1)[1]
        [named, *_] = [line for line in text.splitlines() if line.startswith(".Pq Cm ")]
        expected = {name.removeprefix("netsrvd-") for name in having}
        if flag == "--control":
            expected.remove("run")  # it binds the socket that the others ask at
        assert {*re.findall(r"[a-z]+", named.removeprefix(".Pq Cm "))} == expected


SETTINGS = {
    "GLOBAL SETTINGS": (schema.GLOBAL_RULES, Settings()),
    "LOG SETTINGS": (schema.LOG_RULES, LogSettings()),
    "LISTENERS": (schema.listener_rules(startup.VALIDATORS), ListenerSettings("echo")),
}
"""The settings in a section of netsrvd.toml(5), and their defaults."""


@pytest.mark.parametrize("heading", SETTINGS)
def test_settings_and_their_defaults_are_those_of_the_schema(heading: str) -> None:
    """netsrvd.toml(5) has an entry for each setting, and no other, with its default."""
    rules, defaults = SETTINGS[heading]
    shown = dict(CONFIGURATION.defaults(heading))
    if heading == "LISTENERS":
        assert shown.pop("enabled") == "true"
    assert shown.keys() == {rule.key for rule in rules}
    for rule in rules:
        written = tomllib.loads(f"value = {shown[rule.key]}")["value"]
        assert rule.kind.read(written) == getattr(defaults, rule.field), rule.key


def written(bound: float, kind: str) -> set[str]:
    """Return how a page may write a bound of a setting: of a duration, a size or another number."""
    forms = {f"{bound:g}", f"{bound:,.0f}", f"{bound:.0f}"} if kind != "duration" else set()
    if kind == "size":
        forms |= {f"{bound / 1024**power:.0f}{unit}" for power, unit in enumerate("KMG", start=1)}
    if kind == "duration":
        units = {"ms": 0.001, "s": 1, "h": 3600, "d": 86400}
        forms = {f"{bound / seconds:g} {unit}" for unit, seconds in units.items()}
        forms |= {"0"} if bound == 0 else set()
    return forms


RANGES = [
    (heading, rule.key, bounds["low"], bounds["high"], rule.kind.read.__qualname__.split(".")[0])
    for heading, (rules, _) in SETTINGS.items()
    for rule in rules
    if "low" in (bounds := inspect.getclosurevars(rule.kind.read).nonlocals)
]


@pytest.mark.parametrize(("heading", "key", "low", "high", "kind"), RANGES)
def test_ranges_are_those_of_the_schema(
    heading: str, key: str, low: float, high: float, kind: str
) -> None:
    """netsrvd.toml(5) says from which to which value a setting may be."""
    text = CONFIGURATION.entry(heading, key)
    ranges = {f"from {a} to {b}" for a in written(low, kind) for b in written(high, kind)}
    assert any(re.search(rf"{re.escape(each)}(?!\d)", text) for each in ranges), (text, ranges)


def test_ranges_are_found() -> None:
    """The test above looks at each kind of setting with a range."""
    assert {kind for *_, kind in RANGES} == {"duration", "integer", "integers", "size"}
    assert len(RANGES) > 25


def test_examples_of_the_configuration_are_valid(tmp_path: Path) -> None:
    """The examples of netsrvd.toml(5), one drop-in after the other, are configurations without
    faults.
    """
    main = tmp_path / "netsrvd.toml"
    main.touch()
    (tmp_path / "conf.d").mkdir()
    examples = CONFIGURATION.displays()
    assert len(examples) > 2
    for number, text in enumerate(examples):
        (tmp_path / f"conf.d/{number}.toml").write_text(text)
        assert files.load(main, startup.VALIDATORS).files[-1].name == f"{number}.toml"


def test_options_that_are_set_by_default() -> None:
    """netsrvd.toml(5) names each socket option that is set by default, with its value."""
    text = CONFIGURATION.sections()["LISTENERS"].split(".Ss Socket options\n")[1]
    shown = tomllib.loads("\n".join(re.findall(r"^\.Li (\w+ = \w+)", text, re.MULTILINE)))
    assert shown == DEFAULT_OPTIONS


def test_defaults_of_services() -> None:
    """netsrvd.toml(5) has the defaults of a listener that are others for its service."""
    text = plain(CONFIGURATION.sections()["SERVICES"])
    for service, defaults in schema.SERVICE_DEFAULTS.items():
        entry = text.split(f".It Li {service}\n")[1].split("\n.It ")[0]
        shown = dict(re.findall(r'^\.Li (\w+) = "(\w+)"', entry, re.MULTILINE))
        assert {key: (value,) for key, value in shown.items()} == defaults


def test_services_are_those_of_the_program() -> None:
    """netsrvd(7) and netsrvd.toml(5) have an entry for each service, and no other."""
    assert OVERVIEW.entries("SERVICES") == {*SERVICES}
    described = {each for each in CONFIGURATION.entries("SERVICES") if ":" not in each}
    assert described == {*SERVICES}


def test_methods_are_those_of_the_control_socket() -> None:
    """netsrvd(7) says what each method of the interface does, and has no other."""
    methods = {*re.findall(r"^method (\w+)", interface.text(), re.MULTILINE)}
    assert OVERVIEW.entries("CONTROL SOCKET") == methods


def test_reasons_are_those_of_the_program() -> None:
    """netsrvd(7) explains each reason of an end and of a refusal."""
    ends = {*CLOSED_REASONS, *ENDED_REASONS, "lost"}
    assert OVERVIEW.entries("LOG RECORDS", "Reasons of an end") == ends
    refusals = {*REFUSED_REASONS, *UNANSWERED_REASONS}
    assert OVERVIEW.entries("LOG RECORDS", "Reasons of a refusal") == refusals


@pytest.mark.parametrize("name", PARSERS)
def test_help_texts_have_one_form(name: str) -> None:
    """Each argument has a help text: a phrase that begins with a small letter, if its first word is
    no name, and ends without a full stop.
    """
    for action in PARSERS[name]._actions:
        text = action.help or ""
        assert text, action.dest
        first = text.split()[0]
        assert first.islower() or not first.istitle(), text
        assert not text.endswith("."), text


CAUGHT = {("check", 69): "comparison.compare makes it a note"}
"""Errors that do not end the command by whose function they are raised."""

PLUGIN = {thresholds.OK, thresholds.WARNING, thresholds.CRITICAL, thresholds.UNKNOWN}
LOWEST = {
    "explain": {0, explain.REFUSED},
    "status": {0, status.NOT_RUNNING, *PLUGIN},
    "top": {0, status.NOT_RUNNING},
    "probe": {
        *(report.ALL_ANSWER, report.SOME_ANSWER, report.NONE_ANSWERS),
        *(*PLUGIN, fping.BAD_ARGUMENTS, fping.SYSTEM_ERROR),
    },
}
"""Statuses below those of sysexits.h, where there are others than 0."""


@pytest.mark.parametrize("name", PARSERS)
def test_exit_statuses_are_those_of_the_code(name: str) -> None:
    """The page of a command has each exit status that its code can return, and no other."""
    command = name.removeprefix("netsrvd-")
    raised = {each for each in reachable(command) if (command, each) not in CAUGHT}
    assert OF_COMMANDS[name].statuses() == raised | LOWEST.get(command, {0})


def test_errors_that_are_caught_would_be_reached() -> None:
    """The table of errors that do not end a command has none that is not needed."""
    assert all(each in reachable(command) for command, each in CAUGHT)


def test_the_command_itself_has_all_exit_statuses() -> None:
    """netsrvd(1) has each exit status of a page, but for one that only fping(8) knows."""
    every = set().union(*(page.statuses() for page in OF_COMMANDS.values()))
    assert COMMAND.statuses() == every - {fping.SYSTEM_ERROR}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_each_page_has_the_usual_sections(page: Page) -> None:
    """A page begins as those of other programs, and ends with files, examples and references."""
    wanted = HEADINGS_OF_COMMANDS if page.section == "1" else HEADINGS
    assert {*wanted} - page.sections().keys() == set()
    assert page.text.count(f"\n.Dt {page.name.upper()} {page.section}\n") == 1
    assert page.examples() or ".Bd -literal" in page.sections()["EXAMPLES"]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_references_lead_to_pages(page: Page) -> None:
    """A reference leads to one of our pages, or to a known one of another package."""
    ours = {(each.name, each.section) for each in PAGES}
    assert page.references() - ours - OF_OTHERS == set()


def test_every_page_of_others_is_referred_to() -> None:
    """The table of foreign pages has none that is not needed."""
    assert OF_OTHERS - {each for page in PAGES for each in page.references()} == set()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_mandoc_has_no_complaint(page: Page) -> None:
    """mandoc(1) of Debian finds no fault of style in the page. The other tests look at references,
    as mandoc knows the pages that are installed here alone.
    """
    file = FOLDER / f"{page.name}.{page.section}"
    lint = ["mandoc", "-Tlint", "-W", "style", file]
    done = subprocess.run(lint, stdout=subprocess.PIPE, text=True, check=False)
    complaints = [line for line in done.stdout.splitlines() if "manual not found" not in line]
    assert complaints == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_man_has_no_warning(page: Page) -> None:
    """man(1), which uses groff, shows the page without a warning, and its headings as written."""
    file = FOLDER / f"{page.name}.{page.section}"
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "--local-file", file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    shown = {line.strip() for line in done.stdout.splitlines()}
    assert {*re.findall(r"^\.S[hs] (.*)$", page.text, re.MULTILINE)} <= shown


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Put the pages where man(1) looks below a prefix."""
    folder = tmp_path_factory.mktemp("share")
    for page in PAGES:
        place = folder / f"man{page.section}"
        place.mkdir(exist_ok=True)
        (place / f"{page.name}.{page.section}").write_text(page.text)
    return folder


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (["netsrvd"], "man1/netsrvd.1"),
        (["7", "netsrvd"], "man7/netsrvd.7"),
        (["netsrvd.toml"], "man5/netsrvd.toml.5"),
        (["netsrvd", "run"], "man1/netsrvd-run.1"),
    ],
    ids=" ".join,
)
def test_man_shows_the_right_page(share: Path, asked: list[str], shown: str) -> None:
    """`man netsrvd` shows the command, `man 7 netsrvd` the overview."""
    found = subprocess.check_output(["man", "-M", share, "--where", *asked], text=True)
    assert found.splitlines()[0] == str(share / shown)
