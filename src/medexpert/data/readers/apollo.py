"""Apollo's multi-choice rows -> Example: `{question, options: "(A) ...\\n(B) ...", answer: "(D)"}`.

Its collection re-publishes CMB, CMExam and MedQA's mainland questions in this one shape, without
ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medexpert.data.readers.examples import Item, name_of
from medexpert.data.readers.mcq import choice, option_lines
from medexpert.data.readers.rows import Reader, jsonl, text_of


def apollo(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """One question. Raises UserError for a row that breaks the schema."""
    question = text_of(row, "question", where)
    options = option_lines(text_of(row, "options", where), where)
    prefix = "" if "id" in row else "apollo-"
    identifier = name_of(row, where, question, "id", prefix=prefix)
    answer = text_of(row, "answer", where)
    yield from choice({}, where, identifier, question, options, answer)


READERS: dict[str, Reader] = {"apollo": Reader(jsonl, apollo)}
