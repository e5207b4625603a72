"""bash, zsh and fish propose what the parser of the command line takes, no more and no less."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from netsrvd import arguments
from tests.functional.conftest import Start
from tests.support.run import COMMAND
from tests.support.shells import HOST, RUN, proposals

SHELLS = sorted(RUN)
ENVIRONMENT = {"PATH": f"{COMMAND.parent}:{os.defpath}", "LANG": "C.UTF-8"}
CONFIGURATION = '[listener.alpha]\nport = 51500\n[listener."beta.2"]\nport = 51501\n'
LISTENERS = {"alpha", "beta.2", "echo"}
VALUES = {"user": "root", "interface": "lo", "targets": HOST}
"""What there is everywhere, for arguments whose values a shell can find."""


def parsers(
    parser: argparse.ArgumentParser | None = None, words: str = "netsrvd"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the parser of each command, with the words that lead there."""
    parser = parser or arguments.parser()
    yield words, parser
    for name, below in verbs(parser).items():
        yield from parsers(below, f"{words} {name}")


def verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of the commands below a command."""
    return {
        name: below
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, below in action.choices.items()
    }


def shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments that are no secret."""
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


PARSERS = dict(parsers())
OPTIONS = {
    f"{words} {flag} ": action
    for words, parser in PARSERS.items()
    for action in shown(parser)
    for flag in action.option_strings
    if action.nargs != 0
}
"""The lines on which the value of an option is next."""
POSITIONALS = {
    f"{words} ": action
    for words, parser in PARSERS.items()
    for action in shown(parser)
    if action is next((each for each in parser._actions if not each.option_strings), None)
    and not isinstance(action, argparse._SubParsersAction)
}
"""The lines on which the first positional argument is next."""
WITH_FILE = {
    line.replace(f"{words} ", f"{words} {how}x.toml ", 1): line
    for words, parser in PARSERS.items()
    if "--config" in parser._option_string_actions
    for line, action in (OPTIONS | POSITIONALS).items()
    if action.dest == "listener" and line.startswith(f"{words} ")
    for how in ("-c ", "--config ", "--config=")
}
"""The lines on which a listener of a file is next."""
AFTER = {
    f"{line}run --": line.rpartition(" --")[0]
    for line, action in OPTIONS.items()
    if " --" in line and action.nargs is None
}
"""The lines on which the value of an option looks like a command."""


@pytest.fixture(scope="module", params=SHELLS)
def proposed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, set[str]]:
    """Ask a shell about all lines of this module at once."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "x.toml").write_text(CONFIGURATION)
    begun = [f"{words} {end}" for words in PARSERS for end in ("", "-", "--")]
    lines = [*begun, *OPTIONS, *POSITIONALS, *WITH_FILE, *AFTER]
    return proposals(request.param, lines, folder, ENVIRONMENT)


def long_options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the long options that a command has."""
    flags = [flag for action in shown(parser) for flag in action.option_strings]
    return {flag for flag in flags if flag.startswith("--")}


def short_options(parser: argparse.ArgumentParser) -> set[str]:
    """Return the short options that a command has."""
    flags = {flag for action in shown(parser) for flag in action.option_strings}
    return flags - long_options(parser)


def plain(words: set[str]) -> set[str]:
    """Return the words that are no options: bash proposes both without a hyphen, too."""
    return {word for word in words if not word.startswith("-")}


def test_every_command_and_no_other(proposed: dict[str, set[str]]) -> None:
    """Where a command is next, the commands of the parser are proposed."""
    for words, parser in PARSERS.items():
        if verbs(parser):
            assert plain(proposed[f"{words} "]) == {*verbs(parser)}, words
    assert "run" in proposed["netsrvd "]


@pytest.mark.parametrize("words", PARSERS)
def test_every_option_and_no_other(
    proposed: dict[str, set[str]], words: str, request: pytest.FixtureRequest
) -> None:
    """Behind two hyphens all long options of the command are proposed, behind one the short ones as
    well (bash: the long ones).
    """
    wanted = long_options(PARSERS[words])
    assert "--help" in wanted
    assert proposed[f"{words} --"] == wanted
    is_bash = "[bash" in request.node.name
    short = set() if is_bash else short_options(PARSERS[words])
    assert proposed[f"{words} -"] == wanted | short


@pytest.mark.parametrize("line", [*OPTIONS, *POSITIONALS])
def test_every_value_that_a_shell_can_know(proposed: dict[str, set[str]], line: str) -> None:
    """For a value there are its choices, files, users, interfaces or listeners; nothing else is
    made up.
    """
    action = (OPTIONS | POSITIONALS)[line]
    words = plain(proposed[line])
    if action.choices:
        assert words == {str(choice) for choice in action.choices}
    elif action.type is Path or action.dest == "control":
        assert "x.toml" in words
    elif action.dest in VALUES:
        assert VALUES[action.dest] in words
    elif action.dest == "listener":
        assert words == {"echo"}
    elif action.dest != "pid":
        assert words == set()


@pytest.mark.parametrize("line", WITH_FILE)
def test_listeners_of_the_file_that_the_line_names(
    proposed: dict[str, set[str]], line: str
) -> None:
    """With -c or --config the listeners of that file are proposed."""
    assert plain(proposed[line]) == LISTENERS


@pytest.mark.parametrize("line", AFTER)
def test_the_value_of_an_option_is_no_command(proposed: dict[str, set[str]], line: str) -> None:
    """An option whose value is the name of a command leaves the line at its own command."""
    before = AFTER[line]
    given = OPTIONS[line.removesuffix("run --")].option_strings
    assert {*proposed[line], *given} >= long_options(PARSERS[before]) - excluded(before, given)
    assert proposed[line] <= long_options(PARSERS[before])


def excluded(words: str, given: list[str]) -> set[str]:
    """Return the options that cannot be given together with one."""
    groups = [group._group_actions for group in PARSERS[words]._mutually_exclusive_groups]
    together = [group for group in groups if any(each.option_strings == given for each in group)]
    return {flag for group in together for each in group for flag in each.option_strings}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_daemons_that_run(start: Start, tmp_path: Path, shell: str) -> None:
    """`netsrvd reload` is proposed the process IDs of running daemons."""
    run = start()
    line = "netsrvd reload "
    assert str(run.pid) in proposals(shell, [line], tmp_path, ENVIRONMENT)[line]
