"""What holds for the suite as a whole: where CI is set, nothing passes by not being run."""

import os
import signal
from pathlib import Path

import pytest

TIERS = ("repo", "unit", "integration", "functional", "system")
ROOT = Path(__file__).parent

# A shell starts what runs in its background with Ctrl-C ignored, and the programs under test would
# inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail if a whole run lacks a tier."""
    whole = session.config.args in ([str(ROOT)], ["tests"])
    found = {item.path.relative_to(ROOT).parts[0] for item in session.items}
    if os.environ.get("CI") and whole and not found.issuperset(TIERS):
        pytest.exit(f"no tests in: {', '.join(set(TIERS) - found)}", returncode=1)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if a test was skipped, or failed as it was expected to."""
    log_writer = session.config.pluginmanager.get_plugin("terminalreporter")
    unproven = [each for kind in ("skipped", "xfailed") for each in log_writer.stats.get(kind, ())]
    if os.environ.get("CI") and unproven and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
