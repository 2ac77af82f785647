"""Exact and near-duplicates within a stage, across its sources; the best copy stays.

Exact: equal text after NFKC, case folding and folding of blanks. Punctuation stays: two items that
differ only in `<` and `>` are different. Near: Jaccard similarity of the sets of 5-token shingles
at least a threshold, found by MinHash bands and confirmed on the sets themselves. Two texts that
differ in a number (5 mg, 10 mg; p < 0.05, p > 0.05), in their question or in their answer are never
near-duplicates: another question about the same abstract is another item.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medexpert.data import grams
from medexpert.data.build.shards import Index, Lines
from medexpert.data.catalogue import is_free
from medexpert.data.filters import strings
from medexpert.data.minhash import SHINGLE
from medexpert.records import Document, Example

Pairs = NDArray[np.int64]
"""Record numbers, shape [n, 2], the smaller first, sorted, each pair once."""

BUCKET = 40
"""Records of a bucket that are compared with each other. In a larger one each is compared with its
next `NEIGHBOURS` and with the first `HEADS` records, in the order of what tells alike texts apart
(numbers, question, answer), so that a bucket costs no square and copies still stand together."""
NEIGHBOURS = 20
HEADS = 5

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_FREE = re.compile(r"cc[- ]?by(?:[- ]\d\.\d)?|cc[- ]?0.*|mit|apache[- ]2\.0|public domain")
_SIGNS = "<>=-\u2264\u2265\u00b1\u2212"
_ANSWER = {"task": "answer", "mcq": "answer_idx"}


def normalise(text: str) -> str:
    """The text as compared for exact duplicates."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().split())


def fingerprint(record: Document | Example) -> bytes:
    """16 bytes that are equal for records of equal normalised content (title and ids left out)."""
    texts = [record.text] if isinstance(record, Document) else strings(record.fields)
    joined = "\x1f".join(normalise(text) for text in texts)
    return hashlib.blake2b(joined.encode("utf-8", "replace"), digest_size=16).digest()


def exact_copies(exact: NDArray[np.uint64], prefer: NDArray[Any]) -> NDArray[np.int64]:
    """For each record the number of the copy that stays: itself where it is the best or only one.

    `exact`: fingerprints, shape [n, 2]. The best is the least by (prefer, number).
    """
    n = len(prefer)
    order = np.lexsort((np.arange(n), prefer, exact[:, 1], exact[:, 0]))
    ordered = exact[order]
    new = np.ones(n, dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    best = order[new][np.cumsum(new) - 1]
    kept = np.empty(n, dtype=np.int64)
    kept[order] = best
    return kept


def candidates(index: Index, band: int) -> tuple[Pairs, int]:
    """Pairs that share a bucket of one band, and how many buckets were too large for all pairs.

    `index` holds the columns exact, prefer, detail and the band's. Exact copies stay out.
    """
    exact, prefer, detail = (index.columns[name] for name in ("exact", "prefer", "detail"))
    numbers = np.flatnonzero(exact_copies(exact, prefer) == np.arange(len(index)))
    keys = index.columns[f"band{band}"][numbers]
    numbers, keys = numbers[keys != 0], keys[keys != 0]  # 0: a text without a token
    order = np.lexsort((numbers, prefer[numbers], detail[numbers], keys))
    numbers, keys = numbers[order], keys[order]
    edges = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    sizes = np.diff(edges)
    found: list[NDArray[np.int64]] = []
    pairs_of_two = edges[:-1][sizes == 2]
    found.append(np.stack([numbers[pairs_of_two], numbers[pairs_of_two + 1]], axis=1))
    capped = 0
    for start, size in zip(edges[:-1][sizes > 2], sizes[sizes > 2], strict=True):
        bucket = numbers[start : start + size]
        capped += int(size > BUCKET)
        found.append(_pairs(bucket))
    return unique(np.concatenate(found)), capped


def _pairs(bucket: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(bucket) <= BUCKET:
        first, second = np.triu_indices(len(bucket), 1)
        return np.stack([bucket[first], bucket[second]], axis=1)
    pairs = [
        np.stack([np.full(len(bucket) - i - 1, bucket[i]), bucket[i + 1 :]], axis=1)
        for i in range(HEADS)
    ]
    pairs += [
        np.stack([bucket[:-step], bucket[step:]], axis=1) for step in range(1, NEIGHBOURS + 1)
    ]
    return np.concatenate(pairs)


def unique(pairs: NDArray[np.int64]) -> Pairs:
    """Each pair once, the smaller number first, sorted."""
    return np.unique(np.sort(pairs.reshape(-1, 2), axis=1), axis=0)


class Facts(NamedTuple):
    """What a record is compared by: shingles, question's tokens, answer, text."""

    shingles: grams.Hashes
    asked: tuple[str, ...]
    answer: str
    text: str


class Verifier:
    """Confirms candidate pairs on the records themselves."""

    KEPT = 4096

    def __init__(
        self, index: Index, lines: Lines, *, jaccard: float, numbers_must_agree: bool
    ) -> None:
        self._index, self._lines = index, lines
        self._jaccard, self._numbers = jaccard, numbers_must_agree
        self._facts = lru_cache(maxsize=self.KEPT)(self._load)
        self._counts = lru_cache(maxsize=self.KEPT)(self._numbers_of)
        self.spared: Counter[str] = Counter()
        self.apart: list[tuple[int, int]] = []
        """Pairs alike but for their numbers."""

    def confirm(self, pairs: Pairs) -> Pairs:
        """The near-duplicates among them. `spared` counts those that differ in what matters."""
        kept = [row for row, (a, b) in enumerate(pairs.tolist()) if self._same(a, b)]
        return pairs[kept]

    def _same(self, a: int, b: int) -> bool:
        first, second = self._facts(a), self._facts(b)
        # |A and B| <= min: sizes alone rule most pairs out, at no cost.
        small, large = sorted((len(first.shingles), len(second.shingles)))
        if small < self._jaccard * large:
            return False
        if grams.jaccard(first.shingles, second.shingles) < self._jaccard:
            return False
        if first.asked != second.asked:
            self.spared["questions_differ"] += 1
            return False
        if first.answer != second.answer:
            self.spared["answers_differ"] += 1
            return False
        if self._numbers and not numbers_agree(self._counts(a), self._counts(b)):
            self.spared["numbers_differ"] += 1
            self.apart.append((a, b))
            return False
        return True

    def _numbers_of(self, number: int) -> Mapping[str, int]:
        return Counter(numbers_of(self._facts(number).text))

    def _load(self, number: int) -> Facts:
        index = self._index
        shard = int(index.shard_of(np.array([number]))[0])
        stem = index.shards[shard].stem
        columns = index.columns
        first = int(columns["first"][number]) + int(self._line_starts()[shard])
        last = first + int(columns["lines"][number]) - 1
        start = int(columns["offset"][first])
        end = int(columns["offset"][last]) + int(columns["length"][last])
        rows = [
            json.loads(line) for line in self._lines.read(stem, start, end - start).splitlines()
        ]
        asked: tuple[str, ...] = ()
        if "text" in rows[0]:
            text, answer = "".join(row["text"] for row in rows), ""
        else:
            text = "\n".join(strings(rows[0]["fields"]))
            asked = tuple(grams.tokens(str(rows[0]["fields"].get("question", ""))))
            answer = answer_of(rows[0])
        shingles = grams.shingles(grams.hashes(text), SHINGLE)
        return Facts(shingles, asked, answer, text)

    @lru_cache(maxsize=1)  # noqa: B019 - one verifier a task
    def _line_starts(self) -> NDArray[np.int64]:
        """Where the lines of each shard start in the concatenated line columns."""
        counts = [int(shard.facts["lines"]) for shard in self._index.shards]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def numbers_of(text: str) -> list[str]:
    """Every number of a text with the sign before it (minus, comparison), after NFKC."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    found = []
    for match in _NUMBER.finditer(text):
        before = text[max(0, match.start() - 3) : match.start()].rstrip()
        sign = before[-1:].replace("\u2212", "-") if before[-1:] in _SIGNS else ""
        found.append(sign + match.group())
    return found


def numbers_agree(first: Mapping[str, int], second: Mapping[str, int]) -> bool:
    """False when each text has a number that the other lacks: one stands where the other stood.

    A number that only one of them has (a longer copy) is no contradiction.
    """
    return not (any(first[n] > second.get(n, 0) for n in first)
                and any(second[n] > first.get(n, 0) for n in second))  # fmt: skip


def detail(words: Sequence[str], record: Document | Example) -> int:
    """A hash of what tells alike texts apart: numbers among the tokens, question, answers."""
    numbers = [word for word in words if word[0] <= "9"]  # no token begins before "0"
    fields = {} if isinstance(record, Document) else record.fields
    told = [str(fields.get(name, "")) for name in ("question", "answer", "answer_idx", "rejected")]
    text = "\x1f".join([*told, *sorted(numbers)])
    raw = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(raw, "little")


def answer_of(row: Mapping[str, Any]) -> str:
    """The answer of a task or multi-choice record: with another answer it is another item, as is a
    task of another template or about another choice.

    So it is with another `rejected` answer of a preference pair, of any kind.
    """
    rejected = strings(row["fields"].get("rejected"))
    return "\x1f".join([_chosen(row), *map(normalise, rejected)])


def _chosen(row: Mapping[str, Any]) -> str:
    field = _ANSWER.get(row["kind"])
    if field is None:
        return ""
    answer = str(row["fields"][field])
    options = row["fields"].get("options")
    text = str(options.get(answer, answer)) if isinstance(options, dict) else answer
    if row["kind"] != "task":
        return text
    # A verdict, the reasoning to it and a choice explained begin with the same abstract.
    return "\x1f".join([text, row["template"], str(row["fields"].get("choice", ""))])


def decide(
    exact: NDArray[np.uint64], prefer: NDArray[Any], confirmed: Pairs
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(exact, near): for each record the number of the copy that stays in its stead, or -1.

    Near-duplicates go greedily from the best record down, so each that leaves is confirmed as a
    near-duplicate of one that stays.
    """
    n = len(prefer)
    copies = exact_copies(exact, prefer)
    gone_exact = np.where(copies == np.arange(n), -1, copies)
    near = np.full(n, -1, dtype=np.int64)
    fellows: dict[int, list[int]] = {}
    for a, b in confirmed.tolist():
        fellows.setdefault(a, []).append(b)
        fellows.setdefault(b, []).append(a)
    kept: set[int] = set()
    for number in sorted(fellows, key=lambda r: (int(prefer[r]), r)):
        better = [other for other in fellows[number] if other in kept]
        if better:
            near[number] = min(better, key=lambda r: (int(prefer[r]), r))
        else:
            kept.add(number)
    return gone_exact, near


def licence_rank(licence: str) -> int:
    """0 free but for attribution, 1 share alike, 2 other known terms, 3 unknown or none stated."""
    text = licence.casefold().strip()
    if _FREE.fullmatch(text) or is_free(licence):
        return 0
    if re.search(r"\bn[cd]\b|-n[cd]\b|non.?commercial|research|educational", text):
        return 2
    return 1 if re.search(r"\bby[- ]sa\b|\bodc|share.?alike", text) else 3


def preference(record: Document | Example) -> int:
    """Which of two copies stays: the least. Licence first, then identifiers, then a title."""
    named = 0 if record.ids.get("pmid") or record.ids.get("pmcid") else 1
    titled = 0 if getattr(record, "title", "") or isinstance(record, Example) else 1
    return licence_rank(record.licence) * 4 + named * 2 + titled
