"""netsrvd.run_state"""

from collections.abc import Sequence

from netsrvd.linux.mounts import Outside
from netsrvd.run_state import ReloadRequest, ReloadRequests

Answers = list[tuple[str, tuple[str, ...]]]


def request(answers: Answers) -> ReloadRequest:
    """Return a request that notes its answer."""

    def answer(problem: str, warnings: Sequence[str]) -> None:
        answers.append((problem, tuple(warnings)))

    return ReloadRequest(Outside(), answer)


def test_all_that_wait_are_taken_at_once() -> None:
    """In the order in which they came; each wakes the main thread, which finds none twice."""
    wakes: list[str] = []
    requests = ReloadRequests(lambda: wakes.append("wake"))
    assert (requests.are_waiting, requests.take()) == (False, [])
    added = [request([]) for _ in range(3)]
    for each in added:
        requests.add(each)
    assert len(wakes) == 3
    assert requests.are_waiting
    assert requests.take() == added
    assert (requests.are_waiting, requests.take()) == (False, [])


def test_at_the_end_each_is_told() -> None:
    """Those that wait and those that come later, once each."""
    answers: Answers = []
    requests = ReloadRequests(lambda: None)
    requests.add(request(answers))
    requests.end()
    requests.add(request(answers))
    problem = "the daemon is stopping; the next start reads the configuration"
    assert answers == [(problem, ())] * 2
    assert not requests.are_waiting
