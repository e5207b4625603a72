"""netsrvd.control.calls"""

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from netsrvd.control import calls
from netsrvd.control.callers import WAIT, Answer, CallError
from netsrvd.control.calls import LONGEST_REASONS, RELOAD, Calls
from netsrvd.linux.mounts import Outside
from netsrvd.run_state import ReloadRequests

LOOK = "org.varlink.service.GetInfo"


class Loop:
    """Runs what another thread asks for at once."""

    def call_soon_threadsafe(self, call: Callable[..., None], *arguments: object) -> None:
        call(*arguments)


class OneCaller:
    """Notes how often its answer went on."""

    def __init__(self, uid: int = 0) -> None:
        self.uid = uid
        self.steps = 0

    def go_on(self) -> None:
        self.steps += 1


def looks(*_: object) -> Answer:
    """Answer any call."""
    yield {}


def made(
    requests: ReloadRequests | None = None, load: Any = lambda: looks, *, is_passed: bool = False
) -> Any:
    """Return what answers calls, to be called with fakes."""
    loop: Any = Loop()
    requests = requests or ReloadRequests(lambda: None)
    return Calls(loop, requests, load, is_passed=is_passed)


OWN, OTHER = 3000, 65534


@pytest.mark.parametrize(
    ("is_passed", "uid", "may_look", "may_reload"),
    [
        (True, 0, True, True),
        (True, OTHER, True, False),
        (True, OWN, True, False),
        (False, 0, True, True),
        (False, OWN, True, True),
        (False, OTHER, False, False),
    ],
)
def test_who_may_call(
    monkeypatch: pytest.MonkeyPatch, *, is_passed: bool, uid: int, may_look: bool, may_reload: bool
) -> None:
    """A passed socket has its file's mode for looks, and reloads for root; else it is root, and
    the user of the daemon.
    """
    monkeypatch.setattr(os, "geteuid", lambda: OWN)
    answering = made(is_passed=is_passed)
    for method, is_allowed in ((LOOK, may_look), (RELOAD, may_reload)):
        if is_allowed:
            assert next(answering(method, {}, OneCaller(uid))) == ({} if method == LOOK else WAIT)
        else:
            with pytest.raises(CallError, match="PermissionDenied"):
                answering(method, {}, OneCaller(uid))


def test_an_answer_waits_for_the_reload() -> None:
    """What the caller sees goes along; when the main thread answers, the answer goes on."""
    requests, caller = ReloadRequests(lambda: None), OneCaller()
    answer = made(requests)(RELOAD, {"zone": "/a", "system": None}, caller)
    assert (next(answer), next(answer), caller.steps) == (WAIT, WAIT, 0)
    [request] = requests.take()
    assert request.outside == Outside("", "", "", "/a")
    request.answer("", ["one", "two"])
    assert caller.steps == 1
    assert list(answer) == [{"warnings": ["one", "two"]}]


def test_each_reason_is_told_up_to_a_limit() -> None:
    """All of them stand in the log."""
    requests = ReloadRequests(lambda: None)
    for problem, reasons in (
        ("a.toml: one\na.toml: two", ["a.toml: one", "a.toml: two"]),
        ("x" * LONGEST_REASONS + "y", ["x" * LONGEST_REASONS]),
    ):
        answer = made(requests)(RELOAD, {}, OneCaller())
        next(answer)
        requests.take()[0].answer(problem, ())
        with pytest.raises(CallError) as error:
            next(answer)
        assert error.value.message == {
            "error": "io.netsrvd.NotReloaded",
            "parameters": {"reasons": reasons},
        }


def test_code_is_loaded_once() -> None:
    """At the first look; a reload does without it."""
    loads: list[str] = []

    def load() -> Any:
        loads.append("load")
        return looks

    answering = made(load=load)
    next(answering(RELOAD, {}, OneCaller()))
    assert loads == []
    for _ in range(2):
        assert list(answering(LOOK, {}, OneCaller())) == [{}]
    assert loads == ["load"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "Too many open files: raise LimitNOFILE="),
        (ImportError("nothing there"), "its code cannot be imported"),
    ],
)
def test_code_that_cannot_be_loaded_is_told(error: Exception, reason: str) -> None:
    """Each time, until it can be; after an upgrade meanwhile, that is the reason."""

    def load() -> Any:
        raise error

    answering = made(load=load)
    for _ in range(2):
        with pytest.raises(CallError) as caught:
            answering(LOOK, {}, OneCaller())
        assert caught.value.message["error"] == "io.netsrvd.Failed"
        assert str(caught.value.message["parameters"]).find(reason) > 0


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("fails", [True, False])
def test_an_upgrade_is_the_reason(
    monkeypatch: pytest.MonkeyPatch, before: int, *, fails: bool
) -> None:
    """Whether it has come before the code was loaded or meanwhile, which need not fail then."""
    replaced = iter([False] * before + [True] * 3)
    monkeypatch.setattr(calls, "is_replaced", lambda: next(replaced))

    def load() -> Any:
        if fails:
            raise ImportError
        return looks

    with pytest.raises(CallError, match=r"io\.netsrvd\.Upgraded"):
        made(load=load)(LOOK, {}, OneCaller())
