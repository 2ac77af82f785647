"""Records of an XML file: streamed, no entity expanded, no DTD loaded, no network."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from medexpert.data.readers.rows import Fault, Part, Row
from medexpert.data.readers.streams import open_stream
from medexpert.data.readers.wording import one_line
from medexpert.records import UserError

MAX_RECORD = 32 << 20  # bytes of XML between two records
REMOVED = {
    "table-wrap": "table_removed",
    "table-wrap-group": "table_removed",
    "table": "table_removed",
    "array": "table_removed",
    "fig": "figure_removed",
    "fig-group": "figure_removed",
    "graphic": "figure_removed",
    "inline-graphic": "figure_removed",
    "media": "figure_removed",
    "chem-struct-wrap": "figure_removed",
    "disp-formula": "formula_removed",
    "disp-formula-group": "formula_removed",
    "inline-formula": "formula_removed",
    "ref-list": "references_removed",
    "supplementary-material": "supplement_removed",
    "fn": "footnote_removed",
    "fn-group": "footnote_removed",
}
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_NAME = re.compile(r"<(?:\w+:)?([A-Za-z][\w.\-]*)")
_BLOCKS = {"p", "list", "list-item", "title", "disp-quote", "break", "br", "def-item", "td", "th"}
_DIGIT_LAST = re.compile(r"\d$")

SAFE: dict[str, Any] = {
    "resolve_entities": False,
    "no_network": True,
    "load_dtd": False,
    "huge_tree": False,
    "remove_comments": True,
    "remove_pis": True,
}

Rows = Callable[[Part], Iterator[Row | Fault]]


def xml_records(*tags: str, roots: tuple[str, ...]) -> Rows:
    """Rows `{"xml": element}` for each element with one of these tags, in order.

    The element is emptied when the next row is asked for. A root that is not in `roots` is a
    UserError: the file is of another format.
    """

    def rows(part: Part) -> Iterator[Row | Fault]:
        number = -1
        for element, line in _elements(part.path, tags, roots):
            number += 1
            if part.has(number):
                yield f"{part.path}:{line}", {"xml": element}

    return rows


def _elements(
    path: str, tags: tuple[str, ...], roots: tuple[str, ...]
) -> Iterator[tuple[Any, int]]:
    from lxml import etree

    _check_root(path, roots)
    with open_stream(path) as stream:
        stream.mark(MAX_RECORD)
        try:
            for _, element in etree.iterparse(stream, events=("end",), tag=tags, **SAFE):
                yield element, element.sourceline or 0
                _forget(element)
                stream.mark(MAX_RECORD)
        except etree.LxmlError as error:
            raise _not_xml(error, path) from None


def root_name(head: str) -> str:
    """The name of the first element in the beginning of an XML file, "" where none is in sight.

    A scan by hand: a pattern over comments and DTDs takes the square of a long run of blanks.
    """
    at = head.find("<")
    while at >= 0:
        if found := _NAME.match(head, at):
            return found[1]
        end = _skipped(head, at)
        at = head.find("<", end) if end > 0 else -1
    return ""


def _skipped(head: str, at: int) -> int:
    """Where a comment, instruction or document type that begins here ends; 0 or less: nowhere."""
    for start, end in (("<!--", "-->"), ("<?", "?>")):
        if head.startswith(start, at):
            return head.find(end, at) + 1
    if head.startswith("<!DOCTYPE", at):
        close, inside = head.find(">", at), head.find("[", at)
        if 0 <= inside < close:
            close = head.find(">", head.find("]", inside)) if "]" in head[inside:] else -1
        return close + 1
    return at + 1


def _check_root(path: str, roots: tuple[str, ...]) -> None:
    """Raises UserError unless the file is XML with one of these root elements."""
    from lxml import etree

    parser = etree.XMLPullParser(events=("start",), **SAFE)
    with open_stream(path) as stream:
        while data := stream.read(1 << 16):
            try:
                parser.feed(data)
            except etree.LxmlError as error:
                raise _not_xml(error, path) from None
            for _, element in parser.read_events():
                if element.tag not in roots:
                    what = f"the root element is <{one_line(str(element.tag), 60)}>"
                    raise UserError(what, where=path, allowed=", ".join(roots))
                return
            if stream.count > MAX_RECORD:
                break
        what = "no XML element at its beginning" if stream.count else "the file is empty"
        raise UserError(what, where=path)


def _forget(element: Any) -> None:
    element.clear()
    parent = element.getparent()
    if parent is not None:
        while element.getprevious() is not None:
            del parent[0]


def parse_xml(data: bytes, where: str) -> Any:
    """The root element of a small document in memory. Raises UserError."""
    from lxml import etree

    parser = etree.XMLParser(**SAFE)
    try:
        root = etree.fromstring(data, parser)
    except (etree.LxmlError, ValueError) as error:
        raise _not_xml(error, where) from None
    if root is None:
        raise UserError("not valid XML (no element)", where=where)
    return root


def _not_xml(error: Exception, where: str) -> UserError:
    told = one_line((str(error).splitlines() or ["cut off"])[0], 200)
    line = getattr(error, "lineno", 0)
    return UserError(f"not valid XML ({told})", where=f"{where}:{line}" if line else where)


def text_in(element: Any, removed: Counter[str] | None = None) -> str:
    """All text inside an element as one line: inline tags gone, white space runs as one blank.

    A superscript behind a digit becomes `^`, so that 10<sup>6</sup> does not read 106. Elements
    named in REMOVED are left out and counted in `removed`, when that is given.
    """
    if element is None:
        return ""
    if removed is None and not len(element):
        return squeezed(element.text or "")
    pieces: list[str] = []
    _collect(element, pieces, removed)
    return squeezed("".join(pieces))


def _collect(element: Any, pieces: list[str], removed: Counter[str] | None) -> None:
    if element.text:
        pieces.append(element.text)
    for child in element:
        tag = child.tag if isinstance(child.tag, str) else ""
        if not tag:
            pieces.append(child.text or "")  # an entity that was not expanded
        elif removed is not None and (kind := removal(child, tag)):
            removed[kind] += 1
        else:
            if tag == "sup" and _DIGIT_LAST.search("".join(pieces[-2:])):
                pieces.append("^")
            _collect(child, pieces, removed)
            if tag in _BLOCKS:
                pieces.append(" ")
        if child.tail:
            pieces.append(child.tail)


def removal(element: Any, tag: str) -> str:
    """What an element is counted as when it is left out of a text; empty: it stays."""
    if tag == "xref":
        return "citation_removed" if element.get("ref-type") == "bibr" else ""
    return REMOVED.get(tag, "")


def squeezed(text: str) -> str:
    """HTML entities as characters, white space runs as one blank, ends cut."""
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    return " ".join(text.split())
