"""The XML reader takes time in proportion to what it reads, however the text is cut into pieces."""

from __future__ import annotations

import time

from recon.errors import HeaderError
from recon.mrd.markup import Document, parse

DOCUMENT = Document("the document", "a", ("",), HeaderError)
HEADER_BYTES = 8 << 20  # the largest header that the wire lets in by default


def in_pieces(count: int, size: int) -> bytes:
    """A document of about `size` bytes whose root holds `count` pieces of text, one after each child but the last."""
    piece = b"t" * (size // count - len(b"<b/>"))
    return b"<a>" + b"<b/>".join([piece] * count) + b"</a>"


def seconds(data: bytes) -> float:
    """Processor time of parsing: the least of three, as others use the machine too."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        parse(data, DOCUMENT)
        times.append(time.process_time() - begin)
    return min(times)


def test_text_around_children_is_joined_in_order() -> None:
    root = parse(b"<a>one<b>inner</b> two<b/>&amp;three<!-- none --></a>", DOCUMENT)
    assert root.text == "one two&three"
    assert [child.text for child in root.all("b")] == ["inner", ""]


def test_a_header_of_a_hundred_thousand_pieces_is_read_in_linear_time() -> None:
    quarter, whole = in_pieces(25_000, HEADER_BYTES // 4), in_pieces(100_000, HEADER_BYTES)
    assert len(whole) <= HEADER_BYTES
    root = parse(whole, DOCUMENT)
    assert len(root.text) == len(whole) - 99_999 * len(b"<b/>") - len(b"<a></a>")
    # Four times the document: linear work takes 4 times as long, copying the text at every piece 16 times. The
    # geometric mean leaves a factor of two to either side for caches and the collection of garbage.
    assert seconds(whole) < 8 * seconds(quarter)
