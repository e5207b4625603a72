"""netsrvd.config.toml"""

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


def test_a_file_without_end_is_refused() -> None:
    """A device or the wrong file does not fill the memory: no more than the limit is read."""
    with pytest.raises(ValueError, match=r"^it is longer than 1048576 bytes$"):
        toml.read(Path("/dev/zero"))


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
