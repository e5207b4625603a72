"""netsrvd.errors"""

import os

import pytest

from netsrvd import errors
from netsrvd.errors import NetsrvdError

STATUSES = {
    NetsrvdError: os.EX_SOFTWARE,
    errors.HostError: os.EX_NOHOST,
    errors.UsageError: os.EX_USAGE,
    errors.ConfigError: os.EX_CONFIG,
    errors.ControlError: os.EX_UNAVAILABLE,
    errors.SocketError: os.EX_UNAVAILABLE,
    errors.PrivilegeError: os.EX_NOPERM,
    errors.ResourceError: os.EX_OSERR,
    errors.ActivationError: os.EX_CONFIG,
    errors.SystemdError: os.EX_UNAVAILABLE,
    errors.DetachError: os.EX_CANTCREAT,
    errors.FileError: os.EX_IOERR,
    errors.DependencyError: os.EX_SOFTWARE,
}


def test_every_error_has_its_status() -> None:
    """The exit statuses are those of sysexits(3), and no error is without one."""
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ]
    assert {kind: kind.exit_status for kind in kinds} == STATUSES


@pytest.mark.parametrize("kind", STATUSES)
def test_all_errors_for_people_have_one_root(kind: type[Exception]) -> None:
    """The command line catches one type, and nothing that is a bug."""
    assert issubclass(kind, NetsrvdError)


def test_a_configuration_error_has_a_line_for_each_fault() -> None:
    """All faults are shown at once, and each can be counted."""
    error = errors.ConfigError(["one", "two"])
    assert (str(error), error.problems) == ("one\ntwo", ["one", "two"])


def test_a_fault_begins_with_its_place() -> None:
    """As compilers write it, so that editors find it: the file and the line, as far as known."""
    assert str(errors.Fault("wrong", "a.toml", 3)) == "a.toml:3: wrong"
    assert str(errors.Fault("wrong", "a.toml")) == "a.toml: wrong"
    assert str(errors.Fault("wrong")) == "wrong"
