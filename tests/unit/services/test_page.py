"""netsrvd.services.page: the status page and its object"""

import json
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from netsrvd.services import page
from netsrvd.services.shown import Fact, Overview, Table
from tests.support.effort import in_proportion

PIECES = ("<b>", "</td>", "<script>", "<!--", "&lt;", "&", '"', "'", ">", " on=", "\\u003c", "é")
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0")) | st.lists(
    st.sampled_from(PIECES)
).map("".join)


def overview(text: str = "text", rows: int = 1, *, is_bad: bool = False) -> Overview:
    """Return what is shown, with a text in each place that may have any."""
    found = [(text, str(number)) for number in range(rows)]
    return Overview(
        title=text,
        at=1_800_000_000.5,
        start=1_799_999_999.0,
        at_text=text,
        facts=[Fact("fact", text, text, is_bad)],
        series={each.key: 1.5 for each in page.CHARTS},
        tables=[
            Table("one", text, (text, "Number"), 1, iter(found)),
            Table("two", "Empty", ("A",), 1, ()),
        ],
    )


class Reader(HTMLParser):
    """What a browser makes of a page: its elements, and the texts between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        if self.texts:
            self.texts[-1] += data


def html(*parts: Overview | None) -> str:
    return b"".join(page.html(parts, "42")).decode()


@given(text=TEXTS)
def test_any_text_is_a_text(text: str) -> None:
    """It makes no element and no attribute, and a browser reads it as what it was."""
    found, usual = Reader(html(overview(text))), Reader(html(overview()))
    assert found.elements == usual.elements
    assert found.texts.count(text) >= 5 or not text
    assert json.loads(b"".join(page.json_object([overview(text)])))["tables"]["one"][0][0] == text


def test_nothing_is_loaded_and_nothing_else_may_run() -> None:
    """There is no link but the icon, no attribute that runs or styles, and one script and one
    style, which have the number that the policy asks for.
    """
    elements = Reader(html(overview(is_bad=True))).elements
    attributes = {each for _, having in elements for each in having}
    assert not {each for each in attributes if each.startswith("on") or each in ("style", "src")}
    assert [having["href"] for _, having in elements if "href" in having] == [page.ICON]
    nonces = [(name, having["nonce"]) for name, having in elements if "nonce" in having]
    assert nonces == [("style", "42"), ("script", "42")]
    assert [name for name, _ in elements].count("script") == 1
    policy = dict(page.headers("42"))["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'nonce-42'; script-src 'nonce-42'; ")
    assert "unsafe" not in policy
    assert page.new_nonce() != page.new_nonce()


def test_the_object_has_what_the_page_shows() -> None:
    """Facts, numbers and rows, under the keys by which the script finds them in the page."""
    found = json.loads(b"".join(page.json_object([None, overview("a", 3, is_bad=True)])))
    assert found["at"] == 1_800_000_000.5
    assert found["start"] == 1_799_999_999.0
    assert found["facts"] == {"fact": ["a", True]}
    assert found["tables"] == {"one": [["a", "0"], ["a", "1"], ["a", "2"]], "two": []}
    assert {*found["series"]} == {each.key for each in page.CHARTS}
    ids = {having.get("id") for _, having in Reader(html(overview())).elements}
    assert ids >= {*found["facts"], *found["tables"], "state", "charts"}


def test_both_are_made_in_pieces() -> None:
    """A turn writes a hundred rows at most; a step of counting is an empty piece."""
    count = 3 * page.PIECE_ROWS + 1
    pieces = list(page.html([None, overview(rows=count)], "42"))
    assert pieces[0] == b""
    assert max(piece.count(b"<tr>") for piece in pieces) <= page.PIECE_ROWS
    assert sum(piece.count(b'<tr><th scope="row">') for piece in pieces) == count
    objects = list(page.json_object([None, overview(rows=count)]))
    assert objects[0] == b""
    assert max(piece.count(b'"text"') for piece in objects) <= page.PIECE_ROWS
    assert len(json.loads(b"".join(objects))["tables"]["one"]) == count


def test_the_effort_grows_with_the_rows() -> None:
    """Four times the rows cost four times the steps."""
    assert in_proportion(lambda count: list(page.html([overview(rows=4 * count)], "42")))
