"""Which benchmark items are in training files, whoever made them: the quarantine as a report.

`medexpert data audit FILE... --against pubmedqa --data DIR [--json]`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from medexpert.data import opened
from medexpert.data.quarantine import Found, Quarantine, Tally, index_of
from medexpert.data.quarantine.files import line_of, name_of, probe_of
from medexpert.data.quarantine.prepare import Facts, all_facts
from medexpert.data.readers.rows import Fault
from medexpert.records import UserError

MAX_BAD = 0.05
"""Share of bad rows over which a file is not what it seems; a report on the rest would mislead."""
ENOUGH = 200
"""Rows after which a file with too many bad rows is given up before its end."""
FAULTS_TOLD = 5
EVERY = 10.0  # seconds between lines of progress

Say = Callable[[str], None]


@dataclass(frozen=True)
class FileFacts:
    """What was read of one file."""

    file: str
    rows: int
    bad: int
    faults: tuple[Fault, ...]  # the first FAULTS_TOLD
    hits: int


@dataclass(frozen=True)
class Audit:
    """The result: every hit, counts by file and benchmark, what was and was not checked."""

    hits: tuple[Found, ...]
    files: tuple[FileFacts, ...]
    against: Facts
    tally: Tally = field(repr=False)

    @property
    def exit_code(self) -> int:
        """1 when there are hits, 0 without."""
        return 1 if self.hits else 0

    def as_json(self) -> str:
        """One JSON object: `hits` (every one), `summary`, `files`, `against`."""
        value: dict[str, Any] = {
            "hits": [found.row() for found in self.hits],
            "summary": self.tally.rows(),
            "files": [
                {
                    "file": one.file,
                    "rows": one.rows,
                    "bad_rows": one.bad,
                    "hits": one.hits,
                    "first_bad_rows": [vars(bad) for bad in one.faults],
                }
                for one in self.files
            ],
            "against": self.against,
        }
        return json.dumps(value, ensure_ascii=False, indent=1)

    def as_text(self) -> str:
        """The report for a reader: what was checked, counts and examples, bad rows."""
        lines = ["checked against:"]
        for name, facts in self.against.items():
            if not facts["checked"]:
                lines.append(f"  {name}: NOT CHECKED ({facts['why']})")
            elif not facts["text"]:
                lines.append(f"  {name}: {facts['ids']:,} items by id only; no text at hand")
            else:
                lines.append(
                    f"  {name}: {facts['items']:,} items, {facts['texts']:,} texts "
                    f"({facts['texts_too_short']:,} too short to match), {facts['ids']:,} ids"
                )
        lines.append("files:")
        for one in self.files:
            lines.append(f"  {one.file}: {one.rows:,} rows, {one.bad:,} bad, {one.hits:,} hits")
            lines += [f"    {bad.where}: {bad.what}" for bad in one.faults]
        lines += ["hits:" if self.hits else "no hits", *self.tally.lines()]
        return "\n".join(lines)


def audit(files: Sequence[str], against: Sequence[str], root: str, *, say: Say) -> Audit:
    """Look for benchmark items in training files of any schema.

    `against` are benchmarks of the catalogue, "all", or `file:PATH` (JSONL with `question`, and
    `choices`, `context`, `explanation`, `pmid`, ... where there are any); `root` is the folder of
    published benchmark files. Raises UserError for an unknown benchmark, a file that cannot be
    read, or one with more than MAX_BAD bad rows.
    """
    if not files:
        raise UserError("no file to audit", where="data audit")
    if not against:
        raise UserError("no benchmark to audit against", where="data audit", allowed="all, ...")
    index, missing = index_of(against, root, say=say)
    unread = sorted(name for name, facts in index.facts.items() if not facts["text"])
    if root and unread:
        raise UserError(
            f"no copy of benchmark {', '.join(unread)} here, so only ids could be compared",
            where=root,
            allowed="the folder of the published files; leave --data out to compare ids only",
        )
    if len(missing) and not any(facts["text"] for facts in index.facts.values()) and not root:
        say("WARNING: no benchmark's text was compared: name the folder of the files with --data")
    quarantine = Quarantine(index)
    tally = Tally()
    hits: list[Found] = []
    told: list[FileFacts] = []
    progress = _Progress(files, say)
    for file in dict.fromkeys(files):
        quarantine.guarded.clear()
        facts, found = _file(file, quarantine, progress)
        tally.add(found)
        tally.guard(file, quarantine.guarded)
        told.append(facts)
        hits += found
        progress.done(facts)
    return Audit(tuple(hits), tuple(told), all_facts(index, missing), tally)


def _file(file: str, quarantine: Quarantine, progress: _Progress) -> tuple[FileFacts, list[Found]]:
    rows = bad = 0
    faults: list[Fault] = []
    found: list[Found] = []
    last: dict[tuple[str, str], int] = {}
    overlapping = opened.suffix_of(file) in opened.TEXT
    for row in opened.rows(file):
        rows += 1
        if isinstance(row, Fault):
            bad += 1
            faults += [row] if len(faults) < FAULTS_TOLD else []
            if rows >= ENOUGH and bad > MAX_BAD * rows:
                raise _too_bad(file, rows, bad, faults)
            continue
        where, value = row
        line, probe = line_of(where) or rows, probe_of(value)
        for hit in quarantine.hits_of(probe):
            key = (hit.benchmark, hit.item)
            # Blocks of a text file overlap; what lies in both is one hit.
            repeated = overlapping and last.get(key) == rows - 1
            last[key] = rows
            if not repeated:
                found.append(Found(file, line, name_of(value) or str(line), hit))
        progress.row(rows, len(probe.words), len(found))
    if bad > MAX_BAD * rows:
        raise _too_bad(file, rows, bad, faults)
    return FileFacts(file, rows, bad, tuple(faults), len(found)), found


def _too_bad(file: str, rows: int, bad: int, faults: list[Fault]) -> UserError:
    first = "; ".join(f"{fault.where}: {fault.what}" for fault in faults[:3])
    return UserError(
        f"{bad:,} of the first {rows:,} rows are bad, over {MAX_BAD:.0%} (first: {first})",
        where=file,
    )


class _Progress:
    """A line every EVERY seconds: rows, rate, hits, and how long the rest may take.

    The time left is estimated from the tokens of what was read against the bytes of the files: how
    many tokens a byte on disk holds is learnt from the files already done.
    """

    def __init__(self, files: Sequence[str], say: Say) -> None:
        self.say = say
        self.sizes = [_size(file) for file in dict.fromkeys(files)]
        self.start = self.told = time.monotonic()
        self.at = 0
        self.tokens = self.before = self.bytes = 0

    def row(self, rows: int, tokens: int, hits: int) -> None:
        self.tokens += tokens
        if rows % 100 or time.monotonic() - self.told < EVERY:
            return
        self.told = time.monotonic()
        spent = self.told - self.start
        line = f"  {rows:,} rows, {self.tokens / spent:,.0f} words/s, {hits:,} hits"
        if self.bytes:  # after the first file
            density = self.before / self.bytes
            left = max(0.0, density * sum(self.sizes) - self.tokens)
            line += f", about {left * spent / self.tokens / 60:.0f} min left"
        self.say(line)

    def done(self, facts: FileFacts) -> None:
        self.bytes += self.sizes[self.at]
        self.before = self.tokens
        self.at += 1
        self.say(f"{facts.file}: {facts.rows:,} rows, {facts.bad:,} bad, {facts.hits:,} hits")


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except OSError:
        return 0
