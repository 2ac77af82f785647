"""One source of a stage: open, read, take out with a reason, cut, and set aside on disk (spool).

Only offsets and sizes stay in memory, so a source may be larger than memory.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple

from medexpert.data import catalogue, filters, parts, quarantine
from medexpert.data.catalogue import SourceEntry
from medexpert.data.dedup import Seen
from medexpert.data.readers import READERS
from medexpert.data.readers.pubmedqa import fold_questions, official_split
from medexpert.data.readers.rows import Change, Drop, Item
from medexpert.recipe import Run, Source, StageName
from medexpert.records import Document, Example, UserError, to_json

REPORT_EVERY = 20_000


class Slot(NamedTuple):
    """A record in the spool: where, how long, its characters, and which document it is part of."""

    offset: int
    length: int
    characters: int
    parent: int


@dataclass
class Flow:
    """What became of one source. `documents` are records before cutting, `slots` after it."""

    entry: SourceEntry
    source: Source
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    documents: list[str] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    heldout: list[Slot] = field(default_factory=list)
    heldout_documents: int = 0
    seconds: float = 0.0


class Spool:
    """Lines set aside in one temporary file, read back by position."""

    def __init__(self, path: Path) -> None:
        self._handle: IO[bytes] = path.open("w+b")
        self._end = 0

    def add(self, line: str) -> tuple[int, int]:
        raw = line.encode("utf-8") + b"\n"
        self._handle.write(raw)
        self._end += len(raw)
        return self._end - len(raw), len(raw)

    def get(self, slot: Slot) -> bytes:
        self._handle.seek(slot.offset)
        return self._handle.read(slot.length)

    def close(self) -> None:
        self._handle.close()


@dataclass
class Gatherer:
    """Reads the sources of one stage after each other; duplicates are seen across all of them."""

    recipe: Run
    stage: StageName
    spool: Spool
    drop: Callable[[dict[str, str]], None]
    progress: Callable[[str], None]
    lists: Mapping[str, frozenset[str]]
    seen: Seen = field(default_factory=Seen)

    def gather(self, source: Source) -> Flow:
        """Read one source to its end (or limit). Raises UserError at the first malformed row."""
        entry = catalogue.find(source.source, where=f"data.{self.stage}")
        flow = Flow(entry, source)
        started = time.perf_counter()
        identifiers: set[str] = set()
        for item in limited(open_source(self.recipe, self.stage, source, entry), source.limit):
            if isinstance(item, Change):
                flow.changed[item.what] += 1
                continue
            flow.read += 1
            if item.id in identifiers:
                raise UserError(f"id {item.id!r} occurs twice", where=f"source {entry.name}")
            identifiers.add(item.id)
            self._take(flow, item)
            if flow.read % REPORT_EVERY == 0:
                self._say(flow, time.perf_counter() - started)
        self._hold_out(flow)
        flow.seconds = time.perf_counter() - started
        self._say(flow, flow.seconds)
        return flow

    def _take(self, flow: Flow, item: Document | Example | Drop) -> None:
        if isinstance(item, Drop):
            self._drop(flow, item.id, item.reason)
            return
        record = stamp(item, flow.entry)
        reason = self._reason(flow, record)
        if reason is None:
            record, changed = cleaned(record)
            if changed:
                flow.changed["normalised"] += 1
            reason = self.seen.reason(record, flow.entry.name)
        if reason is not None:
            self._drop(flow, record.id, reason)
            return
        flow.licences[record.licence] += 1
        parent = len(flow.documents)
        flow.documents.append(record.id)
        for part in self._parts(record):
            offset, length = self.spool.add(to_json(part))
            flow.slots.append(Slot(offset, length, characters(part), parent))

    def _reason(self, flow: Flow, record: Document | Example) -> str | None:
        # The PubMedQA reader itself yields only its fold's training items.
        if flow.entry.reader != "pubmedqa":
            benchmark = quarantine.hit(record, self.lists)
            if benchmark is not None:
                flow.hits[benchmark] += 1
                return f"quarantine_{benchmark}"
        if isinstance(record, Document):
            return filters.document_reason(record, min_chars=self.recipe.data.min_chars)
        return filters.example_reason(record)

    def _parts(self, record: Document | Example) -> Iterator[Document | Example]:
        if isinstance(record, Example):
            yield styled(record, self.recipe.seed)
            return
        texts = parts.cut(record.text, self.recipe.data.max_chars)
        for number, text in enumerate(texts, 1):
            name = record.id if len(texts) == 1 else f"{record.id}#{number}"
            yield replace(record, id=name, text=text)

    def _drop(self, flow: Flow, identifier: str, reason: str) -> None:
        flow.dropped[reason] += 1
        row = {"source": flow.entry.name, "id": identifier, "reason": reason, "stage": self.stage}
        self.drop(row)

    def _hold_out(self, flow: Flow) -> None:
        """Set aside the documents whose seeded hash is smallest, whatever the file's order."""
        wanted = flow.source.heldout
        if not wanted:
            return
        if wanted > len(flow.documents):
            raise UserError(
                f"heldout = {wanted}, but source {flow.entry.name!r} has {len(flow.documents)} "
                "documents after filtering",
                where=f"data.{self.stage}",
            )
        ranked = sorted(
            range(len(flow.documents)), key=lambda i: rank(self.recipe.seed, flow.documents[i])
        )
        chosen = set(ranked[:wanted])
        flow.heldout = [slot for slot in flow.slots if slot.parent in chosen]
        flow.slots = [slot for slot in flow.slots if slot.parent not in chosen]
        flow.heldout_documents = wanted

    def _say(self, flow: Flow, seconds: float) -> None:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in flow.dropped.most_common())
        self.progress(
            f"data {self.stage} {flow.entry.name}: read {flow.read:,}, "
            f"dropped {flow.dropped.total():,}{f' ({reasons})' if reasons else ''}, "
            f"held out {flow.heldout_documents:,}, "
            f"{flow.read / max(seconds, 1e-9):,.0f} records/s"
        )


def limited(items: Iterator[Item], limit: int) -> Iterator[Item]:
    """The first `limit` records (0 = all); a Change is no record."""
    if not limit:
        yield from items
        return
    count = 0
    for item in items:
        yield item
        count += not isinstance(item, Change)
        if count == limit:
            return


def source_list_problems(recipe: Run) -> list[str]:
    """One line for each stage without a source and each source that a stage names twice."""
    problems = []
    for stage in recipe.stages():
        names = [source.source for source in recipe.sources(stage)]
        if not names:
            problems.append(f"data.{stage}: the stage is switched on, but no source is listed")
        problems += [
            f"data.{stage}: source {name!r} is listed twice"
            for name in sorted(set(names))
            if names.count(name) > 1
        ]
    return problems


def check_use(stage: StageName, source: Source, entry: SourceEntry) -> None:
    """Raises UserError when a source cannot serve this stage or its settings do not fit it."""
    where = f"data.{stage} source {entry.name!r}"
    if (entry.stage == "knowledge") != (stage == "knowledge"):
        fits = "knowledge" if entry.stage == "knowledge" else "instruct, adapt"
        raise UserError("this source does not fit this stage", where=where, allowed=fits)
    if entry.reader == "pubmedqa" and stage != "adapt":
        raise UserError("PubMedQA's items are for one stage", where=where, allowed="adapt")
    if entry.reader == "trialgen" and not source.limit:
        raise UserError("limit = number of items to generate is needed", where=where)
    if source.heldout and stage != "knowledge":
        raise UserError("heldout is for documents", where=where, allowed="stage knowledge")
    if source.fold and entry.reader != "pubmedqa":
        raise UserError("fold is for source 'pubmedqa'", where=where)


def open_source(
    recipe: Run, stage: StageName, source: Source, entry: SourceEntry
) -> Iterator[Item]:
    """The items of a source, as its reader yields them. Raises UserError."""
    check_use(stage, source, entry)
    paths = catalogue.locate(entry, recipe.data.root, source.path)
    if entry.reader == "pubmedqa":
        return _pubmedqa(paths[0], source.fold)
    if entry.reader == "trialgen":
        return _trialgen(source.limit, recipe.seed)
    return READERS[entry.reader](paths)


def _pubmedqa(place: Path, fold: int) -> Iterator[Item]:
    train, dev = fold_questions(place, fold)
    kept_out = {*official_split().test, *(question.id for question in dev)}
    for question in train:
        assert question.id not in kept_out  # the split lists are disjoint; tested
        yield task_example(
            question.id,
            question.question,
            question.contexts,
            question.answer,
            {"pmid": question.id},
        )


def _trialgen(n: int, seed: int) -> Iterator[Item]:
    from medexpert.data.construct.trialgen import generate

    for item in islice(generate(n, seed, "train"), n):
        yield task_example(item.id, item.question, item.contexts, item.answer, {})


def task_example(
    identifier: str,
    question: str,
    contexts: tuple[str, ...] | list[str],
    answer: str,
    ids: Mapping[str, str],
) -> Example:
    """A stage-3 item: the text that `direct` scores, followed by the answer."""
    return Example(
        id=identifier,
        source="",
        kind="task",
        template="pubmedqa.lm_eval",
        fields={"question": question, "contexts": list(contexts), "answer": answer},
        ids=ids,
        lang="",
    )


def stamp(record: Document | Example, entry: SourceEntry) -> Document | Example:
    """Put the catalogue's name on a record; its collection inside the file moves to the ids."""
    ids = dict(record.ids)
    if record.source and record.source != entry.name:
        ids.setdefault("collection", record.source)
    return replace(
        record,
        source=entry.name,
        ids=ids,
        lang=record.lang or entry.lang.split(",")[0],
        licence=record.licence or entry.licence,
    )


def cleaned(record: Document | Example) -> tuple[Document | Example, bool]:
    """The record with clean text, and whether anything changed."""
    if isinstance(record, Document):
        text, title = filters.clean(record.text), filters.clean(record.title)
        same = (text, title) == (record.text, record.title)
        return (record, False) if same else (replace(record, text=text, title=title), True)
    fields = filters.clean_value(record.fields)
    if filters.strings(fields) == filters.strings(record.fields):
        return record, False
    return replace(record, fields=fields), True


def styled(example: Example, seed: int) -> Example:
    """Multi-choice answers in two styles, half and half by hash: the label, or reason first."""
    if example.kind != "mcq":
        return example
    reason = example.fields["explanation"] and rank(seed, example.id)[0] % 2
    return replace(example, template="chat.mcq_reason" if reason else "chat.mcq_label")


def rank(seed: int, identifier: str) -> bytes:
    """A seeded hash of an id: an order that no file's order can change."""
    return hashlib.sha256(json.dumps([seed, identifier]).encode()).digest()


def characters(record: Document | Example) -> int:
    """Characters of text in a record (an example: of all its fields)."""
    if isinstance(record, Document):
        return len(record.text)
    return sum(map(len, filters.strings(record.fields)))
