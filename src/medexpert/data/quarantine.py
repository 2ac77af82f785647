"""Benchmark items out of every training source, by identifier.

For PubMedQA all 1,000 PQA-L PMIDs leave, not only the 500 test items: a PubMed dump holds their
conclusions. The stage-3 source `pubmedqa` is the one exception; its reader yields its fold's 450
training items. What carries no identifier is not caught here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from medexpert.data.readers.pubmedqa import official_split
from medexpert.records import Document, Example, unknown_name

# pmid:123, PMID 123, pmid-00123, pubmedqa_123, https://pubmed.ncbi.nlm.nih.gov/123/
_PMID = re.compile(
    r"(?:https?://(?:www\.)?(?:pubmed\.ncbi\.nlm\.nih\.gov/|ncbi\.nlm\.nih\.gov/pubmed/)"
    r"|(?:pmid|pubmed|pubid|pqa)\D*|\#*)0*(\d{1,9})/?(?:\.0)?",
    re.IGNORECASE,
)
_KEYS = ("pmid", "pubmed", "pubmed_id", "pubid")

LISTS: dict[str, Callable[[], frozenset[str]]] = {
    "pubmedqa": lambda: official_split().everything(),
}


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
    found, others = set(), [record.id]
    for key, value in record.ids.items():
        if key.lower() in _KEYS:
            found |= {number.lstrip("0") for number in re.findall(r"\d+", value)}
        elif not value.strip().isdigit():
            # Other schemes (PMC..., DOI) count only when they spell out that they are PMIDs.
            others.append(value)
    return found | {pmid for value in others if (pmid := as_pmid(value)) is not None}


def hit(record: Document | Example, lists: Mapping[str, frozenset[str]]) -> str | None:
    """The benchmark whose list holds one of the record's PMIDs, or None."""
    if not lists:
        return None
    named = pmids(record)
    for name, listed in lists.items():
        if not listed.isdisjoint(named):
            return name
    return None
