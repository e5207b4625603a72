"""netsrvd.config.key_lines"""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netsrvd.config.key_lines import DEEPEST, key_lines
from tests.support.effort import in_proportion

KEYS = st.from_regex(r"[a-z0-9_-]{1,3}", fullmatch=True)
QUOTED = st.text(st.sampled_from("a.#=[]{}'\"\\é "), max_size=4)


def basic(text: str) -> str:
    """Return a text in quotation marks."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


VALUES = st.sampled_from(
    [
        *("1", "-0.5e3", "true", "1979-05-27 07:32:00", "[]", "{}", '"a # b"', "'[x] = \"'"),
        *('"\\"\\\\"', '"""\n[t]\nk = 1 ""\\""""', '"""a"""""', "'''\n''a\n'''''", "''''''"),
        *("[1, # ]\n 2,\n]", '[\n"]",\n[{ a = "}" }],\n]', "{ a = { b.c = [\n1,\n], d = 2 } }"),
    ]
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str, ...], int]]:
    """Make a TOML text of which it is known on which line each key stands."""
    lines: list[str] = []
    known: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number in range(draw(st.integers(0, 6))):
        lines += draw(st.lists(st.sampled_from(["", "# a = 1", "\t", "  # [x]\r"]), max_size=2))
        own = draw(KEYS | QUOTED) + str(number)  # so that none comes twice
        line = sum(each.count("\n") + 1 for each in lines) + 1
        dots = draw(st.sampled_from([".", " . "]))
        if draw(st.booleans()):
            table = (own,)
            lines.append(f"[ {basic(own)} ]" if draw(st.booleans()) else f"[{basic(own)}] # x")
            known[table] = line
        else:
            second = draw(KEYS | QUOTED)
            lines.append(f"{basic(own)}{dots}{basic(second)} = {draw(VALUES)}")
            known[*table, own] = known[*table, own, second] = line
    return "\n".join(lines), known


@given(documents())
def test_each_key_has_its_line(document: tuple[str, dict[tuple[str, ...], int]]) -> None:
    """Bare, quoted and dotted keys, behind values of several lines, tables and comments."""
    text, known = document
    tomllib.loads(text)
    found = key_lines(text)
    assert {path: found.get(path) for path in known} == known


def paths(table: dict[str, Any], above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Return the path of each key that is not within a list."""
    own = {(*above, key) for key in table}
    below = [paths(each, (*above, key)) for key, each in table.items() if isinstance(each, dict)]
    return own.union(*below)


EVERYTHING = """\
a = 1
[b]
"c.d".'e f' = "x" # comment
g = { h = 1, "i" = { j.k = 2 } }
[[l]]
m = 1
[[l]]
[n . "\\u00e9"]
o = '''
p = 1
'''
q = [ { r = 1 },
  "]" ]
s.t = +inf
"""


def test_every_form_of_toml() -> None:
    """Inline tables, lists of tables, escapes in keys: each has the line where it stands."""
    lines = key_lines(EVERYTHING)
    tree = tomllib.loads(EVERYTHING)
    assert {path for path in paths(tree) if len(path) <= DEEPEST} - {*lines} == set()
    assert (lines[("b", "c.d", "e f")], lines[("b", "g", "i")], lines[("n", "é")]) == (3, 4, 8)
    assert (lines[("n", "é", "o")], lines[("n", "é", "q")]) == (9, 12)
    assert lines[("n", "é", "s", "t")] == 14
    assert ("n", "é", "p") not in lines


@pytest.mark.parametrize(
    "text", ["a =", "[a", "a = '", 'a."', "= 1", "a = [", "a = {b", "é = 1", ""]
)
def test_what_is_not_toml_ends_it(text: str) -> None:
    """Nothing is raised."""
    key_lines(f"ok = 1\n{text}")


@given(st.text())
def test_any_text(text: str) -> None:
    """Whatever it is given, it returns, with paths that are no longer than those of settings."""
    assert all(0 < len(path) <= DEEPEST for path in key_lines(text))


@pytest.mark.parametrize(
    "shape",
    ["k%d = 1\n", "[t%d]\n", "[[t]]\n", 'k%d = """\n\n"""\n', "k%d = {a = {b = {c = {d = 1}}}}\n"],
)
def test_the_effort_is_in_proportion(shape: str) -> None:
    """Four times as long a text takes about four times as long."""

    def scan(count: int) -> None:
        key_lines("".join(shape.replace("%d", str(number)) for number in range(count)))

    assert in_proportion(scan)


@pytest.mark.parametrize("shape", ["a = {before}1{after}", "a.b.c.d = {before}1{after}"])
@pytest.mark.parametrize(("before", "after"), [("[", "]"), ("{a = ", "}"), ("[{a = ", "}]")])
def test_depth_costs_no_stack(shape: str, before: str, after: str) -> None:
    """Values that are nested a hundred thousand times are passed by."""
    count = 100_000
    text = shape.replace("{before}", before * count).replace("{after}", after * count)
    assert key_lines(text + "\nz = 1")[("z",)] == 2
