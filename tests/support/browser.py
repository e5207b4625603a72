"""Headless Chromium in a machine, driven by the DevTools protocol over a pipe."""

import base64
import json
import os
import select
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from tests.support.machine import Machine
from tests.support.patience import SECONDS

PATIENCE = 2 * SECONDS
"""Seconds for what a browser does: it is large, and starts on a busy machine."""

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-first-run", "--remote-debugging-pipe", "--user-data-dir=/tmp/browser"),
    *("--renderer-process-limit=1", "--window-size=1200,900"),
)

# Chromium reads commands from descriptor 3 and writes to 4.
PIPES = 'exec 3<&0 4>&1 >/dev/null; exec "$@"'

MESSAGES = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
"""Events of the console."""


class Page:
    """One page of a browser. Owned by the test."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._number = 0
        self._rest = b""
        self._session = ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Return the result of a method; events that come meanwhile are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        assert self._process.stdin
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        self._process.stdin.flush()
        deadline = monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found
            self.events.append(answer)

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        assert self._process.stdout
        descriptor = self._process.stdout.fileno()
        while b"\0" not in self._rest:
            ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - monotonic()))
            assert ready, f"no answer to {what}"
            data = os.read(descriptor, 1 << 20)
            assert data, f"the browser ended at {what}"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def load(self, url: str) -> None:
        """Load a page; return when it is there as a whole."""
        before = len(self.named("Page.loadEventFired"))
        self.call("Page.navigate", url=url)
        self.wait(lambda: len(self.named("Page.loadEventFired")) > before, f"load of {url}")

    def value(self, expression: str) -> Any:
        """Return what a script's expression is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, look: Callable[[], object], what: str) -> None:
        """Return when `look` finds something; each look takes what the browser says."""
        deadline = monotonic() + PATIENCE
        while not look():
            assert monotonic() < deadline, f"not within {PATIENCE:g} s: {what}"
            self.value("new Promise((done) => setTimeout(done, 50))" if self._session else "0")

    def named(self, *methods: str) -> list[dict[str, Any]]:
        """Return the events of these names that have come."""
        return [each["params"] for each in self.events if each.get("method") in methods]

    def console(self) -> list[dict[str, Any]]:
        """Return what was written to the console, errors of loading as well."""
        self.value("0")
        return self.named(*MESSAGES)

    def urls(self) -> set[str]:
        """Return all that was asked for."""
        self.value("0")
        return {each["request"]["url"] for each in self.named("Network.requestWillBeSent")}

    def screenshot(self, path: Path) -> None:
        """Write a picture of the page as a whole."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser(machine: Machine) -> Iterator[Page]:
    """Give an empty page of a browser in a machine; the browser ends with the block."""
    argv = machine.command("sh", "-c", PIPES, "sh", "chromium", *FLAGS)
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        page = Page(process)
        yield page
        page._session = ""
        page.call("Browser.close")
    finally:
        process.terminate()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()
