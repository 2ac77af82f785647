"""Matching by arrays equals the definition, written plainly and slowly."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data import grams
from medexpert.data.quarantine import Quarantine
from medexpert.records import Document


def windows(words: list[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]


def common(items: list[list[str]], size: int) -> set[tuple[str, ...]]:
    counts = Counter(w for words in items for w in set(windows(masked(words), size)))
    return {window for window, count in counts.items() if count >= 8}


def masked(words: list[str]) -> list[str]:
    return ["#" if word.isdigit() else word for word in words]


def telling(words: list[str], boilerplate: set[tuple[str, ...]]) -> list[bool]:
    flags = [True] * len(words)
    for at, window in enumerate(windows(masked(words), 4)):
        if window in boilerplate:
            flags[at : at + 4] = [False] * 4
    return flags


def runs(query: list[str], record: list[str], told: list[bool]) -> list[tuple[int, int]]:
    """Maximal equal runs of eight or more tokens, one of them telling."""
    found = []
    for at in range(len(query)):
        for other in range(len(record)):
            if at and other and query[at - 1] == record[other - 1]:
                continue
            size = 0
            while (
                at + size < len(query)
                and other + size < len(record)
                and query[at + size] == record[other + size]
            ):
                size += 1
            if size >= 8 and any(told[at : at + size]):
                found.append((at, at + size))
    return found


def verdict(
    query: list[str], record: list[str], told: list[bool], wide: set[tuple[str, ...]]
) -> tuple[str, float] | None:
    parts = runs(query, record, told)
    if not parts:
        return None
    good = [b - a for a, b in parts if b - a >= 13 and sum(told[a:b]) >= 13]
    whole = (0, len(query)) in parts and sum(told) >= 5
    if (good and max(good) >= 50) or (whole and len(query) >= 13):
        return "substring", max([*good, len(query) if whole else 0]) / len(query)
    if good or whole:
        if len(query) < 13:
            return "13gram", 1.0
        places = {at for a, b in parts for at in range(a, b - 12)}
        return "13gram", len(places) / (len(query) - 12)
    rare = {w for w in windows(query, 5) if tuple(masked(list(w))) not in wide}
    if len(rare) < 8:
        return None
    have = windows(record, 5)
    best = max(len(rare & set(have[at : at + 2 * len(query)])) for at in range(max(1, len(have))))
    return ("near", best / len(rare)) if best >= 0.5 * len(rare) else None


def made_up(random_: random.Random) -> tuple[list[list[str]], list[str]]:
    """Items that share phrases, and a record of pieces of them with words changed."""
    words = ["w" + chr(0x100 + n) for n in range(random_.choice([6, 40, 400]))] + ["7", "12"]
    longest = random_.choice([6, 12, 25])
    phrases = [random_.choices(words, k=random_.randint(4, 9)) for _ in range(3)]

    def text(size: int) -> list[str]:
        found: list[str] = []
        while len(found) < size:
            own = random_.choices(words, k=random_.randint(1, longest))
            found += random_.choice([*phrases, own, own, own])
        return found[:size]

    items = [
        text(random_.choice([random_.randint(4, 16), random_.randint(4, 75)]))
        for _ in range(random_.choice([1, 5, 12, 20]))
    ]
    record: list[str] = []
    for _ in range(random_.randint(1, 4)):
        piece = list(random_.choice(items))
        start = random_.choice([0, 0, random_.randrange(len(piece))])
        piece = piece[start : random_.choice([len(piece), start + random_.randint(5, 20)])]
        step = random_.choice([0, 8, 9, 10, 12, 15])
        for at in range(random_.randint(3, 9), len(piece), step) if step else ():
            piece[at] = "other"
        record += [*piece, *text(random_.randint(0, 30))]
    return items, record


seen: Counter[str] = Counter()


@given(st.integers(0, 2**32))
@settings(max_examples=300, deadline=None)
def test_equals_the_definition(indexed: Callable[..., Quarantine], seed: int) -> None:
    items, record = made_up(random.Random(seed))
    made = [
        SimpleNamespace(id=str(n), texts={"context": " ".join(words)}, ids={})
        for n, words in enumerate(items)
    ]
    found = indexed(made).hits(Document("d", " ".join(record), "s"))
    items = [grams.tokens(" ".join(words)) for words in items]
    record = grams.tokens(" ".join(record))
    kept = [words for words in items if len(words) >= 8]
    boilerplate, wide = common(kept, 4), common(kept, 5)
    expected = {}
    for n, words in enumerate(items):
        if len(words) >= 8:
            result = verdict(words, record, telling(words, boilerplate), wide)
            if result is not None:
                expected[str(n)] = (result[0], round(result[1], 4))
    seen.update(kind for kind, _ in expected.values())
    assert {hit.item: (hit.kind, hit.score) for hit in found} == expected


def test_the_comparison_saw_every_kind() -> None:
    assert min(seen[kind] for kind in ("substring", "13gram", "near")) >= 10, seen
