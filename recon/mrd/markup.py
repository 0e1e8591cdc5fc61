"""A small XML reader for bytes that nobody vouches for: no DTD, no entities, bounded size and depth."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from recon.errors import InputError, LimitError


@dataclass(slots=True)
class Node:
    """One element: local `name`, `namespace`, its own `text`, and children by local name in document order."""

    name: str
    namespace: str = ""
    text: str = ""
    children: dict[str, list[Node]] = field(default_factory=dict)

    def first(self, *path: str) -> Node | None:
        """The first element at `path` below this one, or None."""
        node: Node | None = self
        for name in path:
            found = node.children.get(name) if node else None
            node = found[0] if found else None
        return node

    def all(self, name: str) -> list[Node]:
        """All children called `name`, in document order."""
        return self.children.get(name, [])


@dataclass(frozen=True, slots=True)
class Document:
    """What is expected of the bytes: how errors call them, the root element, its namespaces, the error's class."""

    what: str
    root: str
    namespaces: tuple[str, ...]
    error: type[InputError]


@dataclass(frozen=True, slots=True)
class MarkupLimits:
    """Bounds that no honest document meets; they keep a hostile one from growing a tree of millions of nodes."""

    elements: int = 100_000
    depth: int = 32


class _Builder:
    """Turns expat's callbacks into nodes."""

    def __init__(self, document: Document, limits: MarkupLimits) -> None:
        self.what, self.error, self.limits = document.what, document.error, limits
        self.top = Node("")
        self.open = [self.top]
        self.texts: list[list[str]] = [[]]  # of each open element: joined at its end, as adding piece by piece copies
        self.elements = 0

    def start(self, qualified: str, attributes: dict[str, str]) -> None:
        namespace, _, name = qualified.rpartition("}")
        self.elements += 1
        if self.elements > self.limits.elements or len(self.open) > self.limits.depth:
            raise LimitError(
                f"{self.what} has more than {self.limits.elements} elements or {self.limits.depth} levels: shorten it"
            )
        node = Node(name, namespace)
        self.open[-1].children.setdefault(name, []).append(node)
        self.open.append(node)
        self.texts.append([])

    def end(self, qualified: str) -> None:
        self.open.pop().text = "".join(self.texts.pop())

    def data(self, text: str) -> None:
        self.texts[-1].append(text)

    def refuse(self, *declaration: object) -> NoReturn:
        raise self.error(
            f"{self.what} declares a document type or entities, which are never expanded: send plain elements only"
        )


_DECLARES_ASCII = re.compile(rb"""<\?xml[^>]*?encoding=["'](us-)?ascii["']""", re.IGNORECASE)


def parse(data: bytes, document: Document, *, limits: MarkupLimits = MarkupLimits()) -> Node:
    """Root element of `data`; raises `document.error` for other XML than expected, LimitError for its size."""
    builder = _Builder(document, limits)
    trimmed = _trimmed(data)
    # A common serialiser declares ASCII and writes UTF-8, of which ASCII is a part.
    encoding = "utf-8" if _DECLARES_ASCII.match(trimmed) else None
    parser = expat.ParserCreate(encoding, namespace_separator="}")
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = builder.refuse
    try:
        parser.Parse(trimmed, True)
    except (expat.ExpatError, ValueError, LookupError) as fault:  # the latter two: encodings that Python cannot map
        raise document.error(f"{document.what} is not XML ({fault}): send a well-formed document") from fault
    root = next(iter(builder.top.children.values()))[0]
    _expect(root, document)
    return root


def _trimmed(data: bytes) -> bytes:
    """Senders that count the C terminator, or indent before the declaration, still mean the document between."""
    data = data.rstrip(b"\0").strip()
    if data.startswith(codecs.BOM_UTF16_LE) and len(data) % 2:
        data += b"\0"  # the upper half of the last character
    return data


def _expect(root: Node, document: Document) -> None:
    if root.name != document.root or root.namespace not in document.namespaces:
        raise document.error(
            f"{document.what} begins with <{root.name}> in the namespace {root.namespace!r}, "
            f"expected <{document.root}> in the namespace {document.namespaces[0]!r}: correct it"
        )
