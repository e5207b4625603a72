"""netsrvd.config.toml"""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from netsrvd.config import toml
from tests.support.effort import in_proportion

ADDRESSES = ", ".join(f'"192.0.2.{number}"' for number in range(256))

SHAPES: dict[str, Callable[[int], str]] = {
    "keys": lambda size: "".join(f"k{number} = 1\n" for number in range(size)),
    "tables": lambda size: "".join(f"[t{number}]\n" for number in range(size)),
    "tables of arrays": lambda size: "[[t]]\n" * size,
    "a list": lambda size: f"k = [{'1,' * size}]",
    "an inline table": lambda size: (
        "k = {" + ", ".join(f"k{number} = 1" for number in range(size)) + "}"
    ),
    "a text": lambda size: 'k = """' + "\\n" * size + '"""',
    "comments": lambda size: "# x\n" * size,
    "a long key": lambda size: "k." * size + "k = 1",
    "long keys": lambda size: "".join(f"{'k.' * 60}k{number} = 1\n" for number in range(size)),
    "keys far below": lambda size: (
        f"[{'k.' * size}k]\n" + "".join(f"k{number} = 1\n" for number in range(size))
    ),
    "quoted keys far below": lambda size: (
        "[" + '"\\"" . ' * size + "k]\n" + "".join(f"k{number} = 1\n" for number in range(size))
    ),
    "nested lists": lambda size: f"k = {'[' * size}{']' * size}",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file.toml"


def test_a_file_is_what_toml_says(file: Path) -> None:
    """Keys, tables and text in UTF-8 become dictionaries, with line ends of any system."""
    file.write_bytes('a.b = "ö"\r\n[c]\r\nd = [1]\r\n'.encode())
    assert toml.read(file) == {"a": {"b": "ö"}, "c": {"d": [1]}}


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        *(
            (each, True)
            for each in ("", "\n", "# a = 1", "  # a\n\n#", "#\t\r\n\t# ö", "#\u2028a = 1")
        ),
        *(
            (each, False)
            for each in ("#\0", "# a\v# b", "#\n\f\n", "#\r#", "#\x7f", "\u2003", "#\na")
        ),
    ],
)
def test_comments_alone_say_nothing(text: str, *, is_valid: bool) -> None:
    """A text of them is empty, and one with characters that no comment may have is a fault, as in
    any other text.
    """
    for more in ("", "\nb = 1"):
        if is_valid:
            assert toml.parse(text + more) == ({"b": 1} if more else {})
        else:
            with pytest.raises(ValueError, match=r"at (line|end)"):
                toml.parse(text + more)


@pytest.mark.parametrize(("kind", "name"), [(stat.S_IFIFO, "a FIFO"), (stat.S_IFSOCK, "a socket")])
def test_only_regular_files_are_opened(file: Path, kind: int, name: str) -> None:
    """Nobody waits for who writes into a FIFO; what it is stands in the complaint."""
    os.mknod(file, kind | 0o600)
    with pytest.raises(OSError, match=f"it is {name}; only regular files are read"):
        toml.read(file)


def test_a_device_is_not_opened() -> None:
    """It may have no end, and opening alone makes some devices do something."""
    with pytest.raises(OSError, match="it is a device; only regular files are read"):
        toml.read(Path("/dev/zero"))


def test_a_mark_of_utf_8_is_no_fault(file: Path) -> None:
    """Some editors put it at the beginning. One of UTF-16 is named, and so is what is no UTF-8."""
    file.write_bytes(b"\xef\xbb\xbfa = 1")
    assert toml.read(file) == {"a": 1}
    file.write_bytes("\ufeffa = 1".encode("utf-16-le"))
    with pytest.raises(ValueError, match="it is UTF-16; save it as UTF-8"):
        toml.read(file)
    file.write_bytes(b"a = 1\nb = '\xff'")
    with pytest.raises(ValueError, match=r"byte 0xff is not UTF-8 \(at line 2\)"):
        toml.read(file)


def test_the_largest_file_is_read(file: Path) -> None:
    """A file may be as long as the limit, and not a byte longer."""
    file.write_bytes(b"#" * toml.LARGEST_BYTES)
    assert toml.read(file) == {}
    file.write_bytes(b"#" * (toml.LARGEST_BYTES + 1))
    with pytest.raises(ValueError, match="longer"):
        toml.read(file)


@pytest.mark.parametrize("part", ["a", '"a b"', "'.'", '"\\""', "a-1", " a\t"])
def test_a_key_may_have_so_many_parts(file: Path, part: str) -> None:
    """A dotted key of more parts than any setting has is refused, with its line."""
    long = ".".join([part] * toml.MOST_PARTS)
    file.write_text(f"{long} = 1\n")
    assert toml.read(file)
    file.write_text(f"\n\n{long}.{part} = 1\n")
    with pytest.raises(ValueError, match=r"^a key has more than 64 parts \(at line 3\)$"):
        toml.read(file)


@pytest.mark.parametrize(
    "text", [f"allow = [{ADDRESSES}]", "# " + "One. Two, three. " * 100, f"# {'.' * 1000}"]
)
def test_dots_elsewhere_do_no_harm(file: Path, text: str) -> None:
    """Lists of addresses and comments have many dots, and are no keys."""
    file.write_text(text)
    toml.read(file)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_effort_is_in_proportion(file: Path, shape: str) -> None:
    """Whatever a file holds, four times as much of it takes no more than some four times as long,
    whether it is read or refused.
    """

    def read(size: int) -> None:
        file.write_text(SHAPES[shape](size))
        with suppress(ValueError, RecursionError):
            toml.read(file)

    assert in_proportion(read)
