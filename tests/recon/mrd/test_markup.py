"""The XML reader: text in pieces, and encodings that are not what they say."""

from __future__ import annotations

import sys
from types import FrameType

from recon.errors import HeaderError
from recon.mrd.markup import Document, MarkupLimits, _Builder, parse

DOCUMENT = Document("the document", "a", ("",), HeaderError)
HEADER_BYTES = 8 << 20  # the largest header that the wire lets in by default


def in_pieces(count: int, size: int) -> bytes:
    """A document of about `size` bytes whose root holds `count` pieces of text, one after each child but the last."""
    piece = b"t" * (size // count - len(b"<b/>"))
    return b"<a>" + b"<b/>".join([piece] * count) + b"</a>"


def test_text_around_children_is_joined_in_order() -> None:
    root = parse(b"<a>one<b>inner</b> two<b/>&amp;three<!-- none --></a>", DOCUMENT)
    assert root.text == "one two&three"
    assert [child.text for child in root.all("b")] == ["inner", ""]


def test_a_header_of_a_hundred_thousand_pieces_is_read_whole() -> None:
    data = in_pieces(100_000, HEADER_BYTES)
    assert len(data) <= HEADER_BYTES
    root = parse(data, DOCUMENT)
    assert len(root.text) == len(data) - 99_999 * len(b"<b/>") - len(b"<a></a>")


def test_utf8_that_calls_itself_ascii_is_read() -> None:
    data = '<?xml version="1.0" encoding="ascii"?>\n<a>Müller</a>'.encode()
    assert parse(data, DOCUMENT).text == "Müller"


class Piece(str):
    """Text that counts how often it is added to other text, which copies all that came before it."""

    added = 0

    def __radd__(self, other: str) -> str:
        Piece.added += 1
        return str(other) + str(self)


def test_each_piece_of_text_is_copied_once() -> None:
    """Work in proportion to the size: one join for each element, and no piece is added to those before it."""
    builder, joins, pieces = _Builder(DOCUMENT, MarkupLimits()), 0, 1000

    def count(_frame: FrameType, event: str, called: object) -> None:
        nonlocal joins
        joins += event == "c_call" and getattr(called, "__name__", "") == "join"

    Piece.added = 0
    sys.setprofile(count)
    try:
        builder.start("root", {})
        for _ in range(pieces):
            builder.data(Piece("text"))
            builder.start("child", {})
            builder.end("child")
        builder.end("root")
    finally:
        sys.setprofile(None)
    assert builder.top.children["root"][0].text == "text" * pieces
    assert (Piece.added, joins) == (0, pieces + 1)
