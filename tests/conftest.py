"""What holds for the suite as a whole: where CI is set, nothing passes by not being run."""

import os
import signal
from pathlib import Path

import pytest

TIERS = ("repo", "unit", "integration", "functional", "system")
SUITES = ("bookworm", "trixie")
"""The releases of Debian that the system tests boot."""

ROOT = Path(__file__).parent

# A shell starts what runs in its background with Ctrl-C ignored, and the programs under test would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# numpy, which matplotlib imports, would start threads that block no signal, so that a signal that a
# test sends to itself would end the run.
os.environ["OPENBLAS_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that divide the tests among runs at the same time."""
    text = "of the system tests only those of this release, with the first also those of none"
    parser.addoption("--suite", choices=SUITES, help=text)
    text = "every second module, from the first or from the second one"
    parser.addoption("--half", choices=(1, 2), type=int, help=text)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests of other releases and of the other half."""
    suite, half = config.getoption("suite"), config.getoption("half")
    modules = sorted({item.path for item in items})
    mine = {*(modules[half - 1 :: 2] if half else modules)}
    kept, others = [], []
    for item in items:
        is_other = suite and tier_of(item) == "system" and suite_of(item) != suite
        (others if is_other or item.path not in mine else kept).append(item)
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = kept


def tier_of(item: pytest.Item) -> str:
    """Return the folder of a test in tests/."""
    return item.path.relative_to(ROOT).parts[0]


def suite_of(item: pytest.Item) -> str:
    """Return the release that a test boots, the first for a test that boots none or all."""
    call = getattr(item, "callspec", None)
    return call.params.get("machine", SUITES[0]) if call else SUITES[0]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if a whole run lacks a tier that it does not ignore on purpose."""
    config = session.config
    whole = config.args in ([str(ROOT)], ["tests"])
    found = {tier_of(item) for item in session.items}
    ignored = {Path(each).name for each in config.getoption("ignore") or ()}
    missing = {*TIERS} - found - ignored
    if os.environ.get("CI") and whole and missing:
        pytest.exit(f"no tests in: {', '.join(missing)}", returncode=1)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if a test was skipped, or failed as it was expected to."""
    log_writer = session.config.pluginmanager.get_plugin("terminalreporter")
    unproven = [each for kind in ("skipped", "xfailed") for each in log_writer.stats.get(kind, ())]
    if os.environ.get("CI") and unproven and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
