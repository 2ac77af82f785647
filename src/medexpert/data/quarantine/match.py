"""Records against the index: by id, exact question, shared run, near-duplicate.

The fast path hashes a record's windows of eight tokens and looks them up in a bitmap of the index's
anchors; only a record with a true anchor is compared with benchmark texts, token by token along the
diagonal that the anchor gives, so that no answer rests on a hash of a window alone.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medexpert.data import grams
from medexpert.data.quarantine.ids import Key, keys_of
from medexpert.data.quarantine.index import (
    ANCHOR,
    NEAR_GRAM,
    NEAR_LEAST,
    RUN,
    SEPARATOR,
    SHORT,
    Index,
    Places,
    anchor_hashes,
    exact_key,
    fingerprint,
    load_index,
)
from medexpert.records import Document, Example, UserError

WHOLE_TELLING = 5
"""Telling tokens that a text found from its first to its last word must have, if it is shorter than
RUN or mostly boilerplate: "which of the following statements is correct" has none."""
LONG = 50
"""Tokens of one run that make it a `substring` whatever the text's length: about 300 characters of
English, between Med-PaLM 2's 120 and 512."""
NEAR = 0.5
"""Share of a text's telling shingles that makes a near-duplicate. One word changed in twelve leaves
7 of 12 shingles (0.58); a question with other numbers and options stays above it."""
NEAR_WINDOW = 2.0
"""The shingles must lie within this many times the text's own length in the record, so that a book
does not hold every short question by its size."""
KINDS = ("id", "exact", "substring", "13gram", "near")
"""Strongest first; an item that is hit in several ways is reported by the first."""
_BITS_A_GRAM = 64  # of the bitmap: about 1.5 % of other windows pass it


@dataclass(frozen=True)
class Hit:
    """A benchmark item found in a record. `score` in 0..1 says how strong, by `kind`:

    id, exact: 1; substring: longest run / length of the text; 13gram: share of the text's windows
    of 13 tokens that the record holds; near: share of its telling shingles. `role` is the text that
    was found (question, context, answer, ...), empty for an id.
    """

    benchmark: str
    item: str
    kind: str
    score: float
    role: str = ""


@dataclass(frozen=True)
class Probe:
    """What a record is asked for: its identifiers, its exact keys' fingerprints, its tokens."""

    ids: frozenset[Key]
    exact: tuple[int, ...]
    words: grams.Hashes


class Quarantine:
    """An opened index. `guarded` counts, by benchmark, records that share a run of 13 tokens with
    it, but only boilerplate: they are not hits."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.guarded: Counter[str] = Counter()
        self._telling = np.concatenate([[0], np.cumsum(index.telling)]).astype(np.int32)
        self._bitmap, self._shift = _bitmap(index.grams)

    @classmethod
    def open(cls, file: str) -> Quarantine:
        """The index that `prepare` wrote, read once a process however often it is opened.

        Raises UserError for a missing or damaged file.
        """
        try:
            about = os.stat(file)
        except OSError:
            raise UserError("no such quarantine index", where=file) from None
        opened = copy(_loaded(file, about.st_mtime_ns, about.st_size))
        opened.guarded = Counter()
        return opened

    @property
    def facts(self) -> Mapping[str, Any]:
        """Benchmark -> what the index holds of it (see `prepare`)."""
        return self.index.facts

    def hit(self, record: Document | Example, words: grams.Hashes | None = None) -> Hit | None:
        """The strongest hit of a record, or None. `words` are the hashes of its content."""
        probe = self.probe(record, words)
        found = self._by_id(probe.ids) or self._by_exact(probe.exact) or self._by_text(probe.words)
        return min(found.items(), key=_strength)[1] if found else None

    def hits(self, record: Document | Example, words: grams.Hashes | None = None) -> list[Hit]:
        """Every benchmark item that a record holds, in the order of the index."""
        return self.hits_of(self.probe(record, words))

    def hits_of(self, probe: Probe) -> list[Hit]:
        """As `hits`, for a row that is no record of ours."""
        found = self._by_text(probe.words) if self.index.names else {}
        found |= self._by_exact(probe.exact)
        found |= self._by_id(probe.ids)
        return [hit for _, hit in sorted(found.items())]

    def probe(self, record: Document | Example, words: grams.Hashes | None = None) -> Probe:
        """Identifiers, exact question and tokens of a record; a document's title counts as text."""
        if words is None:
            words = grams.hashes(grams.content(record))
        exact: tuple[int, ...] = ()
        if isinstance(record, Document):
            if record.title and not record.text.startswith(record.title):
                words = with_title(record.title, words)
            exact = question_prints(record.title) if self.index.exact else ()
        elif self.index.exact:
            exact = _example_prints(record.fields)
        return Probe(frozenset(keys_of(record.id, record.ids)), exact, words)

    def _by_id(self, keys: Iterable[Key]) -> dict[int, Hit]:
        listed = self.index.ids
        return {at: self._hit(at, "id", 1.0) for key in keys for at in listed.get(key, ())}

    def _by_exact(self, prints: Sequence[int]) -> dict[int, Hit]:
        listed = self.index.exact
        return {
            at: self._hit(at, "exact", 1.0, "question")
            for value in prints
            for at in listed.get(value, ())
        }

    def _hit(self, at: int, kind: str, score: float, role: str = "") -> Hit:
        benchmark, item = self.index.items[at]
        return Hit(self.index.names[benchmark], item, kind, round(min(1.0, score), 4), role)

    def _by_text(self, words: grams.Hashes) -> dict[int, Hit]:
        """Item -> hit. Counts guarded runs."""
        if len(words) < ANCHOR:
            return {}
        windows = anchor_hashes(words)
        slots = windows >> self._shift
        # One byte of the bitmap holds eight slots.
        bits = self._bitmap[slots >> np.uint64(3)] >> (slots & np.uint64(7)).astype(np.uint8)
        maybe = np.flatnonzero(bits & 1)
        if not len(maybe):
            return {}
        index = self.index
        at = np.minimum(np.searchsorted(index.grams, windows[maybe]), len(index.grams) - 1)
        true = index.grams[at] == windows[maybe]
        if not true.any():
            return {}
        return self._compare(words, maybe[true], at[true])

    def _compare(self, words: grams.Hashes, here: Places, at: Places) -> dict[int, Hit]:
        """Compare along each anchor: `here` are places in the record, `at` anchors of the index."""
        index = self.index
        counts = index.first[at + 1] - index.first[at]
        ends = np.cumsum(counts)
        inner = np.arange(ends[-1]) - np.repeat(ends - counts, counts)
        place = index.place[np.repeat(index.first[at], counts) + inner]
        here = np.repeat(here, counts)
        query = np.searchsorted(index.starts, place, side="right") - 1
        told = self._telling[place + ANCHOR] > self._telling[place]
        runs = self._runs(words, query[told], (here - place)[told])
        found: dict[int, Hit] = {}
        ignored: set[int] = set()
        shingles = None
        for number, parts in runs.items():
            hit, plain = self._judge(number, parts)
            if hit is None:
                if shingles is None:
                    shingles = _Shingles(words)
                hit = self._near(number, shingles)
            item = int(index.item_of[number])
            if hit is None:
                ignored |= {index.items[item][0]} if plain else set()
            elif item not in found or _strength((item, hit)) < _strength((item, found[item])):
                found[item] = hit
        ignored |= self._mute(query[~told], here[~told])
        for benchmark in ignored - {index.items[item][0] for item in found}:
            self.guarded[index.names[benchmark]] += 1
        return found

    def _runs(
        self, words: grams.Hashes, query: Places, shift: Places
    ) -> dict[int, list[tuple[int, int]]]:
        """Query -> its runs (first, last + 1, in tokens of the query) of ANCHOR or more tokens.

        A run without a telling token is none.
        """
        index, told = self.index, self._telling
        runs: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for number, offset in sorted(set(zip(query.tolist(), shift.tolist(), strict=True))):
            start, end = int(index.starts[number]), int(index.starts[number + 1])
            low, high = max(start, -offset), min(end, len(words) - offset)
            same = words[low + offset : high + offset] == index.words[low:high]
            padded = np.concatenate([[False], same, [False]])
            edges = np.flatnonzero(padded[1:] != padded[:-1])
            for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
                if last - first >= ANCHOR and told[last + low] > told[first + low]:
                    runs[number].append((first + low - start, last + low - start))
        return runs

    def _judge(self, number: int, parts: list[tuple[int, int]]) -> tuple[Hit | None, bool]:
        """(hit by a run, whether there is a run of RUN tokens at all)."""
        index, told = self.index, self._telling
        start, end = int(index.starts[number]), int(index.starts[number + 1])
        size, stem = end - start, int(index.stems[number])
        best, passing, plain = 0, False, False
        whole = 0
        for first, last in parts:
            telling = int(told[start + last] - told[start + first])
            plain = plain or last - first >= RUN
            if last - first >= RUN and telling >= RUN:
                passing, best = True, max(best, last - first)
            for full in (size, stem) if first == 0 else ():
                # A question with its options is told apart by them, a bare question is not.
                least = 1 if 0 < stem < full else WHOLE_TELLING
                if SHORT <= full <= last and told[start + full] - told[start] >= least:
                    whole = max(whole, full)
        if not passing and not whole:
            return None, plain
        item, role = int(index.item_of[number]), index.roles[int(index.role_of[number])]
        if best >= LONG or whole >= RUN:
            return self._hit(item, "substring", max(best, whole) / size, role), plain
        return self._hit(item, "13gram", _share(parts, size, whole), role), plain

    def _near(self, number: int, shingles: _Shingles) -> Hit | None:
        index = self.index
        start, end = int(index.starts[number]), int(index.starts[number + 1])
        all_of = grams.ngrams(index.words[start:end], NEAR_GRAM)
        asked = np.unique(all_of[index.rare[start : start + len(all_of)]])
        if len(asked) < NEAR_LEAST:
            return None
        window = int(NEAR_WINDOW * (end - start))
        score = shingles.densest(asked, window, round(NEAR * len(asked) + 0.499)) / len(asked)
        if score < NEAR:
            return None
        role = index.roles[int(index.role_of[number])]
        return self._hit(int(index.item_of[number]), "near", score, role)

    def _mute(self, query: Places, here: Places) -> set[int]:
        """Benchmarks of which the record holds a run of RUN tokens, all of them boilerplate."""
        if len(here) <= RUN - ANCHOR:
            return set()
        items = self.index.item_of[query]
        owner = np.array([self.index.items[item][0] for item in items.tolist()], dtype=np.int64)
        found = set()
        for benchmark in np.unique(owner).tolist():
            places = np.unique(here[owner == benchmark])
            steps = RUN - ANCHOR
            if len(places) > steps and (places[steps:] - places[:-steps] == steps).any():
                found.add(benchmark)
        return found


@lru_cache(maxsize=2)
def _loaded(file: str, changed: int, size: int) -> Quarantine:
    return Quarantine(load_index(file))


class _Shingles:
    """A record's NEAR_GRAM windows, sorted once for every text that it is compared with."""

    def __init__(self, words: grams.Hashes) -> None:
        self.windows = grams.ngrams(words, NEAR_GRAM)
        self.order = np.argsort(self.windows, kind="stable")
        self.sorted = self.windows[self.order]

    def densest(self, asked: grams.Hashes, window: int, least: int) -> int:
        """The most distinct `asked` shingles that start within `window` tokens of each other.

        0 when the whole record holds fewer than `least`.
        """
        left = np.searchsorted(self.sorted, asked, side="left")
        right = np.searchsorted(self.sorted, asked, side="right")
        held = int((right > left).sum())
        if held < least or len(self.windows) <= window:
            return held if held >= least else 0
        seen: list[tuple[int, int]] = []
        for number, (first, last) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
            seen += [(place, number) for place in self.order[first:last].tolist()]
        seen.sort()
        inside: Counter[int] = Counter()
        best, tail = 0, 0
        for place, number in seen:
            inside[number] += 1
            while seen[tail][0] <= place - window:
                inside[seen[tail][1]] -= 1
                if not inside[seen[tail][1]]:
                    del inside[seen[tail][1]]
                tail += 1
            best = max(best, len(inside))
        return best


def with_title(title: str, words: grams.Hashes) -> grams.Hashes:
    """Title, separator, text: no window lies across the two."""
    return np.concatenate([grams.hashes(title), [SEPARATOR], words])


def question_prints(question: object, options: object = None) -> tuple[int, ...]:
    """Fingerprints of a question with its options, and of the question alone if it has none."""
    if not isinstance(question, str) or not question.strip():
        return ()
    values: list[str] = []
    if isinstance(options, Mapping):
        values = [str(value) for value in options.values()]
    elif isinstance(options, list | tuple):
        values = [str(value) for value in options]
    elif isinstance(options, str):
        values = options.split("\n")
    key = exact_key([question, *values])
    return (fingerprint(key),) if key else ()


def bare_prints(text: object) -> list[int]:
    """Fingerprints of what may be a bare question: a text and each of its lines.

    "Answer yes or no." may stand in the line before it. Only an item without options equals it.
    """
    if not isinstance(text, str):
        return []
    parts = dict.fromkeys((text, *text.split("\n")))
    return [value for part in parts for value in question_prints(part)]


def _example_prints(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Fingerprints of an example's question with its options and without, of a user's turns."""
    question, turns = fields.get("question"), fields.get("messages")
    options = fields.get("options")
    found = [*(question_prints(question, options) if options else ()), *bare_prints(question)]
    for turn in turns if isinstance(turns, list | tuple) else ():
        if isinstance(turn, Mapping) and turn.get("role") == "user":
            found += bare_prints(turn.get("content"))
    return tuple(dict.fromkeys(found))


def _strength(found: tuple[int, Hit]) -> tuple[int, float, int]:
    item, hit = found
    return KINDS.index(hit.kind), -hit.score, item


def _share(parts: list[tuple[int, int]], size: int, whole: int) -> float:
    """Share of a text's windows of RUN tokens in its runs; of its tokens where it is shorter."""
    if size < RUN:
        return whole / size
    held = np.zeros(size - RUN + 1, dtype=np.bool_)
    for first, last in parts:
        held[first : max(first, last - RUN + 1)] = True
    return max(float(held.mean()), whole / size)


def _bitmap(listed: grams.Hashes) -> tuple[NDArray[np.uint8], np.uint64]:
    """(bits by the top bits of a hash, how far to shift a hash for its slot)."""
    bits = max(12, int(len(listed) * _BITS_A_GRAM).bit_length())
    shift = np.uint64(64 - bits)
    slots = listed >> shift
    cells, values = slots >> np.uint64(3), np.uint8(1) << (slots & np.uint64(7)).astype(np.uint8)
    table = np.zeros(1 << (bits - 3), dtype=np.uint8)
    if len(listed):  # sorted hashes give sorted cells, so that each cell's bits lie together
        edges = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1]]))
        table[cells[edges]] = np.bitwise_or.reduceat(values, edges)
    return table, shift
