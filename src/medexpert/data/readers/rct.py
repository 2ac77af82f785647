"""PubMed 20k/200k RCT (Dernoncourt and Lee 2017) -> Abstract.

`###PMID`, then a line `LABEL<tab>sentence` for each sentence, then an empty line. The sentences
are tokenised. The copies in which every digit was replaced by `@` hold no doses and no results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from medexpert.data.readers.abstracts import Abstract, AbstractItem, documents_from
from medexpert.data.readers.rows import Change, Drop, Fault, Part, Reader, Row
from medexpert.data.readers.streams import MAX_LINE, lines
from medexpert.records import UserError

LABELS = ("BACKGROUND", "OBJECTIVE", "METHODS", "RESULTS", "CONCLUSIONS")
MAX_SENTENCES = 2000
_CLOSING = re.compile(r" ([,.;:?!%)\]}])(?=[ ,.;:?!)\]]|$)")
_OPENING = re.compile(r"(?<= )([(\[{]) ")
_MASKED = re.compile(r"(?:^| )@+(?:[.,]@+)*(?= |$)")


def rows(part: Part) -> Iterator[Row | Fault]:
    """Rows `{pmid, sentences: [(label, sentence)]}`; `where` is the line of the PMID."""
    number = -1
    row: dict[str, Any] = {}
    start = ""
    faults: list[Fault] = []
    for count, line in lines(part.path):
        where = f"{part.path}:{count}"
        text = _text(line)
        if text is None:
            faults.append(Fault(where, "not UTF-8, or a line without end"))
        elif text.startswith("###"):
            if number < 0 and faults:
                raise UserError("this is no PubMed RCT file; it opens with ###PMID", where=where)
            yield from _flushed(part, number, start, row, faults)
            number += 1
            row, start, faults = {"pmid": text[3:].strip(), "sentences": []}, where, []
        elif text.strip():
            label, tab, sentence = text.partition("\t")
            if not row or not tab:
                faults.append(Fault(where, "a line LABEL<tab>sentence is expected"))
            elif len(row["sentences"]) >= MAX_SENTENCES:
                faults.append(Fault(where, f"more than {MAX_SENTENCES} sentences in one abstract"))
            else:
                row["sentences"].append((label, sentence.strip()))
            if not row and len(faults) >= 10:
                raise UserError("this is no PubMed RCT file; it opens with ###PMID", where=where)
            del faults[10:]
    if not row:
        raise UserError("this is no PubMed RCT file; it opens with ###PMID", where=part.path)
    yield from _flushed(part, number, start, row, faults)


def _text(line: bytes | None) -> str | None:
    if line is None or len(line) > MAX_LINE:
        return None
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _flushed(
    part: Part, number: int, start: str, row: dict[str, Any], faults: list[Fault]
) -> Iterator[Row | Fault]:
    """An abstract with a bad line is one Fault, at that line: half of it would mislead."""
    if number >= 0 and part.has(number):
        if faults:
            yield faults[0]
        else:
            yield start, row


def convert(where: str, row: Mapping[str, Any]) -> Iterator[AbstractItem]:
    """Neighbouring sentences of one label become one section, tokens joined to plain text."""
    pmid = row["pmid"]
    if not (pmid.isascii() and pmid.isdigit()):
        raise UserError(f"PMID {pmid[:40]!r} is no number", where=where)
    sections: list[tuple[str, list[str]]] = []
    for label, sentence in row["sentences"]:
        if label.upper() not in LABELS:
            raise UserError(f"label {label[:40]!r}", where=where, allowed=", ".join(LABELS))
        if not sections or sections[-1][0] != label.upper():
            sections.append((label.upper(), []))
        sections[-1][1].append(sentence)
    if not sections:
        yield Drop(pmid, "no_abstract")
        return
    texts = [(label, " ".join(sentences)) for label, sentences in sections]
    if any(_MASKED.search(text) for _, text in texts):
        yield Drop(pmid, "numbers_replaced_by_@")
        return
    tidied = [(label, _joined(text)) for label, text in texts]
    if tidied != texts:
        yield Change(pmid, "tokens_joined")
    yield Abstract(id=pmid, ids={"pmid": pmid}, title="", sections=tuple(tidied), lang="en")


def _joined(text: str) -> str:
    return _OPENING.sub(r"\1", _CLOSING.sub(r"\1", text))


READERS: dict[str, Reader] = {"pubmed_rct": Reader(rows, documents_from(convert))}
