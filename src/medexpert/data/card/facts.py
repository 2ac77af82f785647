"""The facts of a build, as its manifest holds them and its data card shows them.

Counts are records before cutting ("documents") unless a name says otherwise. For each source

    read = faults + dropped + quarantined + duplicates + refused + heldout + kept

where `read` counts every row, also the bad ones, and `kept` documents become `records` of the
stage (a long document is cut, an example may be repeated by epochs).
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

FIRST_FAULTS = 5
"""Bad rows of a source that are told one by one; all are counted."""


class Input(TypedDict):
    """One file that was read."""

    file: str
    sha256: str
    bytes: int
    rows: NotRequired[int]


class Fault(TypedDict):
    """A bad row: its file (named as in `inputs`) and row; what is wrong may quote the row, so a
    published card and manifest leave `what` out."""

    where: str
    what: NotRequired[str]


class SourceFacts(TypedDict):
    """What became of one source in one stage."""

    role: str
    lang: str
    licence: str
    default_mix: bool
    note: str
    url: str
    citation: str
    limit: int
    read: int
    read_characters: int
    faults: int
    first_faults: list[Fault]
    dropped: dict[str, int]  # by reason; none of the reasons below
    quarantined: dict[str, dict[str, int]]  # benchmark -> kind of hit -> documents removed
    duplicates: dict[str, int]  # "exact", "near" -> documents removed
    refused: dict[str, int]  # reason (PHI policy) -> documents
    heldout: int
    kept: int
    changed: dict[str, int]
    redacted: dict[str, int]  # kind of protected health information -> places
    licences: dict[str, int]  # of documents kept or held out
    records: int
    characters: int
    tokens: NotRequired[int]
    unused_parts: NotRequired[int]  # of kept documents that were cut: replay may not need all
    target: float  # share wanted: of its group's records, times the group's share of the stage
    realised: float  # share of the stage's characters
    realised_records: NotRequired[float]  # share of the stage's records
    epochs: float
    inputs: list[Input]
    lengths: NotRequired[dict[str, int]]  # lower end of a bin (power of 2, characters) -> records
    languages: NotRequired[dict[str, int]]  # records by language
    seconds: NotRequired[float]


class StageFacts(TypedDict):
    """One stage: its sources and what was written."""

    records: int
    characters: int
    tokens: NotRequired[int]
    replay: NotRequired[dict[str, float]]  # target, realised
    sources: dict[str, SourceFacts]


class Guarded(TypedDict):
    """Runs that look like hits and are not: boilerplate that many texts share."""

    ngrams: int
    spared: int


class BenchmarkFacts(TypedDict):
    """One benchmark that the data was checked against."""

    listed: int  # identifiers
    items: int  # items whose text was at hand; 0 = by identifier only
    text: bool
    files: NotRequired[dict[str, str]]
    guarded: NotRequired[Guarded]


class CardFacts(TypedDict):
    """A build."""

    recipe: str
    seed: int
    quarantined: bool
    quarantine: dict[str, BenchmarkFacts]
    not_checked: list[str]
    stages: dict[str, StageFacts]
    settings: dict[str, Any]
    versions: dict[str, str]
    key: NotRequired[str]


class Sample(TypedDict):
    """A record shown in the card; cards that are published hold none."""

    stage: str
    source: str
    id: str
    text: str


DEBITS = ("faults", "dropped", "quarantined", "duplicates", "refused", "heldout")
"""What is taken from a source between `read` and `kept`, in the order of the build."""


def debits(source: SourceFacts) -> dict[str, int]:
    """Documents taken out of a source, by step."""
    return {
        "faults": source["faults"],
        "dropped": sum(source["dropped"].values()),
        "quarantined": sum(sum(kinds.values()) for kinds in source["quarantined"].values()),
        "duplicates": sum(source["duplicates"].values()),
        "refused": sum(source["refused"].values()),
        "heldout": source["heldout"],
    }


def unaccounted(source: SourceFacts) -> int:
    """Documents that the flow does not explain; 0 in any sound build."""
    return source["read"] - sum(debits(source).values()) - source["kept"]
