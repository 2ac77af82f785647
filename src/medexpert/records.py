"""The nouns that may pass between rooms. Standard library only; every record is frozen.

A file on disk holds one record a line (JSONL), written with :func:`to_json` and read back with
:func:`read_jsonl`. `Example` names a template and carries fields, never rendered text, so that a
template can change without rebuilding data and trained text equals evaluated text.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

NO_ANSWER = "NO_ANSWER"
"""What a strategy returns when the completion names no choice. Counted, never guessed over."""


class UserError(Exception):
    """Bad input, told in one line: what, where, what is allowed, the nearest valid name.

    The door prints it without a traceback and exits with code 2.
    """

    def __init__(self, what: str, *, where: str = "", allowed: str = "", nearest: str = "") -> None:
        self.what, self.where, self.allowed, self.nearest = what, where, allowed, nearest
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.allowed:
            line += f"; allowed: {self.allowed}"
        if self.nearest:
            line += f"; did you mean {self.nearest!r}?"
        return line


def unknown_name(kind: str, name: str, known: Iterable[str], *, where: str = "") -> UserError:
    """The error for a name that is not in a table: lists the table and the nearest entry."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return UserError(
        f"unknown {kind} {name!r}",
        where=where,
        allowed=", ".join(names),
        nearest=close[0] if close else "",
    )


@dataclass(frozen=True)
class Document:
    """Plain text to learn from in stage 1. `ids` holds identifiers such as {"pmid": "123"}."""

    id: str
    text: str
    source: str
    lang: str = "en"
    title: str = ""
    licence: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """One supervised item for stages 2 and 3.

    `kind` is one of `qa`, `reasoning`, `mcq`, `conversation`, `task`. `template` is a name known to
    `medexpert.prompt.template`; `fields` are that template's inputs (see its docstring).
    """

    id: str
    source: str
    kind: str
    template: str
    fields: Mapping[str, Any]
    lang: str = "en"
    licence: str = ""
    ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """One benchmark item as a strategy may see it, plus its gold answer for the scorer.

    `long_answer` is filled for training items only; readers of a test split leave it empty, so that
    no prompt can leak it.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: str
    contexts: tuple[str, ...] = ()
    context_labels: tuple[str, ...] = ()
    long_answer: str = ""
    lang: str = "en"
    ids: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """A strategy's answer to one question. `choice` is a member of the choices or NO_ANSWER.

    `probabilities` are over the choices (they sum to 1), empty when the strategy gives none.
    `trace` keeps prompt hashes, rationales, per-choice scores, parse status and token counts; of a
    question that the engine refused, why (`refused`) and nothing else.
    """

    id: str
    choice: str
    answer: str
    probabilities: Mapping[str, float] = field(default_factory=dict)
    trace: Mapping[str, Any] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        return self.choice == self.answer

    @property
    def refused(self) -> str:
        """Why the engine gave no answer to this question at all; "" where it gave one."""
        return str(self.trace.get("refused", ""))

    @property
    def unparsed(self) -> bool:
        """An answer was given and names no choice."""
        return self.choice == NO_ANSWER and not self.refused


Record = TypeVar("Record", Document, Example, Question, Prediction)


def to_json(record: Document | Example | Question | Prediction) -> str:
    """One line of JSON, keys in field order, UTF-8 kept."""
    return json.dumps(vars(record), ensure_ascii=False, default=dict)


def from_mapping(kind: type[Record], row: Mapping[str, Any], *, where: str) -> Record:
    """A record from a parsed JSON object. Raises UserError naming a missing or unknown key."""
    known = [part.name for part in fields(kind)]
    for key in row:
        if key not in known:
            raise unknown_name(f"{kind.__name__} field", key, known, where=where)
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
    build: Callable[..., Record] = kind
    try:
        return build(**values)
    except TypeError as error:
        missing = str(error).rsplit(": ", 1)[-1]
        raise UserError(f"{kind.__name__} lacks {missing}", where=where) from None


def read_jsonl(path: Path, kind: type[Record]) -> Iterator[Record]:
    """Records of a JSONL file. Raises UserError with file:line on the first bad line."""
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            where = f"{path}:{number}"
            try:
                row = json.loads(raw.decode("utf-8"))
            except (UnicodeDecodeError, json.JSONDecodeError) as error:
                raise UserError(f"not a JSON line in UTF-8 ({error})", where=where) from None
            if not isinstance(row, dict):
                raise UserError(f"a JSON object is expected, not {type(row).__name__}", where=where)
            yield from_mapping(kind, row, where=where)


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text, so it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
