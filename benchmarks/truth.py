"""What is a near-duplicate in a generated corpus, and how well a tool took them out.

Two documents are near-duplicates when the Jaccard similarity of their sets of 5-word shingles
(lower-cased words and numbers; Chinese: single characters) is at least 0.8. All such pairs are
found by an exact join over an inverted index with prefix filtering (Bayardo et al. 2007): no
hashing of similarity, hence independent of what is measured.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from corpus import Planned, Writer
from numpy.typing import NDArray

THRESHOLD = 0.8
LEAST = 0.6
"""Pairs are known down to this similarity, to tell what is removed wrongly."""
BINS = (0.6, 0.7, 0.8, 0.85, 0.9, 1.0001)
SHINGLE = 5

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")
_CHARACTER = re.compile(r"[\u3400-\u9fff]|\d+(?:[.,]\d+)*|[a-z]+")
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                 0xD6E8FEB86659FD93, 0xA0761D6478BD642F], dtype=np.uint64)  # fmt: skip

Sets = list[NDArray[np.uint64]]


@dataclass(frozen=True)
class Truth:
    """`near`: (a, b) -> similarity from LEAST on, without equal texts and dose variants. `unsure`:
    pairs that pass the threshold with boilerplate and fail it without, or the reverse; they count
    for nothing. `groups`: ids of equal texts, two or more. `doses`: (original, variant).
    `planted`: role -> ids."""

    ids: tuple[str, ...]
    near: Mapping[tuple[str, str], float]
    unsure: frozenset[tuple[str, str]]
    groups: tuple[tuple[str, ...], ...]
    doses: tuple[tuple[str, str], ...]
    planted: Mapping[str, tuple[str, ...]]


def truth_of(folder: Path) -> Truth:
    """The truth of a corpus that `write_corpus` wrote."""
    about = json.loads((folder / "corpus.json").read_text("utf-8"))
    writer = Writer(about["seed"], about["documents"], about["language"])
    rows = [json.loads(line) for line in (folder / "plan.jsonl").open(encoding="utf-8")]
    plans = [Planned(row["number"], row["role"], item=row["item"]) for row in rows]
    base = {row["id"]: row["base"] for row in rows}
    numbers = {row["id"]: row["number"] for row in rows}
    plans = [Planned(p.number, p.role, numbers.get(row["base"], -1), p.item)
             for p, row in zip(plans, rows, strict=True)]  # fmt: skip
    ids = tuple(row["id"] for row in rows)
    word = _WORD if about["language"] == "en" else _CHARACTER
    bodies = [writer.body(plan) for plan in plans]
    texts = [writer.text(plan) for plan in plans] if about["language"] == "en" else bodies
    doses = tuple((base[row["id"]], row["id"]) for row in rows if row["role"] == "dose")
    near = _named(ids, join(shingle_sets(bodies, word), LEAST))
    whole = near if texts is bodies else _named(ids, join(shingle_sets(texts, word), LEAST))
    groups = equal_texts(ids, texts)
    twin = {name: number for number, group in enumerate(groups) for name in group}
    dosed = {tuple(sorted(pair)) for pair in doses}
    left_out = {p for p in near.keys() | whole.keys()
                if p in dosed or (p[0] in twin and twin[p[0]] == twin.get(p[1]))}  # fmt: skip
    unsure = {p for p in (near.keys() | whole.keys()) - left_out
              if (near.get(p, 0) >= THRESHOLD) != (whole.get(p, 0) >= THRESHOLD)}  # fmt: skip
    planted: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        planted[row["role"]].append(row["id"])
    return Truth(
        ids,
        {p: s for p, s in near.items() if p not in left_out and p not in unsure},
        frozenset(unsure),
        groups,
        doses,
        {role: tuple(names) for role, names in planted.items()},
    )


def shingle_sets(texts: Iterable[str], word: re.Pattern[str] = _WORD) -> Sets:
    """The set of 5-word shingles of each text, as sorted 64-bit values."""
    known: dict[str, int] = {}
    draw = np.random.Generator(np.random.PCG64(5))
    values = draw.integers(0, 1 << 63, 1 << 20, dtype=np.uint64)
    found: Sets = []
    for text in texts:
        words = [known.setdefault(w, len(known)) for w in word.findall(text.lower())]
        if len(known) > len(values):
            more = draw.integers(0, 1 << 63, len(values), dtype=np.uint64)
            values = np.concatenate([values, more])
        codes = values[np.array(words, dtype=np.int64)]
        n = max(0, len(codes) - SHINGLE + 1)
        total = np.zeros(n, dtype=np.uint64)
        for offset in range(SHINGLE):
            part = codes[offset : offset + n] * _ODD[offset]
            total += part ^ (part >> np.uint64(31))
        found.append(np.unique(total))
    return found


def join(sets: Sets, least: float) -> dict[tuple[int, int], float]:
    """Every pair (a < b) whose Jaccard similarity is at least `least`: exact.

    Of two sets ordered alike, rarest first, similar ones share a member of their first
    |A| - ceil(least |A|) + 1 (Bayardo et al. 2007).
    """
    sizes = np.array([len(s) for s in sets], dtype=np.int64)
    owner = np.repeat(np.arange(len(sets)), sizes)
    _, code, counts = np.unique(np.concatenate(sets), return_inverse=True, return_counts=True)
    rarity = np.empty(len(counts), dtype=np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    rank = rarity[code]
    order = np.lexsort((rank, owner))
    within = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    prefix = sizes - np.ceil(least * sizes - 1e-9).astype(np.int64) + 1
    first = within < np.repeat(prefix, sizes)
    chosen = order[first]
    chosen = chosen[counts[code[chosen]] > 1]
    keys, docs = rank[chosen], owner[chosen]
    order = np.lexsort((docs, keys))
    keys, docs = keys[order], docs[order]
    edges = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]]))
    pairs: set[tuple[int, int]] = set()
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        fellows = docs[start:end].tolist()
        pairs.update((a, b) for i, a in enumerate(fellows) for b in fellows[i + 1 :])
    found: dict[tuple[int, int], float] = {}
    for a, b in sorted(pairs):
        if min(sizes[a], sizes[b]) < least * max(sizes[a], sizes[b]):
            continue
        common = len(np.intersect1d(sets[a], sets[b], assume_unique=True))
        similarity = common / (sizes[a] + sizes[b] - common)
        if similarity >= least:
            found[a, b] = float(similarity)
    return found


def equal_texts(ids: Sequence[str], texts: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Groups of ids whose texts are equal."""
    held: dict[str, list[str]] = defaultdict(list)
    for name, text in zip(ids, texts, strict=True):
        held[text].append(name)
    return tuple(tuple(names) for names in held.values() if len(names) > 1)


def _named(
    ids: Sequence[str], pairs: Mapping[tuple[int, int], float]
) -> dict[tuple[str, str], float]:
    return {tuple(sorted((ids[a], ids[b]))): s for (a, b), s in pairs.items()}  # type: ignore[misc]


def score(
    truth: Truth, kept: Collection[str], leaked: Collection[str], filtered: Collection[str] = ()
) -> dict[str, Any]:
    """How well a tool did: `kept` ids are in its output, `leaked` it took out as benchmark items,
    `filtered` for another quality; what else is gone, it took for duplicates.

    `recall`: share of near-duplicate pairs of which not both stay. `precision`: share of removed
    documents, those with an equal twin and dose variants left out, that have a near-duplicate;
    `precision_kept`: that have one among the kept.
    """
    kept, leaked, filtered = set(kept), set(leaked), set(filtered)
    gone = set(truth.ids) - kept - leaked - filtered
    aside = leaked | filtered
    open_pairs = {p: s for p, s in truth.near.items() if not aside & set(p)}
    wanted = [p for p, s in open_pairs.items() if s >= THRESHOLD]
    met = sum(not (a in kept and b in kept) for a, b in wanted)
    twins = {name for group in truth.groups for name in group}
    partners: dict[str, set[str]] = defaultdict(set)
    for (a, b), s in truth.near.items():
        if s >= THRESHOLD:
            partners[a].add(b)
            partners[b].add(a)
    unsure = {name for pair in truth.unsure for name in pair}
    dosed = {name for pair in truth.doses for name in pair}  # counted by themselves
    judged = {n for n in gone - twins - dosed if partners[n] or n not in unsure}
    right = {name for name in judged if partners[name]}
    strict = {name for name in right if partners[name] & kept}
    copies = sum(len(group) - 1 for group in truth.groups)
    left = sum(max(0, len(kept.intersection(group)) - 1) for group in truth.groups)
    contexts, questions = truth.planted.get("context", ()), truth.planted.get("question", ())
    bins = {}
    for low, high in pairwise(BINS):
        inside = [p for p, s in open_pairs.items() if low <= s < high]
        apart = sum(not (a in kept and b in kept) for a, b in inside)
        bins[f"{low:g}-{min(high, 1):g}"] = {"pairs": len(inside), "removed": apart}
    return {
        "near_pairs": len(wanted),
        "near_found": met,
        "recall": _share(met, len(wanted)),
        "near_removed": len(judged),
        "precision": _share(len(right), len(judged)),
        "precision_kept": _share(len(strict), len(judged)),
        "unsure_pairs": len(truth.unsure),
        "exact_copies": copies,
        "exact_found": copies - left,
        "dose_pairs": len(truth.doses),
        "dose_errors": sum(bool(gone & set(pair)) for pair in truth.doses),
        "contexts": len(contexts),
        "contexts_found": len(leaked.intersection(contexts)),
        "questions": len(questions),
        "questions_found": len(leaked.intersection(questions)),
        "leaks_not_planted": len(leaked - set(contexts) - set(questions)),
        "filtered": len(filtered),
        "kept": len(kept),
        "by_similarity": bins,
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 5) if whole else None
