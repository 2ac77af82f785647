"""The filters in order, cheapest first, and the one call that repairs a record and judges it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from medexpert.data.filters.boilerplate import strip_boilerplate
from medexpert.data.filters.characters import clean, damaged, repair, strings
from medexpert.data.filters.language import language_reason
from medexpert.data.filters.markup import DEPTH, markup_share, unmark, unwrap
from medexpert.data.filters.quality import (
    character_reason,
    line_reason,
    stop_word_reason,
    word_reason,
)
from medexpert.data.filters.repetition import example_repetition, repetition_reason
from medexpert.data.filters.settings import DEFAULT, Settings
from medexpert.records import Document, Example

_HAN = re.compile(r"[\u3400-\u9fff]")
Filter = Callable[[str, Settings], str | None]

REASONS = (
    "empty",
    "no_question",
    "no_answer",
    "control_characters",
    "mojibake",
    "boilerplate",
    "too_short",
    "markup",
    "few_letters",
    "many_symbols",
    "many_digits",
    "few_words",
    "word_length",
    "no_stop_words",
    "no_sentence",
    "ellipsis_lines",
    "contents",
    "bullet_lines",
    "language",
    "repeated_lines",
    "repeated_runs",
)
"""Every reason to drop a record; `language` stands for `language_<code>`. Names for `off`, except
that an example always needs its question and its answer."""

CHANGES = (
    "mojibake_repaired",
    "normalised",
    "markup_removed",
    "boilerplate_removed",
    "references_removed",
)
"""Every kind of change to a text that is kept."""


def _empty(text: str, settings: Settings) -> str | None:
    return None if text.strip() else "empty"


def _damage(text: str, settings: Settings) -> str | None:
    return damaged(text)


def _markup(text: str, settings: Settings) -> str | None:
    return "markup" if markup_share(text) > settings.max_markup else None


def _language(text: str, settings: Settings) -> str | None:
    return language_reason(
        text,
        settings.languages,
        confidence=settings.language_confidence,
        min_chars=settings.language_min_chars,
    )


FILTERS: tuple[Filter, ...] = (
    _empty,
    _damage,
    _markup,
    character_reason,
    word_reason,
    line_reason,
    _language,
    stop_word_reason,
    repetition_reason,
)
"""For documents; each answers with a reason to drop the text, or None."""

EXAMPLE_FILTERS: tuple[Filter, ...] = (_damage, example_repetition)
"""For each text of an example: a short answer, a list or a formula can be a good one."""


def _first(filters: tuple[Filter, ...], text: str, settings: Settings) -> str | None:
    for check in filters:
        reason = check(text, settings)
        if reason is not None and not _is_off(reason, settings.off):
            return reason
    return None


def _is_off(reason: str, off: tuple[str, ...]) -> bool:
    return reason in off or (reason.startswith("language_") and "language" in off)


def weight(text: str, enough: int) -> int:
    """Characters of a text, each Chinese one counted three times, as it says as much."""
    size = len(text)
    return size if size >= enough or text.isascii() else size + 2 * len(_HAN.findall(text))


def document_reason(
    document: Document, settings: Settings = DEFAULT, *, min_chars: int = 0
) -> str | None:
    """The first filter's reason to drop a document, or None to keep it."""
    if 0 < weight(document.text, min_chars) < min_chars and "too_short" not in settings.off:
        return "too_short"
    return _first(FILTERS, document.text, settings)


_NEEDED = {
    "qa": {"question": "no_question", "answer": "no_answer"},
    "reasoning": {"question": "no_question", "rationale": "no_answer", "answer": "no_answer"},
    "mcq": {"question": "no_question", "answer_idx": "no_answer"},
    "task": {"question": "no_question", "answer": "no_answer"},
}


def lacking(example: Example) -> str | None:
    """`no_question` or `no_answer`: an item without a label (PQA-U) would teach an empty answer."""
    for name, reason in _NEEDED.get(example.kind, {}).items():
        value = example.fields.get(name)
        if not isinstance(value, str) or not value.strip():
            return reason
    return None


def example_reason(example: Example, settings: Settings = DEFAULT) -> str | None:
    """The first filter's reason to drop an example, or None; each of its texts is looked at."""
    if (reason := lacking(example)) is not None:
        return reason
    for text in strings(example.fields):
        reason = _first(EXAMPLE_FILTERS, text, settings)
        if reason is not None:
            return reason
    return None


def cleaned_with_changes(
    text: str, settings: Settings = DEFAULT, *, prose: bool = True, lines: bool = True
) -> tuple[str, tuple[str, ...]]:
    """The repaired text and the names of what changed (:data:`CHANGES`); twice changes no more.

    `prose=False` leaves markup that may be the subject (see :func:`unmark`); `lines=False` keeps
    boilerplate.
    """
    changes: dict[str, None] = {}
    fixed = text
    for _ in range(DEPTH):
        before = fixed
        for step in (_normalised, _unmarked, _unboilered):
            fixed = step(fixed, settings, prose, lines, changes)
        if fixed == before:
            return fixed, tuple(changes)
    fixed = clean(text)  # what is nested so deep was made to be; it is left as it is
    return fixed, ("normalised",) if fixed != text else ()


def _normalised(
    text: str, settings: Settings, prose: bool, lines: bool, changes: dict[str, None]
) -> str:
    fixed = clean(text)
    if fixed != text:
        mended = not text.isascii() and repair(text) != text
        changes["mojibake_repaired" if mended else "normalised"] = None
    if not (prose and settings.repair):
        return fixed
    wrapped = fixed
    fixed = unwrap(wrapped).strip()
    if fixed != wrapped:
        changes["normalised"] = None
    return fixed


def _unmarked(
    text: str, settings: Settings, prose: bool, lines: bool, changes: dict[str, None]
) -> str:
    if not settings.repair:
        return text
    fixed = unmark(text, prose=prose)
    if fixed != text:
        changes["markup_removed"] = None
    return fixed


def _unboilered(
    text: str, settings: Settings, prose: bool, lines: bool, changes: dict[str, None]
) -> str:
    if not (settings.boilerplate and lines):
        return text
    fixed, removed, references = strip_boilerplate(text)
    if removed:
        changes["references_removed" if references else "boilerplate_removed"] = None
    return fixed


@dataclass(frozen=True)
class Filtered:
    """A record after repair, what changed in it, and the reason to drop it (None = keep)."""

    record: Document | Example
    changes: tuple[str, ...]
    reason: str | None


def filtered(
    record: Document | Example,
    settings: Settings = DEFAULT,
    *,
    min_chars: int = 0,
    languages: tuple[str, ...] | None = None,
) -> Filtered:
    """Repair a record, then judge it; damage is judged first, on the text as it came.

    `min_chars` is for documents. `languages` stands in for `settings.languages` (a source in
    another language than the recipe's).
    """
    if languages is not None and languages != settings.languages:
        settings = _in_languages(settings, languages)
    if isinstance(record, Example):
        return _filtered_example(record, settings)
    reason = _first((_empty, _damage), record.text, settings)
    if reason is not None:
        return Filtered(record, (), reason)
    text, changes = cleaned_with_changes(record.text, settings)
    if not text and "boilerplate" not in settings.off:
        return Filtered(record, (), "boilerplate")
    title = record.title
    if title:
        title, retitled = cleaned_with_changes(title, settings, lines=False)
        changes = tuple(dict.fromkeys((*changes, *retitled)))
    if changes:
        record = replace(record, text=text, title=title)
    return Filtered(record, changes, document_reason(record, settings, min_chars=min_chars))


@lru_cache(maxsize=64)
def _in_languages(settings: Settings, languages: tuple[str, ...]) -> Settings:
    return settings.model_copy(update={"languages": languages})


def _filtered_example(example: Example, settings: Settings) -> Filtered:
    for text in strings(example.fields):
        reason = _first((_damage,), text, settings)
        if reason is not None:
            return Filtered(example, (), reason)
    changes: dict[str, None] = {}
    fields = {
        key: _cleaned_field(value, settings, example.kind == "qa" and key == "answer", changes)
        for key, value in example.fields.items()
    }
    if changes:
        example = replace(example, fields=fields)
    return Filtered(example, tuple(changes), example_reason(example, settings))


def _cleaned_field(value: Any, settings: Settings, lines: bool, changes: dict[str, None]) -> Any:
    """`cleaned_with_changes` on each string inside; boilerplate that is all of it stays."""
    if isinstance(value, str):
        text, found = cleaned_with_changes(value, settings, prose=False, lines=lines)
        if lines and not text:
            text, found = cleaned_with_changes(value, settings, prose=False, lines=False)
        changes.update(dict.fromkeys(found))
        return text
    if isinstance(value, dict):
        return {key: _cleaned_field(v, settings, lines, changes) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned_field(v, settings, lines, changes) for v in value]
    return value
