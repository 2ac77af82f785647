"""The first task of a build: one shard -> clean records, each with what later tasks compare by."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import IO, Any

from medexpert.data import catalogue, dedup, filters, grams, minhash, parts
from medexpert.data.build.bad_rows import Places, by_file, is_table, too_many
from medexpert.data.build.plan import Job, Shard
from medexpert.data.build.shards import Row, Writer
from medexpert.data.build.sources import open_items, rank, stamp, styled
from medexpert.data.build.store import Store
from medexpert.data.card.facts import FIRST_FAULTS
from medexpert.data.catalogue import SourceEntry
from medexpert.data.filters.language import language
from medexpert.data.quarantine import Hit, Quarantine
from medexpert.data.readers.pubmedqa import official_split
from medexpert.data.readers.rows import Change, Drop, Fault, Part
from medexpert.recipe_data import Source
from medexpert.records import Document, Example, UserError, to_json

REVOKES = "deleted_citation"
"""A reader's drop that takes back the record of this id in an earlier file (MEDLINE updates)."""
UNDETERMINED = "und"
"""ISO 639's code for a language that cannot be told."""
FAULTS_TO_STOP = 500
"""A file that can no longer be good is not read to its end: so many bad rows, over the share."""


@dataclass
class Counts:
    """What became of one shard's rows; `facts` is its JSON form."""

    read: int = 0
    characters: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    redacted: Counter[str] = field(default_factory=Counter)
    files: dict[str, list[int]] = field(default_factory=dict)  # [rows, bad rows, 1: a table]
    faults: list[tuple[str, str, str]] = field(default_factory=list)  # file, where, what
    revoked: list[tuple[int, int]] = field(default_factory=list)  # name, records before

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "read": self.read,
            "characters": self.characters,
            "dropped": dict(self.dropped),
            "changed": dict(self.changed),
            "hits": [[*key, n] for key, n in sorted(self.hits.items())],
            "redacted": dict(self.redacted),
            "files": self.files,
            "faults": self.faults,
            "revoked": self.revoked,
        }


def clean_shard(job: Job, store: Store, shard: Shard) -> None:
    """Write the lines, index, drops and facts of a shard; the facts last."""
    stem = f"clean/{shard.number:05d}"
    with ExitStack() as stack:
        lines = stack.enter_context(store.writer(f"{stem}.jsonl"))
        drops = stack.enter_context(store.writer(f"{stem}.drops.jsonl"))
        cleaner = Cleaner(job, store, shard, Writer(lines), drops)
        cleaner.run()
    store.write(f"{stem}.npz", cleaner.writer.index())
    store.write_json(
        f"{stem}.json",
        {
            "key": job.key,
            "stage": shard.stage,
            "source": shard.source,
            "records": cleaner.records,
            "lines": cleaner.lines,
            "tables": {name: list(codes) for name, codes in cleaner.writer.tables.items()},
            **cleaner.counts.facts(),
        },
    )


class Cleaner:
    """Takes the items of one shard, in order."""

    def __init__(
        self, job: Job, store: Store, shard: Shard, writer: Writer, drops: IO[bytes]
    ) -> None:
        self.job, self.shard, self.writer = job, shard, writer
        self.recipe = job.recipe
        self.settings = job.recipe.data
        self.source = job.source(shard)
        self.entry: SourceEntry = catalogue.find(shard.source)
        self.counts = Counts()
        self.records = self.lines = 0
        self._drops = drops
        self._quarantine = (
            Quarantine.open(str(store.local(job.quarantine))) if job.quarantine else None
        )
        self._learned = self._learned_from()
        self._places = Places(hidden=self.source.phi != "off")
        self._redactor: Any = None
        if self.source.phi != "off":
            from medexpert.data.privacy import Redactor

            self._redactor = Redactor.open(
                self.source.phi, model=self.source.phi_model, lang=self.entry.lang
            )

    def run(self) -> None:
        """Read every part to its end (or limit). Raises UserError for a file of bad rows."""
        if not self.shard.parts:
            self._read((), self.source)
        limit = self.source.limit  # of records, over all parts
        for part in self.shard.parts:
            count = self._read((part,), self.source.model_copy(update={"limit": limit}))
            if self.source.limit and (limit := limit - count) <= 0:
                break

    def _read(self, parts: tuple[Part, ...], source: Source) -> int:
        """Take the items of a part; returns how many were records (no change, no bad row)."""
        path = parts[0].path if parts else self.entry.name
        file = self._places.file(path)
        rows = self.counts.files.setdefault(file, [0, 0, int(is_table(self.entry, path))])
        count = 0
        for item in open_items(self.recipe, source, self.entry, parts, self.shard.of):
            count += not isinstance(item, Change | Fault)
            if isinstance(item, Change):
                self.counts.changed[item.what] += 1
                continue
            rows[0] += 1
            self.counts.read += 1
            if isinstance(item, Fault):
                rows[1] += 1
                self._fault(item, path, rows)
            elif isinstance(item, Drop):
                if item.reason == REVOKES:
                    name = name_of(self._places.record(item.id))
                    self.counts.revoked.append((name, self.records))
                self._drop(self._places.record(item.id), self._places.reason(item.reason))
            else:
                self._take(stamp(item, self.entry))
        return count

    def _fault(self, fault: Fault, path: str, rows: list[int]) -> None:
        file, where = self._places.file(path), self._places.row(path, fault.where)
        what = self._places.what(fault.what)
        first = [told[1:] for told in self.counts.faults if told[0] == file]
        if len(first) < FIRST_FAULTS:
            first.append((where, what))
            self.counts.faults.append((file, where, what))
        self._drop(where, "bad_row", what=what)
        read, bad, table = rows
        allowed = self.settings.max_bad_rows
        whole = by_file(self.entry, bool(table), read)
        if whole and bad >= FAULTS_TO_STOP and bad > allowed * read * 2:
            raise too_many(file, read, bad, allowed, first)

    def _take(self, record: Document | Example) -> None:
        self.counts.characters += characters(record)
        if self._redactor is not None:  # first: a later drop must not name what it hides
            try:
                record, found = self._redactor.record(record)
            except UserError as refusal:
                self._drop(self._places.record(record.id), "phi_refused", what=refusal.what)
                return
            self.counts.redacted.update(found)
        result = filters.filtered(record, self.settings.filters, min_chars=self.settings.min_chars)
        for change in result.changes:
            self.counts.changed[change] += 1
        if result.reason is not None:
            self._drop(record.id, result.reason)
            return
        tidied = self._tidied(result.record)
        if tidied is None:
            self._drop(record.id, "only_courtesies")
            return
        record = tidied
        if not record.lang:
            record = replace(record, lang=language(grams.content(record))[0] or UNDETERMINED)
        tokens = grams.tokens(grams.content(record))
        words = grams.hash_tokens(tokens)
        hit = self._hit(record, words)
        if hit is not None:
            self.counts.hits[hit.benchmark, hit.kind] += 1
            self._drop(
                record.id,
                f"quarantine_{hit.benchmark}",
                kind=hit.kind,
                item=hit.item,
                score=round(hit.score, 4),
            )
            return
        self._keep(record, tokens, words)

    def _tidied(self, record: Document | Example) -> Document | Example | None:
        """Medical talk without greetings, names and advertising; None when that was all of it."""
        if isinstance(record, Document) or self.source.role == "replay":
            return record
        fields, changes = tidied(record)
        if not changes:
            return record
        self.counts.changed.update(changes)
        spoken = [n for n in ("messages", "question", "answer", "rejected") if n in fields]
        return replace(record, fields=fields) if all(fields[name] for name in spoken) else None

    def _hit(self, record: Document | Example, words: grams.Hashes) -> Hit | None:
        if self._quarantine is None:
            return None
        if not self._learned:
            return self._quarantine.hit(record, words)
        for hit in self._quarantine.hits(record, words):
            if hit.benchmark != "pubmedqa" or hit.item not in self._learned:
                return hit
        return None

    def _learned_from(self) -> frozenset[str]:
        """PubMedQA's items that this source may hold: in stage 3 a user's examples (such as
        `data construct voc` makes) may be of those that its fold is trained on, never of others.

        The reader of PubMedQA yields these alone; what else such an item hits is shared wording.
        """
        if self.entry.reader == "pubmedqa":
            return official_split().everything()
        if self.entry.reader == "own_examples" and self.shard.stage == "adapt":
            return official_split().training(self.settings.dev_fold)
        return frozenset()

    def _keep(self, record: Document | Example, tokens: list[str], words: grams.Hashes) -> None:
        # A signature is of the set; shingles that repeat do not change it.
        shingles = grams.ngrams(words, min(minhash.SHINGLE, len(words)) or 1)
        near = self.settings.near_duplicates and len(shingles)
        seeded = rank(self.recipe.seed, record.id)
        label = ""
        if isinstance(record, Example) and record.kind == "task":
            label = str(record.fields["answer"])
        row = Row(
            rank=int.from_bytes(seeded[:8], "big"),
            name=name_of(record.id),
            detail=dedup.detail(tokens, record),
            prefer=dedup.preference(record),
            words=len(words),
            chars=characters(record),
            licence=record.licence,
            lang=record.lang,
            label=label,
            exact=dedup.fingerprint(record),
            bands=minhash.bands(minhash.signature(shingles)) if near else minhash.NO_BANDS,
        )
        pieces = [(to_json(piece), characters(piece)) for piece in self._pieces(record)]
        self.writer.add(row, pieces)
        self.records += 1
        self.lines += len(pieces)

    def _pieces(self, record: Document | Example) -> Iterator[Document | Example]:
        if isinstance(record, Example):
            yield styled(record, self.recipe.seed)
            return
        texts = parts.cut(record.text, self.settings.max_chars)
        for number, text in enumerate(texts, 1):
            name = record.id if len(texts) == 1 else f"{record.id}#{number}of{len(texts)}"
            yield replace(record, id=name, text=text)

    def _drop(self, identifier: str, reason: str, **more: Any) -> None:
        self.counts.dropped[reason] += 1
        row = {
            "source": self.entry.name,
            "id": identifier,
            "reason": reason,
            "stage": self.shard.stage,
            **more,
        }
        self._drops.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def tidied(record: Example) -> tuple[dict[str, Any], Counter[str]]:
    """The fields of a conversation or a question without courtesies, and what went, by kind.

    The `rejected` answer of a preference pair is tidied as the chosen one is, or "no greeting"
    would be what is learned from the pair; it is "" when it no longer answers the same turns.
    """
    from medexpert.data.construct import dialogue

    fields = dict(record.fields)
    changes: Counter[str] = Counter()
    rejected = fields.get("rejected")
    if record.kind == "conversation":
        given = fields["messages"]
        fields["messages"], changes = dialogue.tidy(given)
        if rejected is not None:
            text = isinstance(rejected, str)
            last = [*given[:-1], {**given[-1], "content": rejected}] if text else []
            turns, found = dialogue.tidy(last or rejected["messages"])
            changes |= found  # the turns before are in both
            chosen = fields["messages"]
            if not turns or turns[:-1] != chosen[:-1] or len(turns) != len(chosen):
                fields["rejected"] = ""
            else:
                fields["rejected"] = turns[-1]["content"] if text else {"messages": turns}
    elif record.kind == "qa":
        for name in ("question", "answer"):
            fields[name], found = dialogue.tidy_text(fields[name])
            changes += found
        if isinstance(rejected, str):
            fields["rejected"], found = dialogue.tidy_text(rejected)
            changes += found
        elif rejected is not None:
            parts = {name: dialogue.tidy_text(text) for name, text in rejected.items()}
            changes += sum((found for _, found in parts.values()), Counter())
            emptied = not all(text for text, _ in parts.values())
            fields["rejected"] = "" if emptied else {n: text for n, (text, _) in parts.items()}
    return fields, changes


def name_of(identifier: str) -> int:
    """A 64-bit hash of an id."""
    return int.from_bytes(rank(0, identifier)[:8], "big")


def characters(record: Document | Example) -> int:
    """Characters of text in a record (an example: of all its fields)."""
    if isinstance(record, Document):
        return len(record.text)
    return sum(map(len, filters.strings(record.fields)))
