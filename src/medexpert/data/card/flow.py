"""Facts -> the rows of the flow: where each document and each character of a build went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from medexpert.data.card.facts import DEBITS, CardFacts, SourceFacts, StageFacts, debits
from medexpert.records import UserError

NAMES = {
    "faults": "bad rows",
    "dropped": "filtered",
    "quarantined": "quarantined",
    "duplicates": "duplicates",
    "refused": "refused",
    "heldout": "held out",
    "kept": "kept",
}


@dataclass(frozen=True)
class Flow:
    """One source's way into one stage, in documents; `out` has an entry for each of DEBITS.

    `characters` and `tokens` are of the records written, `read_characters` of all that was read.
    """

    stage: str
    source: str
    read: int
    out: Mapping[str, int]
    kept: int
    records: int
    characters: int
    read_characters: int = 0
    tokens: int = 0


def flows(facts: CardFacts) -> list[Flow]:
    """One a source, in the order of the build.

    Raises UserError when a source's numbers do not add up: such a card must not be written.
    """
    found = []
    for stage, stage_facts in facts["stages"].items():
        for name, source in stage_facts["sources"].items():
            out = debits(source)
            missing = source["read"] - sum(out.values()) - source["kept"]
            if missing:
                raise UserError(
                    f"{missing:,} of {source['read']:,} documents are unaccounted for",
                    where=f"data card, {stage}/{name}",
                )
            found.append(
                Flow(
                    stage,
                    name,
                    source["read"],
                    out,
                    source["kept"],
                    source["records"],
                    source["characters"],
                    source["read_characters"],
                    source.get("tokens", 0),
                )
            )
        _check_stage(stage, stage_facts)
    return found


def _check_stage(stage: str, facts: StageFacts) -> None:
    for what in ("records", "characters"):
        total = sum(int(source[what]) for source in facts["sources"].values())
        if total != facts[what]:
            raise UserError(
                f"the sources' {what} sum to {total:,}, the stage has {facts[what]:,}",
                where=f"data card, {stage}",
            )


def totals(rows: list[Flow]) -> Flow:
    """The sum of all flows."""
    out = {step: sum(row.out[step] for row in rows) for step in DEBITS}
    return Flow(
        "",
        "all",
        sum(row.read for row in rows),
        out,
        sum(row.kept for row in rows),
        sum(row.records for row in rows),
        sum(row.characters for row in rows),
        sum(row.read_characters for row in rows),
        sum(row.tokens for row in rows),
    )


def reasons(source: SourceFacts) -> Counter[str]:
    """Documents taken out by the finest reason that the facts hold."""
    found: Counter[str] = Counter(source["dropped"])
    for benchmark, kinds in source["quarantined"].items():
        found[f"quarantine: {benchmark}"] += sum(kinds.values())
    for kind, number in source["duplicates"].items():
        found[f"duplicate: {kind}"] += number
    for reason, number in source["refused"].items():
        found[f"refused: {reason}"] += number
    if source["faults"]:
        found["bad row"] += source["faults"]
    return +found


def length_bin(characters: int) -> int:
    """Lower end of the power-of-two bin that holds a length (0 for an empty text)."""
    return 1 << (characters.bit_length() - 1) if characters > 0 else 0


def summed(stage: StageFacts, name: str) -> Counter[str]:
    """A histogram (`lengths` or `languages`) over the sources of a stage."""
    total: Counter[str] = Counter()
    for source in stage["sources"].values():
        found: Mapping[str, int] = source.get(name, {})  # type: ignore[assignment]
        total.update(found)
    return total


def sources_of(facts: CardFacts) -> list[tuple[str, str, SourceFacts]]:
    """(stage, name, facts) of every source."""
    return [
        (stage, name, source)
        for stage, stage_facts in facts["stages"].items()
        for name, source in stage_facts["sources"].items()
    ]
