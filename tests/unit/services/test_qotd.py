"""netsrvd.services.qotd, against RFC 865"""

from pathlib import Path

import pytest

from netsrvd.services import qotd
from tests.support.service_client import answered, prepared, said


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "quotes"


def test_a_file_is_a_quote(file: Path) -> None:
    """As it stands, with the line ends of the network; by TCP and, uncut here, by UDP."""
    file.write_text("Be liberal in what you accept,\n  and conservative in what you send.\n")
    service = prepared("qotd", quotes=str(file))
    quote = b"Be liberal in what you accept,\r\n  and conservative in what you send.\r\n"
    assert said(service) == answered(service) == quote


def test_a_file_of_fortune_has_many(file: Path) -> None:
    """Lines with nothing but a % part them; empty lines around them and empty quotes go."""
    file.write_text("%\none\n%\n\ntwo\r\n\nhalves \n\n%\n%\n\tthree: 100 %\n%\n")
    assert qotd.read(file) == [b"one\r\n", b"two\r\n\r\nhalves\r\n", b"        three: 100 %\r\n"]


def test_each_time_another_one(file: Path) -> None:
    """Every quote has its turn, and nothing else."""
    file.write_text("a\n%\nb\n%\nc\n")
    service = prepared("qotd", quotes=str(file))
    assert {said(service) for _ in range(200)} == {b"a\r\n", b"b\r\n", b"c\r\n"}


def test_a_folder_is_its_files(tmp_path: Path) -> None:
    """All files by their names; hidden ones, the indexes of strfile(1) and folders are none."""
    for name in ("b", "a", ".hidden", "a.dat", "folder/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{name}\n%\nthe same\n")
    assert qotd.read(tmp_path) == [b"a\r\n", b"the same\r\n", b"b\r\n"]


def test_no_quote_is_longer_than_511(file: Path) -> None:
    """The RFC wants less than 512 characters; a longer one is left out, its neighbours are not."""
    file.write_text("x" * 509 + "\n%\n" + "y" * 510 + "\n%\n" + "ö" * 255 + "\n%\nshort\n")
    assert [len(quote) for quote in qotd.read(file)] == [511, 7]


def test_what_cannot_be_printed_is_left_out(file: Path) -> None:
    """A quote must not command the terminal of whoever reads it; letters of all tongues may be."""
    file.write_text("\x1b[2Jgone\n%\na\bb\n%\nGrüße\n", encoding="utf-8-sig")
    assert qotd.read(file) == ["Grüße\r\n".encode()]


def unreadable(folder: Path) -> Path:
    return folder / "nothing"


def binary(folder: Path) -> Path:
    (folder / "binary").write_bytes(b"\xff\xfe")
    return folder / "binary"


def empty(folder: Path) -> Path:
    (folder / "empty").write_text("%\n\n%\n")
    return folder / "empty"


def too_long(folder: Path) -> Path:
    (folder / "long").write_text("x" * 512)
    return folder / "long"


def huge(folder: Path) -> Path:
    with (folder / "huge").open("wb") as file:
        file.truncate(qotd.MOST_BYTES + 1)
    return folder / "huge"


def dangling(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "nowhere")
    return folder / "link"


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (unreadable, "No such file or directory; netsrvd.service sees nothing but /etc/netsrvd"),
        (dangling, "No such file or directory"),
        (binary, "is not UTF-8"),
        (empty, "has no quote of up to 511 bytes"),
        (too_long, "has no quote of up to 511 bytes"),
        (huge, "has more than 16 MiB"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, make: object, fault: str) -> None:
    """What is wrong is said with the path."""
    path = make(tmp_path)  # type: ignore[operator]
    with pytest.raises(ValueError, match=fault) as caught:
        prepared("qotd", quotes=str(path))
    assert str(path) in str(caught.value)


def test_a_device_is_no_file() -> None:
    """Nothing is read that might have no end."""
    with pytest.raises(ValueError, match="/dev/zero is neither a file nor a folder"):
        prepared("qotd", quotes="/dev/zero")


def test_a_faulty_file_in_a_folder_is_named(tmp_path: Path) -> None:
    """The one that cannot be used, not its folder."""
    (tmp_path / "a").write_text("good\n")
    binary(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}/binary is not UTF-8"):
        qotd.read(tmp_path)


def test_a_folder_without_quotes_is_named(tmp_path: Path) -> None:
    """There is nothing to be said then."""
    with pytest.raises(ValueError, match=f"{tmp_path} has no quote"):
        qotd.read(tmp_path)


def test_quotes_must_be_somewhere() -> None:
    """Without `quotes` there is no such service."""
    with pytest.raises(ValueError, match="quotes must be the path"):
        prepared("qotd", quotes="")
