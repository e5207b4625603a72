"""netsrvd.staff"""

from collections.abc import Iterator

import pytest

from netsrvd.assembly import Services, build_reporter
from netsrvd.services import base
from netsrvd.settings import Settings
from netsrvd.staff import Staff
from tests.support.reports import Failures

WITHOUT = Services({}, base.Present())
HANDLED = Services({"lab": base.Service(base.Stream, base.Datagrams(), print)}, base.Present())


@pytest.fixture
def staff() -> Iterator[Staff]:
    failures = Failures()
    reporter = build_reporter(Settings(), "stderr", failures)
    made = Staff(Settings(workers=2), reporter, lambda: None, failures)
    yield made
    made.stop()
    reporter.duty.join()
    assert not failures.found


def test_handlers_are_hired_when_there_is_a_use_for_them(staff: Staff) -> None:
    """Once, by the first configuration that has one; they stay from then on."""
    assert staff.hire(WITHOUT) == []
    assert (staff.handlers, len(staff.all)) == (None, 2)
    assert staff.hire(HANDLED) == [staff.handlers] == [staff.all[2]]
    assert staff.hire(HANDLED) == []
