"""Files of quotes: any bytes are quotes that can be sent, or a ValueError that names the file."""

import tempfile
from pathlib import Path

from netsrvd.services import qotd


def check(data: bytes) -> None:
    """Read the input as a file, and as the only file of a folder: both must mean the same."""
    with tempfile.TemporaryDirectory(prefix="netsrvd-fuzz-") as name:
        file = Path(name) / "quotes"
        file.write_bytes(data)
        found = [_read(path) for path in (file, file.parent)]
    assert found[0] == found[1]


def _read(path: Path) -> list[bytes]:
    try:
        quotes = qotd.read(path)
    except ValueError as error:
        assert type(error) is ValueError, "an error of a library got through"
        assert str(error).isprintable()
        assert str(path) in str(error)
        return []
    assert quotes
    for quote in quotes:
        assert len(quote) <= qotd.LONGEST_QUOTE
        *lines, last = quote.decode().split("\r\n")
        assert last == ""
        assert lines[0]
        assert all(line.isprintable() for line in lines)
    return quotes
