"""The benchmark side: texts -> token hashes, boilerplate marks and anchors, kept in one .npz file.

Q queries (one text of one item each) lie one after the other in `words` (T tokens in all). A token
is *boilerplate* where it lies in a window of BOILERPLATE_GRAM tokens, numbers masked, that is in
BOILERPLATE_ITEMS or more items of the benchmark; all other tokens are *telling*. An *anchor* is a
window of ANCHOR tokens; `grams` are the distinct anchors, sorted, and `place[first[i]:first[i+1]]`
says where in `words` anchor i stands. Anchors without a telling token lead to one place in each
benchmark: they find nothing, they are there so that what is ignored can be counted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medexpert.data import grams
from medexpert.data.quarantine.ids import Key, keys_of
from medexpert.records import UserError

RUN = 13
"""Tokens of a shared run that make a hit: GPT-3's and lm-evaluation-harness's window."""
SHORT = 8
"""A text of 8 to 12 tokens counts by its whole length (GPT-3's smallest window); below 8 tokens a
text is too common to say anything, and only an exact question with its options counts."""
EXACT_BYTES = 20
"""UTF-8 bytes that a question and its options must have, without blanks and signs, to count as
exactly the same: 20 Latin letters or 7 Chinese characters. A whole field that equals a whole
question says more than the same words inside a text, hence less than SHORT tokens."""
ANCHOR = 8
"""Window of the look-up. Every run of SHORT or more tokens holds one; so does, but for pathological
cases, a text half of whose 5-grams are kept: a changed word breaks five of them in a row."""
BOILERPLATE_ITEMS = 8
"""A window in this many items of a benchmark is how its authors write, not what they ask."""
BOILERPLATE_GRAM = 4
"""Window of the boilerplate count, numbers masked ("is # c # f")."""
NEAR_GRAM = 5
"""Shingles of the near-duplicate test."""
NEAR_LEAST = 8
"""Telling shingles a text must have to be compared as a near-duplicate: of fewer, one sentence
could be half."""
SEPARATOR = np.uint64(0x5EA7A708C0FFEE01)
"""Stands between two texts that must not form windows together. No token hashes to it but by
chance (2**-64)."""
FORMAT = 1

_NUMBER = np.uint64(0x4E554D4245520001)
_LABEL = re.compile(r"\s*[(（\[]?[A-Ja-j][)）\].．、:：]\s*")
_PLAIN = re.compile(r"[\W_]+")

Flags = NDArray[np.bool_]
Places = NDArray[np.int64]


class Item(Protocol):
    """A benchmark item as the readers give it: `texts` by role (question, context, answer...)."""

    @property
    def id(self) -> str: ...
    @property
    def ids(self) -> Mapping[str, str]: ...
    @property
    def texts(self) -> Mapping[str, str]: ...


def exact_key(lines: Sequence[str]) -> str | None:
    """A question and its options, without order of the options, labels, case and punctuation.

    The first line is the question. None when less than EXACT_BYTES is left of them.
    """
    first, *rest = lines or [""]
    rest = [part for text in rest for part in text.split("\n")]
    parts = first.split("\n")
    rest = [_LABEL.sub("", part, count=1) if _LABEL.match(part) else part for part in rest]
    plain = [_PLAIN.sub("", grams.normalise(part)) for part in parts + rest]
    plain = sorted(part for part in plain if part)
    size = sum(len(part.encode("utf-8", "surrogatepass")) for part in plain)
    return "\n".join(plain) if size >= EXACT_BYTES else None


@dataclass(frozen=True)
class Index:
    """Arrays as in the module's docstring; `exact` maps exact_key's hash to an item."""

    names: tuple[str, ...]  # benchmarks
    roles: tuple[str, ...]
    items: tuple[tuple[int, str], ...]  # (benchmark, id)
    facts: Mapping[str, Any]
    ids: Mapping[Key, tuple[int, ...]]  # -> items
    exact: Mapping[int, tuple[int, ...]]  # -> items
    words: grams.Hashes  # [T]
    telling: Flags  # [T]
    rare: Flags  # [T] the NEAR_GRAM window that starts here is no boilerplate
    starts: Places  # [Q + 1]
    stems: Places  # [Q] tokens of the first line of a question (0 elsewhere)
    item_of: Places  # [Q]
    role_of: Places  # [Q]
    grams: grams.Hashes  # [A]
    first: Places  # [A + 1]
    place: Places  # [P]


@dataclass
class _Texts:
    words: list[grams.Hashes]
    masked: list[grams.Hashes]
    item_of: list[int]
    role_of: list[int]
    stems: list[int]


class Builder:
    """Collects items, benchmark by benchmark; `index` makes the arrays."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.roles: list[str] = []
        self.items: list[tuple[int, str]] = []
        self.facts: dict[str, Any] = {}
        self.ids: dict[Key, set[int]] = {}
        self.exact: dict[int, set[int]] = {}
        self.texts = _Texts([], [], [], [], [])
        self.marks: list[tuple[Flags, Flags]] = []

    def add(
        self,
        name: str,
        items: Sequence[Item],
        *,
        listed: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """One benchmark. `listed` gives PMID -> item id for items without text here."""
        number = len(self.names)
        self.names.append(name)
        start, short = len(self.texts.words), 0
        known: dict[str, int] = {}
        for item in items:
            known.setdefault(item.id, len(self.items))
            self.items.append((number, item.id))
            short += self._item(item, len(self.items) - 1)
        for pmid, identifier in (listed or {}).items():
            if identifier not in known:
                known[identifier] = len(self.items)
                self.items.append((number, identifier))
            self.ids.setdefault(("pmid", pmid), set()).add(known[identifier])
        owners = {at for at, (owner, _) in enumerate(self.items) if owner == number}
        boilerplate = self._mark(start)
        self.facts[name] = {
            "ids": sum(not owners.isdisjoint(found) for found in self.ids.values()),
            "items": len(items) or len(owners),
            "text": bool(items),
            "texts": len(self.texts.words) - start,
            "texts_too_short": short,
            "boilerplate_tokens": boilerplate,
            "tokens": sum(map(len, self.texts.words[start:])),
            "files": dict(sorted((files or {}).items())),
        }

    def _item(self, item: Item, at: int) -> int:
        """Add an item's ids and texts; returns how many texts are too short to match."""
        short = 0
        for key in keys_of("", item.ids):
            self.ids.setdefault(key, set()).add(at)
        for role, text in item.texts.items():
            tokens = grams.tokens(text)
            lines = text.split("\n")
            exact = exact_key(lines) if role == "question" else None
            if exact:
                self.exact.setdefault(fingerprint(exact), set()).add(at)
            if len(tokens) < SHORT:
                short += bool(tokens)
                continue
            if role not in self.roles:
                self.roles.append(role)
            words = grams.hash_tokens(tokens)
            numbers = np.array([token[0].isdecimal() for token in tokens])
            self.texts.words.append(words)
            self.texts.masked.append(np.where(numbers, _NUMBER, words))
            self.texts.item_of.append(at)
            self.texts.role_of.append(self.roles.index(role))
            self.texts.stems.append(len(grams.tokens(lines[0])) if role == "question" else 0)
        return short

    def _mark(self, start: int) -> int:
        """Mark boilerplate in the texts added since `start`; returns how many tokens that is."""
        masked, owners = self.texts.masked[start:], self.texts.item_of[start:]
        common = _common(masked, owners, BOILERPLATE_GRAM)
        wide = _common(masked, owners, NEAR_GRAM)
        lost = 0
        for words in masked:
            telling = np.ones(len(words), dtype=np.bool_)
            windows = np.flatnonzero(_within(grams.ngrams(words, BOILERPLATE_GRAM), common))
            for step in range(BOILERPLATE_GRAM):
                telling[windows + step] = False
            rare = np.zeros(len(words), dtype=np.bool_)
            shingles = grams.ngrams(words, NEAR_GRAM)
            rare[: len(shingles)] = ~_within(shingles, wide)
            lost += int((~telling).sum())
            self.marks.append((telling, rare))
        return lost

    def index(self) -> Index:
        """All that was added, as arrays."""
        texts = self.texts
        sizes = [len(words) for words in texts.words]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        words = _joined(texts.words, np.uint64)
        telling = _joined([mark for mark, _ in self.marks], np.bool_)
        benchmark_of = np.array([self.items[at][0] for at in texts.item_of], dtype=np.int64)
        anchors, first, place = _anchors(words, telling, starts, benchmark_of)
        return Index(
            names=tuple(self.names),
            roles=tuple(self.roles),
            items=tuple(self.items),
            facts=self.facts,
            ids={key: tuple(sorted(at)) for key, at in sorted(self.ids.items())},
            exact={key: tuple(sorted(at)) for key, at in sorted(self.exact.items())},
            words=words,
            telling=telling,
            rare=_joined([rare for _, rare in self.marks], np.bool_),
            starts=starts,
            stems=np.array(texts.stems, dtype=np.int64),
            item_of=np.array(texts.item_of, dtype=np.int64),
            role_of=np.array(texts.role_of, dtype=np.int64),
            grams=anchors,
            first=first,
            place=place,
        )


def fingerprint(key: str) -> int:
    """64 bits of an exact key."""
    raw = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(raw, "little")


def _joined(parts: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)


def _within(values: grams.Hashes, listed: grams.Hashes) -> Flags:
    """Which values are in the sorted list."""
    if not len(listed):
        return np.zeros(len(values), dtype=np.bool_)
    at = np.minimum(np.searchsorted(listed, values), len(listed) - 1)
    return np.asarray(listed[at] == values)


def _common(masked: Sequence[grams.Hashes], owners: Sequence[int], size: int) -> grams.Hashes:
    """Windows that occur in BOILERPLATE_ITEMS or more items, sorted."""
    windows = [grams.ngrams(words, size) for words in masked]
    if not windows:
        return np.empty(0, dtype=np.uint64)
    flat = np.concatenate(windows)
    owner = np.repeat(np.array(owners, dtype=np.int64), [len(part) for part in windows])
    order = np.lexsort((owner, flat))
    flat, owner = flat[order], owner[order]
    new = np.ones(len(flat), dtype=np.bool_)
    new[1:] = (flat[1:] != flat[:-1]) | (owner[1:] != owner[:-1])
    values, counts = np.unique(flat[new], return_counts=True)
    return values[counts >= BOILERPLATE_ITEMS]


def _anchors(
    words: grams.Hashes, telling: Flags, starts: Places, benchmark_of: Places
) -> tuple[grams.Hashes, Places, Places]:
    """(distinct anchors, offsets, places) as in the module's docstring."""
    windows = anchor_hashes(words)
    inside = np.ones(len(windows), dtype=np.bool_)
    for edge in starts[1:-1]:
        inside[max(0, edge - ANCHOR + 1) : edge] = False
    place = np.flatnonzero(inside)
    windows = windows[place]
    counts = np.concatenate([[0], np.cumsum(telling)])
    mute = counts[place + ANCHOR] == counts[place]
    # One place a benchmark for anchors without a telling token.
    owner = benchmark_of[np.searchsorted(starts, place, side="right") - 1] if len(place) else place
    order = np.lexsort((place, owner, mute, windows))
    windows, place, mute, owner = windows[order], place[order], mute[order], owner[order]
    keep = np.ones(len(place), dtype=np.bool_)
    if len(place) > 1:
        same = (windows[1:] == windows[:-1]) & (owner[1:] == owner[:-1])
        keep[1:] = ~(same & mute[1:] & mute[:-1])
    windows, place = windows[keep], place[keep]
    distinct, first = np.unique(windows, return_index=True)
    return distinct, np.append(first, len(place)).astype(np.int64), place.astype(np.int64)


_POWER = [np.uint64(pow(0x9E3779B97F4A7C15, power, 1 << 64)) for power in (1, 2, 4)]


def anchor_hashes(words: grams.Hashes) -> grams.Hashes:
    """Hash of every window of ANCHOR = 8 tokens, by doubling: h2 = h1*B + h1', h4, h8.

    The polynomial of `grams.ngrams` without its finaliser; six numpy calls instead of 21.
    """
    if len(words) < ANCHOR:
        return np.empty(0, dtype=np.uint64)
    two = words[:-1] * _POWER[0]
    two += words[1:]
    four = two[:-2] * _POWER[1]
    four += two[2:]
    eight = four[:-4] * _POWER[2]
    eight += four[4:]
    return np.asarray(eight)


_ARRAYS = ("words", "telling", "rare", "starts", "stems", "item_of", "role_of", "grams", "first",
           "place")  # fmt: skip


def save(index: Index, file: str) -> None:
    """Write the index. The bytes depend on the inputs only; the file appears whole or not at all.

    Raises UserError when it cannot be written.
    """
    about = {
        "format": FORMAT,
        "names": index.names,
        "roles": index.roles,
        "items": index.items,
        "facts": index.facts,
        "ids": [[*key, list(at)] for key, at in index.ids.items()],
        "exact": [[key, list(at)] for key, at in index.exact.items()],
    }
    text = json.dumps(about, ensure_ascii=True, separators=(",", ":")).encode()
    arrays = {name: getattr(index, name) for name in _ARRAYS}
    arrays["about"] = np.frombuffer(text, dtype=np.uint8)
    part = f"{file}.part"
    try:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            for name, array in arrays.items():
                raw = io.BytesIO()
                np.lib.format.write_array(raw, array, allow_pickle=False)
                # A ZipInfo without a date is 1980-01-01: the clock leaves no trace.
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), raw.getvalue())
        os.replace(part, file)
    except OSError as error:
        raise UserError(f"cannot write the quarantine index ({error.strerror})", where=file) from (
            None
        )


def load_index(file: str) -> Index:
    """Read what `save` wrote. Raises UserError for a missing, damaged or older file."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in (*_ARRAYS, "about")}
        about = json.loads(arrays.pop("about").tobytes())
    except FileNotFoundError:
        raise UserError("no such quarantine index", where=file) from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        raise UserError("not a quarantine index, or a damaged one", where=file) from None
    if about.get("format") != FORMAT:
        raise UserError(f"quarantine index of format {about.get('format')}", where=file,
                        allowed=f"format {FORMAT}: make it again")  # fmt: skip
    return Index(
        names=tuple(about["names"]),
        roles=tuple(about["roles"]),
        items=tuple((number, name) for number, name in about["items"]),
        facts=about["facts"],
        ids={(scheme, value): tuple(at) for scheme, value, at in about["ids"]},
        exact={key: tuple(at) for key, at in about["exact"]},
        **arrays,
    )
