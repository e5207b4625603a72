"""netsrvd.services.handler, and how a name is read"""

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from netsrvd import services
from netsrvd.services import handler
from netsrvd.services.base import ServerView
from netsrvd.settings import ListenerSettings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of handlers, with nothing in it; what is imported from it is forgotten."""
    monkeypatch.setattr(handler, "FOLDER", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}
    yield tmp_path
    for name in {*sys.modules} - before:
        del sys.modules[name]


def package(folder: Path, name: str, entries: str) -> None:
    """Install a package that gives names to handlers."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[netsrvd.services]\n{entries}\n")


@pytest.mark.parametrize(
    ("name", "is_path"),
    [
        *(("python:a:b", True), ("python:a.b_1:c.d", True), ("python:größe:f", True)),
        *(("python:a", False), ("python:a:", False), ("python::b", False), ("a:b", False)),
        *(("python:a b:c", False), ("python:a:b:c", False), ("python:.a:b", False), ("", False)),
    ],
)
def test_the_form_of_a_path(name: str, is_path: bool) -> None:  # noqa: FBT001
    """The names of a module and of what stands in it, with dots, and nothing else."""
    assert handler.is_path(name) is is_path


def test_a_function_is_found(folder: Path) -> None:
    """It is the object itself, in a module of the folder of handlers or of any other."""
    (folder / "lab_found.py").write_text("class Lab:\n    @staticmethod\n    def serve(_): ...\n")
    service = services.prepare("python:lab_found:Lab.serve", ListenerSettings("x"), ServerView())
    assert service.handler is sys.modules["lab_found"].Lab.serve
    assert handler.find("python:builtins:len") is len


@pytest.mark.parametrize(
    ("text", "function", "complaint"),
    [
        ("x = 1", "x", r"^x in lab_bad is no function but of type int$"),
        ("", "serve", r"^module 'lab_bad' has no attribute 'serve'; Python looks in .*/"),
        ("1/0", "serve", r"^importing lab_bad failed: ZeroDivisionError: division by zero; "),
        ("def serve(:", "serve", r"^importing lab_bad failed: SyntaxError: "),
        ("import sys; sys.exit(3)", "serve", r"^importing lab_bad failed: SystemExit: 3; "),
        (
            "import lab_absent",
            "serve",
            r"failed: ModuleNotFoundError: No module named 'lab_absent'",
        ),
    ],
)
def test_what_cannot_be_used_is_explained(
    folder: Path, text: str, function: str, complaint: str
) -> None:
    """Whatever a module does when it is imported, it is a complaint, with where it was sought."""
    (folder / "lab_bad.py").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        handler.find(f"python:lab_bad:{function}")


def test_a_module_that_is_not_there(folder: Path) -> None:
    """The complaint ends with the folder of handlers, where it may be put."""
    with pytest.raises(ValueError, match=rf"No module named 'lab_no'; .*, {folder}$"):
        handler.find("python:lab_no:serve")


def test_a_package_gives_a_name_to_its_handler(folder: Path) -> None:
    """A name that is none of ours is looked for among the entry points."""
    (folder / "lab_named.py").write_text("def serve(_): ...")
    package(folder, "lab", "finger = lab_named:serve")
    assert services.reader()("finger") == "finger"
    assert handler.find("finger") is sys.modules["lab_named"].serve


def test_own_names_win(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package cannot take a name of ours, and packages are not even asked about it."""
    package(folder, "lab", "echo = lab_named:serve")
    monkeypatch.setattr(metadata, "entry_points", lambda **_: pytest.fail("asked"))
    assert services.reader()("echo") == "echo"
    assert services.prepare("echo", ListenerSettings("x"), ServerView()).handler is None


@pytest.mark.parametrize("wrong", ["telnet", "python:", 7, None, ""])
def test_an_unknown_name_lists_all(folder: Path, wrong: object) -> None:
    """Our names, those of packages, and the form of a path."""
    package(folder, "lab", "finger = lab_named:serve")
    with pytest.raises(ValueError, match=r'"echo".*"finger", or a handler as "python:package\.mod'):
        services.reader()(wrong)


def test_packages_are_asked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names of a configuration are unknown."""
    asked: list[str] = []
    monkeypatch.setattr(metadata, "entry_points", lambda group: asked.append(group) or ())
    read = services.reader()
    for name in ("one", "two", "three"):
        with pytest.raises(ValueError, match="one of"):
            read(name)
    assert asked == ["netsrvd.services"]


def test_a_package_that_is_gone_meanwhile(folder: Path) -> None:
    """A name that was known when the configuration was read is a complaint, not a traceback."""
    with pytest.raises(ValueError, match="there is no service finger, and no package has"):
        handler.find("finger")
