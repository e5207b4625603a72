"""netsrvd.config.files"""

import os
import tomllib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from netsrvd.config import files, schema
from netsrvd.config.files import Configuration, Sources
from netsrvd.errors import ConfigError
from netsrvd.settings import DEFAULT_PORT, Settings
from netsrvd.startup import VALIDATORS
from tests.support.configurations import SETTINGS
from tests.support.effort import in_proportion

DATA = Path(__file__).parents[2] / "data/config"
GOOD, BAD = (sorted((DATA / kind).glob("*.toml")) for kind in ("good", "bad"))

ONE_FOLDER = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
"""For property tests that write each example to the same file."""


@pytest.fixture
def main(tmp_path: Path) -> Path:
    """Return the path of a configuration file that is not there yet, its drop-ins' folder is."""
    (tmp_path / "conf.d").mkdir()
    return tmp_path / "netsrvd.toml"


def load(main: Path, text: str = "", **drop_ins: str) -> Configuration:
    """Read a configuration file of this text, with drop-ins by their names."""
    main.write_bytes(text.encode())
    for name, content in drop_ins.items():
        (main.parent / "conf.d" / f"{name}.toml").write_text(content)
    return files.load(main, VALIDATORS)


def problems(main: Path, text: str = "", **drop_ins: str) -> list[str]:
    """Return what is wrong with a configuration, a line each, without the folder's path."""
    with pytest.raises(ConfigError) as caught:
        load(main, text, **drop_ins)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return [each.replace(f"{main.parent}/", "") for each in caught.value.problems]


# --- files and where keys come from -----------------------------------------------------------


def test_the_default_file_may_be_missing(monkeypatch: pytest.MonkeyPatch, main: Path) -> None:
    """Without a configuration file there are the defaults; none of them comes from a file."""
    monkeypatch.setattr(files, "DEFAULT_FILE", main)
    found = files.load(None, VALIDATORS)
    assert (found.settings, found.files, found.sources.origins) == (Settings(), (), {})


def test_drop_ins_need_no_main_file(monkeypatch: pytest.MonkeyPatch, main: Path) -> None:
    """A drop-in counts even where the default file itself is missing."""
    monkeypatch.setattr(files, "DEFAULT_FILE", main)
    (main.parent / "conf.d/a.toml").write_text("workers = 2")
    assert files.load(None, VALIDATORS).settings == Settings(workers=2)


def test_a_named_file_may_not_be_missing(main: Path) -> None:
    """Who names a file means it."""
    with pytest.raises(ConfigError, match=r"netsrvd.toml: there is no such file$"):
        files.load(main, VALIDATORS)


def test_drop_ins_override_key_by_key(main: Path) -> None:
    """A drop-in changes the keys it has and no others; of two drop-ins the later name wins."""
    found = load(
        main,
        'workers = 1\n[log]\ntarget = "syslog"\nlevel = "error"\n[listener.echo]\nallow = ["any"]',
        b='[log]\nlevel = "debug"',
        a='workers = 2\n[log]\nlevel = "info"\n[listener.echo]\nallow = ["loopback"]',
    )
    assert (found.settings.workers, found.settings.log.target) == (2, "syslog")
    assert found.settings.log.level == "debug"
    assert found.settings.listeners[0].allow == ("loopback",)
    assert [file.name for file in found.files] == ["netsrvd.toml", "a.toml", "b.toml"]


def test_drop_ins_are_read_by_their_names(main: Path) -> None:
    """Whatever the order in which the folder lists them, the last name has the last word."""
    names = {name: f"workers = {number}" for number, name in enumerate("gbfahdce")}
    found = load(main, **names)
    assert [file.stem for file in found.files[1:]] == sorted(names)
    assert found.settings.workers == 4


def test_each_key_remembers_its_file(main: Path) -> None:
    """The effective configuration tells for each key from which file it is, or "default"."""
    found = load(
        main,
        'workers = 1\n[log]\ntarget = "syslog"\nlevel = "error"',
        a='[log]\nlevel = "debug"\n[listener.echo.options]\nSO_KEEPALIVE = true',
    )
    origins = dict(line.split("# ") for line in found.lines(VALIDATORS))
    by_key = {text.split(" = ")[0]: Path(origin).name for text, origin in origins.items()}
    told = {key: origin for key, origin in by_key.items() if origin != "default"}
    assert told == {
        "workers": "netsrvd.toml:1",
        "log.target": "netsrvd.toml:3",
        "log.level": "a.toml:2",
        "listener.echo.options.SO_KEEPALIVE": "a.toml:4",
    }
    assert by_key["listener.echo.port"] == "default"


def test_a_table_can_take_the_place_of_a_value(main: Path) -> None:
    """A drop-in mends a value that stood where a table belongs; its keys are then its own."""
    found = load(main, "log = 7", a='[log]\nlevel = "debug"')
    [line] = [line for line in found.lines(VALIDATORS) if line.startswith("log.level")]
    assert line.endswith("a.toml:2")


def test_hidden_files_and_other_names_are_no_drop_ins(main: Path) -> None:
    """What editors leave behind is not read."""
    load(main)
    for name in (".a.toml", "a.toml~", "a.toml.dpkg-new", "README"):
        (main.parent / "conf.d" / name).write_text("not TOML")
    assert files.load(main, VALIDATORS).files == (main,)


def test_a_file_that_cannot_be_read_is_a_fault(main: Path) -> None:
    """A drop-in that cannot be read is never taken for one that says nothing."""
    (main.parent / "conf.d/a.toml").mkdir()
    (main.parent / "conf.d/b.toml").symlink_to("nowhere")
    assert problems(main) == [
        "conf.d/a.toml: cannot be read: Is a directory",
        "conf.d/b.toml: there is no such file",
    ]


def test_a_folder_that_cannot_be_read_is_a_fault(main: Path) -> None:
    """Drop-ins that nobody can list are not taken for none: one may say who is to stay out."""
    (main.parent / "conf.d").rmdir()
    assert load(main).files == (main,)
    (main.parent / "conf.d").touch()
    assert problems(main) == ["conf.d: cannot be read: Not a directory"]


def test_faults_of_all_files_come_in_one_go(main: Path) -> None:
    """Each line names the file in which the wrong key stands, the key, the value and the remedy."""
    assert problems(
        main,
        "workers = 99\n[listener.echo]\nport = 7",
        a="[listener.echo]\nprot = 8",
        b="= 1",
        c="[listener.echo]\nport = 0",
    ) == [
        "conf.d/b.toml:1: not valid TOML: Invalid statement (column 1)",
        "netsrvd.toml:1: workers = 99: expected a whole number from 0 to 64",
        "conf.d/c.toml:2: listener.echo.port = 0: expected a port from 1 to 65535",
        'conf.d/a.toml:2: listener.echo.prot = 8: unknown key; did you mean "port"?',
    ]


def test_a_conflict_with_a_default_names_its_listener(main: Path) -> None:
    """Two listeners on one address: one fault, at the place of the second in its file."""
    [line] = problems(main, "# nothing\n[listener.lab]")
    assert line == (
        f"netsrvd.toml:2: listener.lab.port: port {DEFAULT_PORT} (tcp 0.0.0.0, tcp ::, "
        "udp 0.0.0.0, udp ::) is also wanted by listener echo; give one of them another port, "
        "host or interface"
    )


def test_nothing_served_by_default_is_nobodys_file(main: Path) -> None:
    """A fault without a key still names the file that caused it."""
    [line] = problems(main, "[listener.echo]\nenabled = false")
    assert line == "netsrvd.toml:1: listener: none is enabled, so nothing would be served"


# --- whatever the text ------------------------------------------------------------------------


def outcome(main: Path, text: str) -> Configuration | list[str]:
    """Return the configuration or the faults of a text; any other exception fails the test."""
    try:
        return load(main, text)
    except ConfigError as error:
        found = error.problems
    assert all(problem.isprintable() for problem in found)
    return found


TEXTS = [
    "workers = " + "9" * 5000,
    "workers = 0x" + "f" * 5000,
    "drain_timeout = " + "9" * 400,
    "drain_timeout = inf",
    "workers = " + "[" * 5000 + "]" * 5000,
    "workers = [{" + "a." * 3000 + "a = 1}]",
    "a." * 5000 + "a = 1",
    "workers = [2026-11-23T00:00:00Z, 1979-05-27, 07:32:00, nan]",
    '"\\u001b\\u0000" = "\\u202e\\u007f"',
    "[log]\nlevel = ['\x7f']",
]
"""Texts that a reader may stumble over."""


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_no_text_makes_the_reader_stumble(main: Path, text: str) -> None:
    """Numbers, nestings and characters that Python has limits for are faults like any other."""
    assert isinstance(outcome(main, text), list)


@ONE_FOLDER
@given(st.text())
def test_any_text_gives_settings_or_faults(main: Path, text: str) -> None:
    """Whatever a file holds, reading it gives settings or a ConfigError, and nothing else."""
    assert outcome(main, text)


@ONE_FOLDER
@given(st.binary())
@example(b"\xff")
def test_any_bytes_give_settings_or_faults(main: Path, data: bytes) -> None:
    """The same holds for files that are no text at all."""
    main.write_bytes(data)
    with suppress(ConfigError):
        files.load(main, VALIDATORS)


WHOLE = (DATA / "good/everything.toml").read_text()
PIECES = ["0", "-1", '"', "]", "[[", "=", "\n", "true", "{}", "[]", "1e400", "nan", "\x00", "é", ""]


@ONE_FOLDER
@given(
    st.integers(0, len(WHOLE)),
    st.integers(0, 12),
    st.sampled_from(PIECES) | st.text(max_size=3) | st.from_regex(r"[a-z_]+ = \S+\n"),
)
def test_any_mutation_gives_settings_or_faults(
    main: Path, start: int, length: int, piece: str
) -> None:
    """A valid file with any part of it replaced is either valid or has its faults told."""
    assert outcome(main, WHOLE[:start] + piece + WHOLE[start + length :])


@ONE_FOLDER
@given(SETTINGS)
def test_what_check_prints_means_the_same_settings(main: Path, given_settings: Settings) -> None:
    """The effective configuration is valid TOML; read as a file it gives the same settings."""
    text = "\n".join(Configuration(given_settings, (), Sources()).lines(VALIDATORS))
    assert load(main, text).settings == given_settings


def test_the_defaults_of_a_service_are_defaults(main: Path) -> None:
    """`check` shows what differs from them; what they are stands in `check --all`."""
    text = '[listener.m]\nservice = "metrics"\nport = 1\n'
    configuration = load(main, text)
    changed = [line.split()[0] for line in configuration.lines(VALIDATORS, without_defaults=True)]
    assert changed == ["listener.m.service", "listener.m.port"]
    every = [line.partition("  ")[0] for line in configuration.lines(VALIDATORS)]
    assert 'listener.m.allow = ["loopback"]' in every
    assert 'listener.echo.allow = ["local"]' in every


# --- the cost ---------------------------------------------------------------------------------


def numbered(pattern: str) -> Callable[[int], str]:
    """Return what repeats a pattern with the numbers from 1."""
    return lambda count: "".join(pattern % number for number in range(1, count + 1))


def listed(key: str, pattern: str) -> Callable[[int], str]:
    """Return what makes a list of numbered entries."""
    return lambda count: f"[listener.echo]\n{key} = [{numbered(pattern)(count)}]"


LARGE: dict[str, Callable[[int], str]] = {
    "unknown keys": numbered("worker%d = 1\n"),
    "unknown options": lambda n: "[listener.echo.options]\n" + numbered("SO_RCVBU%d = 1\n")(n),
    "listeners": lambda n: "".join(f"[listener.l{i}]\nport = {i}\n" for i in range(1, n + 1)),
    "listeners on one port": numbered("[listener.l%d]\n"),
    "addresses": listed("host", '"2001:db8::%x",'),
    "networks": listed("allow", '"2001:db8::%x",'),
    "no networks": listed("allow", '"192.0.2.%d/8",'),
    "no words": listed("protocols", '"tcp%d",'),
    "tables far below": lambda n: f"[{'a.' * 60}a]\n" + numbered("k%d = 1\n")(n),
}
"""Files that are long, in one way each."""


@pytest.mark.parametrize("kind", LARGE)
def test_the_effort_is_in_proportion(main: Path, kind: str) -> None:
    """Four times as long a file takes about four times as long to be read and checked, not 16."""

    def read(count: int) -> None:
        outcome(main, LARGE[kind](count))

    assert in_proportion(read, 20)


@pytest.mark.parametrize("kind", LARGE)
def test_the_answer_is_in_proportion(main: Path, kind: str) -> None:
    """What is printed of a long file, or complained of in it, is not much longer than the file."""

    def printed(count: int) -> int:
        found = outcome(main, LARGE[kind](count))
        return sum(map(len, found.lines(VALIDATORS) if isinstance(found, Configuration) else found))

    assert printed(400) < 6 * printed(100)


def test_a_long_list_does_not_widen_all_lines(main: Path) -> None:
    """The origins stand in one column, which a line of any length may break through."""
    lines = load(main, LARGE["networks"](100)).lines(VALIDATORS)
    long = [line for line in lines if len(line) > 200]
    assert [line.split(" = ")[0] for line in long] == ["listener.echo.allow"]
    columns = {line.index("  # ") for line in lines if line not in long}
    assert max(columns) <= files.WIDEST


def test_tables_below_all_settings_are_not_looked_into() -> None:
    """Each key is remembered with its whole path, so a path is no longer than settings have it."""
    origins: dict[tuple[str, ...], Path] = {}
    deep: dict[str, Any] = {"k": 1}
    for _ in range(60):
        deep = {"k": deep}
    files._merge({}, deep, (), Path(), origins)
    assert max(map(len, origins)) == files.DEEPEST
    assert max(len(path) for path, _ in schema.effective(Settings(), VALIDATORS)) == files.DEEPEST


def test_only_the_first_faults_have_hints(main: Path) -> None:
    """A file that is nothing but faults is complained of line by line, at a price that is fair."""
    found = problems(main, LARGE["unknown keys"](200))
    assert len(found) == 200
    assert [line for line in found if "did you mean" in line] == found[:100]
    assert found[150].endswith(" = 1: unknown key")


# --- files of tests/data ----------------------------------------------------------------------


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_files(path: Path) -> None:
    """Each file of data/config/good is valid, and so is what `check` makes of it."""
    found = files.load(path, VALIDATORS)
    assert found.files == (path,)
    assert tomllib.loads("\n".join(found.lines(VALIDATORS)))


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_files(path: Path) -> None:
    """Each file of data/config/bad has one fault, which its first line tells, at its line."""
    expected = path.read_text().splitlines()[0].removeprefix("# ")
    with pytest.raises(ConfigError) as caught:
        files.load(path, VALIDATORS)
    [fault] = caught.value.faults
    assert (fault.file, fault.text) == (str(path), expected)
    key = fault.key[-1].removesuffix("port") if fault.key else "port"
    assert key in path.read_text().splitlines()[fault.line - 1]
    assert caught.value.exit_status == os.EX_CONFIG
