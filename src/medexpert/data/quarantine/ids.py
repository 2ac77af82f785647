"""Identifiers: every way of writing one -> (scheme, value), and the lists that ship with us.

For PubMedQA all 1,000 PQA-L PMIDs leave, not only the 500 test items: a PubMed dump holds their
conclusions. The exceptions are in stage 3 alone: the source `pubmedqa`, whose reader yields its
fold's 450 training items, and examples made from these (`data.build.clean`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from medexpert.records import Document, Example, unknown_name

Key = tuple[str, str]

# pmid:123, PMID 123, pmid-00123, pubmedqa_123, https://pubmed.ncbi.nlm.nih.gov/123/; a piece of a
# document carries its number, 123#2. The digits of pqaa-PMC123 are no PMID.
_PIECE = r"(?:\#\d+)?"
_PMID = re.compile(
    r"(?:https?://(?:www\.)?(?:pubmed\.ncbi\.nlm\.nih\.gov/|ncbi\.nlm\.nih\.gov/pubmed/)"
    rf"|(?:pmid|pubmed|pubid|pqa)(?:(?!pmc)\D)*|\#*)0*(\d{{1,9}})/?(?:\.0)?{_PIECE}",
    re.IGNORECASE,
)
_PMCID = re.compile(
    r"(?:https?://\S*/)?(?:pmcid\W*|pqa\w?[-_: ])?pmc[-_: ]?0*(\d{1,9})(?:\.\d+)?/?" + _PIECE,
    re.IGNORECASE,
)
_DOI = re.compile(r"(?:https?://(?:dx\.)?doi\.org/|doi:?\s*)?(10\.\d{4,9}/\S+)", re.IGNORECASE)
_DIGITS = re.compile(r"\d+")
_KEYS = ("pmid", "pubmed", "pubmed_id", "pubid")
QUESTION_SCHEMES = ("qid", "id", "question_id", "questionid", "uid", "uuid")

LEAST_QUESTION_ID = 6
"""Characters of a question id that may match. HEAD-QA numbers its questions "1", "2", ...; such a
value says nothing about another file's row of the same number."""


def _pubmedqa() -> frozenset[str]:
    from medexpert.data.readers.pubmedqa import official_split

    return official_split().everything()


LISTS: dict[str, Callable[[], frozenset[str]]] = {"pubmedqa": _pubmedqa}


def load(names: Iterable[str]) -> dict[str, frozenset[str]]:
    """Benchmark -> the PMIDs that must leave. Raises UserError for an unknown benchmark."""
    found = {}
    for name in names:
        if name not in LISTS:
            raise unknown_name("quarantine list", name, LISTS, where="data.quarantine")
        found[name] = LISTS[name]()
    return found


def as_pmid(value: str) -> str | None:
    """The PMID a string stands for ("PMID: 0123" -> "123"), or None."""
    match = _PMID.fullmatch(value.strip())
    return match.group(1) if match else None


def pmids(record: Document | Example) -> set[str]:
    """Every PMID a record names: its own id where it is one, and its id fields."""
    return {value for scheme, value in keys_of(record.id, record.ids) if scheme == "pmid"}


def keys_of(name: str, ids: Mapping[str, str]) -> set[Key]:
    """Every (scheme, value) that a record's own id and its id fields stand for.

    Schemes: pmid, pmcid, doi, qid (a question id that is long enough to be one), and any other
    field name as it is.
    """
    found = _spelled(name, bare=True)
    if (key := _question_id(name)) is not None:
        found.add(key)
    for scheme, value in ids.items():
        found |= _keys(scheme.lower(), value)
    return found


def _keys(scheme: str, value: str) -> set[Key]:
    if scheme in _KEYS:
        return {("pmid", digits.lstrip("0")) for digits in _DIGITS.findall(value)}
    # Other schemes (PMC..., URL) count as PMIDs only when they spell out that they are.
    found = _spelled(value, bare=False)
    if scheme == "pmcid" and value.strip().isdigit():
        found.add(("pmcid", value.strip().lstrip("0")))
    elif scheme in QUESTION_SCHEMES:
        if (key := _question_id(value)) is not None:
            found.add(key)
    elif scheme not in ("pmcid", "doi") and value.strip():
        found.add((scheme, value.strip().casefold()))
    return found


def _spelled(value: str, *, bare: bool) -> set[Key]:
    """Identifiers whose scheme shows in how they are written; `bare` digits are a PMID."""
    value = value.strip()
    found: set[Key] = set()
    if (bare or not value.isdigit()) and (match := _PMID.fullmatch(value)):
        found.add(("pmid", match.group(1)))
    if match := _PMCID.fullmatch(value):
        found.add(("pmcid", match.group(1)))
    if match := _DOI.fullmatch(value):
        found.add(("doi", match.group(1).casefold()))
    return found


def _question_id(value: str) -> Key | None:
    value = value.strip().casefold()
    if len(value) < LEAST_QUESTION_ID or value.isdigit():
        return None
    return "qid", value


def hit(record: Document | Example, lists: Mapping[str, frozenset[str]]) -> str | None:
    """The benchmark whose list of PMIDs holds one of the record's, or None."""
    if not lists:
        return None
    named = pmids(record)
    for name, listed in lists.items():
        if not listed.isdisjoint(named):
            return name
    return None
