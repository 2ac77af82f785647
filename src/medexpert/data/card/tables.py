"""Facts -> the card's sections as plain tables, which Markdown and HTML both print.

One source for both forms: a number cannot stand in one and be missing from the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medexpert.data.card.facts import DEBITS, FIRST_FAULTS, CardFacts, StageFacts
from medexpert.data.card.flow import NAMES, Flow, flows, reasons, sources_of, summed, totals


@dataclass(frozen=True)
class Table:
    """Column names and rows of text; the columns from `numbers` on are right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 1


@dataclass(frozen=True)
class Section:
    """A heading, what its tables say, and the tables; `figure` names a drawing of the HTML form."""

    title: str
    lead: str = ""
    tables: tuple[Table, ...] = ()
    figure: str = ""


def warning(facts: CardFacts) -> str:
    """The sentence above a card of data that was built without quarantine; else empty."""
    if facts["quarantined"]:
        return ""
    return (
        "Built without quarantine. Benchmark items may be in this data; a score of a model "
        "trained on it proves nothing."
    )


def sections(facts: CardFacts) -> list[Section]:
    """The card from top to bottom, empty sections left out. Raises UserError: see `flows`."""
    rows = flows(facts)
    found = [_flow(rows), _drops(facts), _quarantine(facts)]
    found += [_mix(stage, one) for stage, one in facts["stages"].items()]
    found += [_histogram(stage, one, "lengths") for stage, one in facts["stages"].items()]
    found += [_histogram(stage, one, "languages") for stage, one in facts["stages"].items()]
    found += [_licences(facts), _changes(facts), _redactions(facts), _faults(facts)]
    found += [_inputs(facts), _pairs("Settings", facts["settings"])]
    found += [_pairs("Versions", facts["versions"]), _unchecked(facts)]
    return [section for section in found if section is not None]


def _n(value: int) -> str:
    return f"{value:,}"


def _flow(rows: list[Flow]) -> Section:
    every = [*rows, totals(rows)] if len(rows) > 1 else rows
    names = [f"{row.stage}/{row.source}" if row.stage else row.source for row in every]
    documents = Table(
        ("source", "read", *(NAMES[step] for step in DEBITS), "kept"),
        tuple(
            (name, _n(row.read), *(_n(row.out[step]) for step in DEBITS), _n(row.kept))
            for name, row in zip(names, every, strict=True)
        ),
    )
    tokens = any(row.tokens for row in rows)
    written = Table(
        (
            "source",
            "documents kept",
            "records",
            "characters read",
            "characters written",
            *(("tokens written",) if tokens else ()),
        ),
        tuple(
            (
                name,
                _n(row.kept),
                _n(row.records),
                _n(row.read_characters),
                _n(row.characters),
                *((_n(row.tokens),) if tokens else ()),
            )
            for name, row in zip(names, every, strict=True)
        ),
    )
    lead = (
        "In documents: read = "
        + " + ".join(NAMES[step] for step in (*DEBITS, "kept"))
        + ". A long "
        "document becomes several records; a small source may be passed over more than once. "
        "Refused = for personal data."
    )
    return Section("From source to stage", lead, (documents, written), "flow")


def _drops(facts: CardFacts) -> Section | None:
    rows = []
    for stage, name, source in sources_of(facts):
        for reason, number in reasons(source).most_common():
            share = number / max(1, source["read"])
            rows.append((f"{stage}/{name}", reason, _n(number), f"{share:.2%}"))
    if not rows:
        return None
    return Section(
        "Taken out, by reason",
        "Held-out documents are not among them.",
        (Table(("source", "reason", "documents", "of those read"), tuple(rows), 2),),
    )


def _quarantine(facts: CardFacts) -> Section | None:
    if not facts["quarantine"]:
        return None
    against = tuple(
        (
            name,
            _n(entry["listed"]),
            _n(entry["items"]) if entry["text"] else "identifiers only",
            _n(entry["guarded"]["ngrams"]) if "guarded" in entry else "0",
            _n(entry["guarded"]["spared"]) if "guarded" in entry else "0",
        )
        for name, entry in facts["quarantine"].items()
    )
    hits = []
    for stage, place, source in sources_of(facts):
        for name, kinds in source["quarantined"].items():
            hits += [(f"{stage}/{place}", name, kind, _n(n)) for kind, n in kinds.items() if n]
    checked = Table(
        ("benchmark", "identifiers", "items with text", "guarded n-grams", "spared by the guard"),
        against,
    )
    found = Table(("source", "benchmark", "kind of hit", "documents removed"), tuple(hits), 3)
    lead = "Every source was searched for the items of these benchmarks. "
    lead += "A guarded n-gram is boilerplate that many texts share and is no hit by itself."
    if not hits:
        lead += " No document was hit."
    return Section("Quarantine", lead, (checked, found) if hits else (checked,))


def _mix(stage: str, facts: StageFacts) -> Section:
    tokens = any("tokens" in source for source in facts["sources"].values())
    columns = ["source", "role", "records", "characters"]
    columns += [*(("tokens",) if tokens else ()), "target", "of characters", "of records", "epochs"]
    rows = []
    for name, source in facts["sources"].items():
        cells = [name, source["role"], _n(source["records"]), _n(source["characters"])]
        if tokens:
            cells.append(_n(source["tokens"]) if "tokens" in source else "")
        of_records = source.get("realised_records", source["records"] / (facts["records"] or 1))
        cells += [f"{source['target']:.1%}", f"{source['realised']:.1%}", f"{of_records:.1%}"]
        cells.append(f"{source['epochs']:.2f}")
        rows.append(tuple(cells))
    lead = f"{_n(facts['records'])} records, {_n(facts['characters'])} characters"
    if "tokens" in facts:
        lead += f", {_n(facts['tokens'])} tokens"
    lead += (
        ". Target: a source's share of its group's records (training or replay), times the group's "
        "share. Realised: its share of the stage's characters, and of its records."
    )
    if unused := sum(one.get("unused_parts", 0) for one in facts["sources"].values()):
        lead += f" {_n(unused)} parts of long replay documents were not needed."
    if "replay" in facts:
        replay = facts["replay"]
        lead += f" Replay: {replay['realised']:.1%} realised, {replay['target']:.1%} wanted."
    return Section(
        f"Stage {stage}: mix", lead, (Table(tuple(columns), tuple(rows), 2),), f"mix:{stage}"
    )


def _histogram(stage: str, facts: StageFacts, what: str) -> Section | None:
    counts = summed(facts, what)
    if not counts:
        return None
    total = counts.total() or 1
    if what == "lengths":
        order = sorted(counts, key=int)
        label = {key: f"{int(key):,} to {max(0, 2 * int(key) - 1):,}" for key in order}
        title, column = f"Stage {stage}: length of records", "characters"
    else:
        order = [key for key, _ in counts.most_common()]
        label = {key: key or "not stated" for key in order}
        title, column = f"Stage {stage}: languages", "language"
    rows = tuple((label[key], _n(counts[key]), f"{counts[key] / total:.1%}") for key in order)
    return Section(title, "", (Table((column, "records", "share"), rows),), f"{what}:{stage}")


def _licences(facts: CardFacts) -> Section:
    rows = []
    for stage, name, source in sources_of(facts):
        counts: Mapping[str, int] = source["licences"] or {source["licence"]: 0}
        for licence, number in counts.items():
            default = "yes" if source["default_mix"] else "no"
            known = " ".join(part for part in (source["citation"], source["url"]) if part)
            rows.append((f"{stage}/{name}", licence, _n(number), default, known, source["note"]))
    lead = (
        "As stated upstream, counted over documents kept or held out. Default mix: no = naming the "
        "source in the recipe was the opt-in."
    )
    columns = ("source", "licence", "documents", "default mix", "citation", "note")
    return Section("Licences", lead, (Table(columns, tuple(rows), 9),))


def _changes(facts: CardFacts) -> Section | None:
    return _counted(facts, "changed", "Altered texts", "change", "documents")


def _redactions(facts: CardFacts) -> Section | None:
    return _counted(facts, "redacted", "Personal data redacted", "kind", "places")


def _counted(facts: CardFacts, key: str, title: str, what: str, unit: str) -> Section | None:
    rows = []
    for stage, name, source in sources_of(facts):
        counts: Mapping[str, int] = source[key]  # type: ignore[literal-required]
        rows += [(f"{stage}/{name}", kind, _n(number)) for kind, number in counts.items() if number]
    if not rows:
        return None
    return Section(title, "", (Table(("source", what, unit), tuple(rows), 2),))


def _faults(facts: CardFacts) -> Section | None:
    rows = []
    for stage, name, source in sources_of(facts):
        for fault in source["first_faults"][:FIRST_FAULTS]:
            rows.append((f"{stage}/{name}", fault["where"], fault.get("what", "not published")))
    if not rows:
        return None
    lead = f"The first {FIRST_FAULTS} of a source at most; the flow counts all."
    return Section("Bad rows", lead, (Table(("source", "place", "what"), tuple(rows), 9),))


def _inputs(facts: CardFacts) -> Section | None:
    rows = tuple(
        (f"{stage}/{name}", one["file"], _n(one["rows"]) if "rows" in one else "", _n(one["bytes"]),
         one["sha256"])
        for stage, name, source in sources_of(facts)
        for one in source["inputs"]
    )  # fmt: skip
    if not rows:
        return None
    return Section("Inputs", "", (Table(("source", "file", "rows", "bytes", "SHA-256"), rows, 9),))


def _pairs(title: str, values: Mapping[str, Any]) -> Section | None:
    rows = tuple((key, value) for key, value in _flat(values))
    return Section(title, "", (Table(("name", "value"), rows, 9),)) if rows else None


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found += _flat(value, f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found.append((name, ", ".join(map(str, value)) or "none"))
        else:
            found.append((name, str(value)))
    return found


def _unchecked(facts: CardFacts) -> Section | None:
    if not facts["not_checked"]:
        return None
    rows = tuple((text,) for text in facts["not_checked"])
    return Section("What was not checked", "", (Table(("",), rows, 9),))
