"""Identifiers of people in a user's text: found and replaced by their kind, or the text refused.

A screening aid, not de-identification under HIPAA; `docs/private-text.md` says what is covered,
what is not, and how much of planted identifiers was found. What is found is counted by kind and
never logged, kept or put into an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, TypeVar, cast

from medexpert.data.privacy import chinese, english, library, numbers
from medexpert.data.privacy.rules import CJK, KINDS, Span
from medexpert.data.privacy.words import NOT_NAMES
from medexpert.records import Document, Example, UserError, unknown_name

__all__ = ["KINDS", "POLICIES", "Policy", "Redactor", "Span"]

Policy = Literal["redact", "refuse"]
POLICIES: tuple[Policy, ...] = ("redact", "refuse")
_HAS_CJK = re.compile(f"[{CJK}]")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_EPONYM = (
    r"(?!['’]?s?[ -](?:disease|syndrome|sign|test|criteria|score|scale|phenomenon|classification))"
)
_LINES_SHOWN = 5
_Record = TypeVar("_Record", Document, Example)


class Redactor:
    """Finds identifiers in English and Chinese text. Make it with :meth:`open`."""

    def __init__(self, policy: Policy, finders: Sequence[Any], entities: Any) -> None:
        self.policy = policy
        self._finders = finders
        self._entities = entities

    @classmethod
    def open(cls, policy: str, *, model: str = "", lang: str = "") -> Redactor:
        """`policy`: "redact" or "refuse". `model`: folder of a spaCy model for names and places.

        `lang` ("en", "zh" or "" for both) chooses the countries whose telephone numbers are tried.
        Raises UserError for an unknown policy, an absent library or a folder that is no model.
        """
        if policy not in POLICIES:
            raise unknown_name("privacy policy", policy, POLICIES)
        rules = (
            *numbers.DATES,
            *numbers.AGES,
            *numbers.LABELLED,
            *library.URLS,
            *library.probes(lang),
        )
        entities = library.Entities(model) if model else None
        return cls(policy, (*rules, *english.PLACES), entities)

    def find(self, text: str) -> list[Span]:
        """The identifiers of a text, in order, none overlapping."""
        lowered = text.lower()
        finders: tuple[Any, ...] = (*self._finders, *english.NAMES)
        if _HAS_CJK.search(text):
            finders += (*numbers.CHINESE_LABELLED, *chinese.NAMES, *chinese.PLACES)
        if self._entities is not None:
            finders += (self._entities,)
        spans: list[Span] = []
        for finder in finders:
            for span in finder.spans(text, lowered):
                trimmed = _trimmed(text, span) if span.kind == "NAME" else span
                if trimmed is not None:
                    spans.append(trimmed)
        spans.extend(_again(text, spans))
        return _merged(spans)

    def apply(self, text: str, where: str = "") -> tuple[str, Counter[str]]:
        """The text with `[KIND]` in place of each identifier, and how many of each kind.

        Under "refuse" a text with an identifier raises UserError: `where`, the lines and the counts
        by kind, never the text.
        """
        parts, counts = self.apply_all([text], where)
        return parts[0], counts

    def apply_all(self, texts: Sequence[str], where: str = "") -> tuple[list[str], Counter[str]]:
        """As :meth:`apply` for texts that belong together: a name told in one is found in all."""
        joined = "\n".join(texts)
        spans = self.find(joined)
        counts = Counter(span.kind for span in spans)
        if spans and self.policy == "refuse":
            raise _refusal(joined, spans, counts, where)
        if not spans:
            return list(texts), counts
        cleaned, start = [], 0
        for text in texts:
            cleaned.append(_replaced(text, start, spans))
            start += len(text) + 1
        return cleaned, counts

    def record(self, record: _Record, where: str = "") -> tuple[_Record, Counter[str]]:
        """A Document (title and text) or Example (every string of its fields) without identifiers.

        The id of a document is a path of the user's and may hold a name, so the path is replaced by
        a digest of itself; what follows `#` stays.
        """
        where = where or record.id
        made: Document | Example = record
        if isinstance(made, Document):
            (title, text), counts = self.apply_all([made.title, made.text], where)
            made = dataclasses.replace(made, id=_digest_id(made.id), title=title, text=text)
        else:
            texts, counts = self.apply_all(list(_strings(made.fields)), where)
            supply = iter(texts)
            fields = _rebuilt(made.fields, lambda _: next(supply))
            made = dataclasses.replace(made, fields=fields)
        return cast(_Record, made), counts


def _trimmed(text: str, span: Span) -> Span | None:
    """A name without the headings and sentence starts at its ends; None when nothing is left."""
    if _HAS_CJK.search(text, span.start, span.end):
        return span
    words = [(match.start(), match.end()) for match in _WORD.finditer(text, span.start, span.end)]

    def common(word: tuple[int, int]) -> bool:
        return text[word[0] : word[1]].lower().removesuffix("'s") in NOT_NAMES

    while words and common(words[-1]):
        words.pop()
    while words and common(words[0]):
        words.pop(0)
    if not words or all(end - start == 1 for start, end in words):
        return None
    return Span(words[0][0], words[-1][1], "NAME")


def _again(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """Other mentions of the names that were found: the surname alone, the given name alone."""
    known: set[str] = set()
    for span in spans:
        if span.kind != "NAME":
            continue
        value = text[span.start : span.end]
        if _HAS_CJK.search(value):
            if 2 <= len(value) <= 12:
                known.add(re.escape(value))
            continue
        for word in _WORD.findall(value):
            if len(word) > 2 and word[0].isupper() and word.lower() not in NOT_NAMES:
                forms = {word, word.capitalize() if word.isupper() else word, word.upper()}
                known.update(rf"\b{re.escape(form)}\b{_EPONYM}" for form in forms)
    if known:
        for match in re.finditer("|".join(sorted(known, key=len, reverse=True)), text):
            yield Span(match.start(), match.end(), "NAME")


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Overlapping spans as one, under the kind of the longest; nothing of either stays behind."""
    merged: list[Span] = []
    longest = 0
    for span in sorted(spans, key=lambda s: (s.start, -s.end, KINDS.index(s.kind))):
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            kind = span.kind if span.end - span.start > longest else last.kind
            longest = max(longest, span.end - span.start)
            merged[-1] = Span(last.start, max(last.end, span.end), kind)
        else:
            merged.append(span)
            longest = span.end - span.start
    return merged


def _replaced(text: str, offset: int, spans: Sequence[Span]) -> str:
    """`text`, which begins at `offset` of the searched text, with its spans replaced."""
    pieces, done, end = [], 0, offset + len(text)
    for span in spans:
        if span.end <= offset or span.start >= end:
            continue
        pieces.append(text[done : max(span.start - offset, 0)])
        pieces.append(f"[{span.kind}]")
        done = span.end - offset
    pieces.append(text[done:])
    return "".join(pieces)


def _refusal(text: str, spans: Sequence[Span], counts: Counter[str], where: str) -> UserError:
    lines = sorted({text.count("\n", 0, span.start) + 1 for span in spans[:1000]})
    shown = ", ".join(map(str, lines[:_LINES_SHOWN])) + (
        ", ..." if len(lines) > _LINES_SHOWN else ""
    )
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    place = f"{where}:{lines[0]}" if where and not re.search(r"[:#]\d+$", where) else where
    return UserError(
        f"holds what may identify a person ({kinds}; line {shown} of its text)",
        where=place,
        allowed='phi = "redact" replaces each by its kind, phi = "off" keeps the text as it is',
    )


def _digest_id(identifier: str) -> str:
    path, mark, part = identifier.partition("#")
    return (
        f"text-{hashlib.sha256(path.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}{mark}{part}"
    )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)


def _rebuilt(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _rebuilt(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_rebuilt(part, change) for part in value)
    return value
