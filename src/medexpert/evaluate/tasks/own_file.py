"""`--task file:PATH`: anybody's JSONL of questions as a task, checked line by line.

One object a line: `{id, question, choices: [text, ...], answer: index from 0, context?, lang?}`;
`context` is a text or a list of texts, and either every question has one or none has, since a
protocol is of all questions. The task's version is the digest of the file's content, so results of
a changed file are never compared.
"""

from __future__ import annotations

import difflib
import json
import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medexpert.evaluate.tasks.task import Task
from medexpert.prompt.options import LETTERS
from medexpert.records import Question, UserError, digest

PREFIX = "file:"
NEEDED = ("id", "question", "choices", "answer")
KEYS = (*NEEDED, "context", "lang")
TOLD = 20
"""Faults told one by one; the rest are counted."""
LANGUAGES = ("en", "zh")
_SHAPES = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | dict(
    zip(map(ord, "АВЕКМНОРСТХаеорсух"), "ABEKMHOPCTXaeopcyx", strict=True)
)


def is_own_file(name: str) -> bool:
    """Whether a task's name stands for a file."""
    return name.startswith(PREFIX)


def own_file(name: str) -> Task:
    """The task of `file:PATH`. Raises UserError with all faults of the file, each with its line."""
    path = Path(name.removeprefix(PREFIX)).expanduser()
    asked = read(path)
    words = asked[0].choices
    same = all(question.choices == words for question in asked)
    shown = [bool(question.contexts) for question in asked]
    return Task(
        name=f"{PREFIX}{path.name}",
        version=digest([vars(question) | {"ids": {}} for question in asked]),
        protocols=("reasoning-required", "question-only") if all(shown) else ("question-only",),
        choices=words if same and _are_words(words) else (),
        load=lambda root, split: _split(asked, split, path),
        official=False,
        note="a file of the user's own",
    )


def read(path: Path) -> list[Question]:
    """The questions of a file. Raises UserError: missing, empty, or all its bad lines."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError("no such file", where=str(path)) from None
    except IsADirectoryError:
        raise UserError("a folder, not a JSONL file", where=str(path)) from None
    faults: list[str] = []
    rows: list[Mapping[str, Any]] = []
    first_line: dict[str, int] = {}
    bare: dict[int, bool] = {}  # line -> whether its question has no context, where that is known
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line.strip():
            continue
        row, why = _row(line)
        rows.append(row)
        if _is_id(name := row.get("id")):
            first = first_line.setdefault(str(name), number)
            if first < number:
                why.append(f"id {str(name)!r} stands in line {first} already")
        if row and (texts := _contexts(row)) is not None:
            bare[number] = not texts
        faults += [f"{path}:{number}: {reason}" for reason in why]
    if not rows:
        raise UserError("no question in this file", where=str(path), allowed=_shape())
    if len(set(bare.values())) > 1:
        faults.insert(0, _mixed(bare, path))
    if faults:
        raise _all_told(faults, path)
    return [_question(row) for row in rows]


def _all_told(faults: list[str], path: Path) -> UserError:
    shown = faults[:TOLD]
    if len(faults) > TOLD:
        shown.append(f"{path}: {len(faults) - TOLD} more faults")
    count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
    return UserError("\n".join([f"{count} in this file", *shown]), where=str(path))


def _mixed(bare: Mapping[int, bool], path: Path) -> str:
    """The fault of a file in which some questions have a context: what to change, and where."""
    having = [line for line, none in bare.items() if not none]
    lacking = [line for line, none in bare.items() if none]
    fewer, odd = (having, "have one") if len(having) < len(lacking) else (lacking, "have none")
    told = ", ".join(map(str, fewer[:TOLD])) + (", ..." if len(fewer) > TOLD else "")
    return (
        f"{path}:{fewer[0]}: 'context' stands in {len(having)} of {len(bare)} questions, and must "
        f"stand in all or in none; those that {odd}: line{'s' if len(fewer) > 1 else ''} {told}"
    )


def _row(line: bytes) -> tuple[Mapping[str, Any], list[str]]:
    """The object of a line ({} where there is none), and all that is wrong with it by itself."""
    try:
        row = json.loads(line.decode("utf-8"))
        json.dumps(row, ensure_ascii=False).encode("utf-8")  # "\\ud800" is half a character
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        return {}, [f"not a JSON object in UTF-8 ({str(error)[:80]})"]
    if not isinstance(row, dict):
        return {}, [f"an object is expected, not {type(row).__name__}"]
    return row, _key_faults(row) + _value_faults(row)


def _question(row: Mapping[str, Any]) -> Question:
    """The question of a row without faults."""
    choices = tuple(text.strip() for text in row["choices"])
    return Question(
        id=str(row["id"]),
        question=row["question"].strip(),
        choices=choices,
        answer=choices[row["answer"]],
        contexts=_contexts(row) or (),
        lang=row.get("lang", "en"),
    )


def _contexts(row: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The texts of a row's context; None where it holds anything else."""
    context = row.get("context")
    texts = context if isinstance(context, list) else [] if context is None else [context]
    if not all(isinstance(text, str) for text in texts):
        return None
    return tuple(text for text in texts if text.strip())


def _is_id(name: Any) -> bool:
    return isinstance(name, str | int) and not isinstance(name, bool) and name != ""


def _key_faults(row: Mapping[str, Any]) -> list[str]:
    why = []
    for key in row:
        if key not in KEYS:
            close = difflib.get_close_matches(str(key), KEYS, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            why.append(f"unknown key {str(key)[:40]!r}; allowed: {', '.join(KEYS)}{hint}")
    return why + [f"key {key!r} is missing" for key in NEEDED if key not in row]


def _value_faults(row: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of the keys that are there."""
    why = []
    name, asked = row.get("id", "-"), row.get("question", "-")
    if not _is_id(name):
        why.append(f"'id' must be a text or a number, not {name!r}")
    if not isinstance(asked, str) or not asked.strip():
        why.append("'question' is empty or no text")
    if "choices" in row:
        why += _choice_faults(row["choices"], row.get("answer", 0))
    if _contexts(row) is None:
        why.append("'context' must be a text or a list of texts")
    if row.get("lang", "en") not in LANGUAGES:
        why.append(f"'lang' is {row['lang']!r}; allowed: {', '.join(LANGUAGES)}")
    return why


def _choice_faults(choices: Any, answer: Any) -> list[str]:
    if not isinstance(choices, list) or not all(isinstance(text, str) for text in choices):
        return ["'choices' must be a list of texts"]
    if not 2 <= len(choices) <= len(LETTERS):
        return [f"{len(choices)} choices; allowed: 2 to {len(LETTERS)}"]
    why = []
    if not all(text.strip() for text in choices):
        why.append("a choice is empty")
    seen: dict[str, str] = {}
    for text in choices:
        plain = _as_seen(text)
        if plain in seen:
            why.append(f"choices {seen[plain]!r} and {text!r} look the same")
        seen.setdefault(plain, text)
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        shown = "a number" if isinstance(answer, float) and math.isnan(answer) else repr(answer)
        allowed = f"an index, 0 to {len(choices) - 1}"
        why.append(f"'answer' is {shown[:40]}; allowed: {allowed}{_meant(choices, answer)}")
    return why


def _meant(choices: list[str], answer: Any) -> str:
    """The index to write for an answer given as a choice's text, its letter or a quoted index."""
    if not isinstance(answer, str):
        return ""
    texts = [text.strip() for text in choices]
    given, letters = answer.strip(), LETTERS[: len(choices)]
    if given in texts:
        return f"; for the choice {given[:40]!r} write {texts.index(given)}"
    if len(given) == 1 and given.upper() in letters:
        return f"; for choice {given.upper()} write {letters.index(given.upper())}"
    if given in map(str, range(len(choices))):
        return f"; write {given} without quotes"
    return ""


def _as_seen(text: str) -> str:
    """The text without what the eye does not tell apart: what looks the same nobody can answer.

    Full-width forms, Cyrillic letters shaped like Latin ones, invisible characters, runs of blanks.
    Not NFKC, under which 10² and 102 would be one.
    """
    seen = unicodedata.normalize("NFC", text).translate(_SHAPES)
    visible = (mark for mark in seen if unicodedata.category(mark) != "Cf")
    return " ".join("".join(visible).split())


def _are_words(choices: tuple[str, ...]) -> bool:
    """Whether choices that all questions share can be classes of a macro-F1: short, and few."""
    return len(choices) <= 5 and all(len(text.split()) <= 3 for text in choices)


def _split(asked: list[Question], split: str, path: Path) -> list[Question]:
    if split != "test":
        raise UserError(f"a file has no split {split!r}", where=str(path), allowed="test")
    return list(asked)


def _shape() -> str:
    return "one object a line: {id, question, choices, answer, context?, lang?}"
