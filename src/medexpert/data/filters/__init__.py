"""Text in, repaired text out; a record in, `None` (keep) or the reason to drop it out.

`filtered` does both for a Document or an Example. Modules: `characters` (Unicode, mojibake),
`markup`, `boilerplate` repair; `quality`, `language`, `repetition` judge; `rules` holds the tables.
"""

from __future__ import annotations

from medexpert.data.filters.characters import clean, clean_value, damaged, repair, strings
from medexpert.data.filters.repetition import repetitive
from medexpert.data.filters.rules import (
    CHANGES,
    EXAMPLE_FILTERS,
    FILTERS,
    REASONS,
    Filtered,
    cleaned_with_changes,
    document_reason,
    example_reason,
    filtered,
)
from medexpert.data.filters.settings import DEFAULT, Settings

__all__ = [
    "CHANGES",
    "DEFAULT",
    "EXAMPLE_FILTERS",
    "FILTERS",
    "REASONS",
    "Filtered",
    "Settings",
    "clean",
    "clean_value",
    "cleaned_with_changes",
    "damaged",
    "document_reason",
    "example_reason",
    "filtered",
    "repair",
    "repetitive",
    "strings",
]
