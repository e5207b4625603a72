"""A program on a terminal of tmux: what is on the screen, and the keys that are pressed."""

import shlex
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.patience import eventually

PROMPT = "status=$? > "
"""Of the shell: with the exit status of the last command."""


class Screen:
    """A terminal of 80 columns and 24 lines."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]

    def start(self, command: Sequence[str | Path], environment: dict[str, str]) -> None:
        """Type a command to a shell there."""
        given = [f"-e{name}={value}" for name, value in (environment | {"PS1": PROMPT}).items()]
        # dash leaves the modes of the terminal as a job has left them; bash would put them back.
        shell = ["dash", "-i"]
        self.do("new-session", "-d", "-x", "80", "-y", "24", *given, *shell)
        self.wait_text("status=0 >")
        self.type(shlex.join(map(str, command)))

    def type(self, line: str) -> None:
        """Type a line to the shell, on an empty screen."""
        self.press("-l", f"clear; {line}")
        self.press("Enter")

    def do(self, *command: str) -> str:
        """Give tmux a command; return what it prints."""
        argv = [*self._tmux, *command]
        return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout

    def coloured_lines(self) -> list[str]:
        """Return the lines on the screen with the escape sequences of their colours."""
        return self.do("capture-pane", "-p", "-e").split("\n")[:-1]

    def lines(self) -> list[str]:
        """Return the lines on the screen, without blanks at their ends."""
        return [line.rstrip() for line in self.do("capture-pane", "-p").split("\n")[:-1]]

    def text(self) -> str:
        """Return what is on the screen."""
        return "\n".join(self.lines())

    def press(self, *keys: str) -> None:
        """Press keys."""
        self.do("send-keys", *keys)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self.do("resize-window", "-x", str(columns), "-y", str(lines))

    def wait(self, look: Callable[[list[str]], object], what: str) -> list[str]:
        """Return the lines as soon as they are as they should be."""
        seen: list[str] = []

        def found() -> bool:
            seen[:] = self.lines()
            return bool(look(seen))

        try:
            eventually(found, what)
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *seen])) from error
        return seen

    def wait_text(self, text: str) -> list[str]:
        """Return the lines as soon as a text is among them."""
        return self.wait(lambda lines: text in "\n".join(lines), text)


@contextmanager
def screen(folder: Path) -> Iterator[Screen]:
    """Give a terminal of a tmux of its own; all that runs there ends with the block."""
    found = Screen(folder / "tmux")
    try:
        yield found
    finally:
        subprocess.run([*found._tmux, "kill-server"], stderr=subprocess.DEVNULL, check=False)
