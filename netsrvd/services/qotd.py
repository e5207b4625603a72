"""The Quote of the Day Protocol (RFC 865): a short text, each time another one."""

from pathlib import Path
from random import choice

from netsrvd.services import base

LONGEST_QUOTE = 511
"""Bytes; the RFC wants "less than 512 characters"."""

MOST_BYTES = 16 << 20
"""Of a file. All that fortune(6) has in Debian are 3 MB."""

SEPARATOR = "%"
"""The line between two quotes, as in the files of fortune(6)."""

INDEX = ".dat"
"""How strfile(1) calls the binary index that it puts beside such a file."""


def read(path: Path) -> list[bytes]:
    """Return the quotes of a file, or of all files of a folder but hidden ones and indexes.

    What is longer than a quote may be, or has characters that are not printed, is left out. Raises
    ValueError, which names the path, where a file cannot be read or where no quote is left.
    """
    try:
        found = [quote for file in quote_files(path) for quote in _quotes(_text(file))]
    except OSError as error:
        raise ValueError(
            f"quotes: {error.filename}: {error.strerror}; netsrvd.service sees nothing but "
            "/etc/netsrvd and /usr"
        ) from error
    if not found:
        raise ValueError(f"quotes: {path} has no quote of up to {LONGEST_QUOTE} bytes")
    return list(dict.fromkeys(found))


def quote_files(path: Path) -> list[Path]:
    """Return the files that are read for a path. Raises OSError for a folder that cannot be."""
    names = sorted(path.iterdir()) if path.is_dir() else [path]
    return [each for each in names if path == each or _is_wanted(each)]


def _is_wanted(path: Path) -> bool:
    return path.is_file() and path.suffix != INDEX and not path.name.startswith(".")


def _text(path: Path) -> str:
    """Return what stands in a file; raises ValueError or OSError where that is no text."""
    if path.exists() and not path.is_file():
        raise ValueError(f"quotes: {path} is neither a file nor a folder")
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"quotes: {path} has more than {MOST_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"quotes: {path} is not UTF-8: {error}") from error


def _quotes(text: str) -> list[bytes]:
    """Return the quotes of a text that can be sent, each as it is sent."""
    found: list[list[str]] = [[]]
    for line in text.expandtabs().splitlines():
        if line.rstrip() == SEPARATOR:
            found.append([])
        else:
            found[-1].append(line.rstrip())
    return [quote for lines in found if (quote := _sent(lines))]


def _sent(lines: list[str]) -> bytes:
    """Return a quote with the line ends of the network; nothing if it cannot be sent."""
    text = "\n".join(lines).strip("\n")
    data = (text.replace("\n", "\r\n") + "\r\n").encode()
    is_plain = text and all(line.isprintable() for line in lines)
    return data if is_plain and len(data) <= LONGEST_QUOTE else b""


def prepare(settings: base.ServiceSettings, _server: base.ServerView) -> base.Service:
    """Return the service, with its quotes in memory; raises ValueError where there are none."""
    if not settings.quotes:
        raise ValueError("quotes must be the path of a file, or of a folder of files, with quotes")
    quotes = read(Path(settings.quotes))

    def make_text(_client: base.Client, _at: float) -> bytes:
        return choice(quotes)  # noqa: S311 - it need not be secret

    return base.send_once(make_text, 0)
