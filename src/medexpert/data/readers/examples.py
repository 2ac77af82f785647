"""Stage-2 formats -> Example: a template name and its fields, never rendered text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medexpert.data.readers.rows import (
    Change,
    Drop,
    Item,
    Unique,
    id_of,
    ids_of,
    jsonl,
    list_of,
    object_of,
    optional_text,
    text_of,
    whole_json,
)
from medexpert.records import Example, UserError

LETTERS = "ABCDEFGHIJ"
ROLES = {
    "user": "user",
    "assistant": "assistant",
    "system": "system",
    "patient": "user",
    "doctor": "assistant",
}


def _rows(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any], str]]:
    unique = Unique("id")
    for path in paths:
        for where, row in jsonl(path):
            identifier = id_of(row, where)
            unique.check(identifier, where)
            yield where, row, identifier


def _example(
    row: Mapping[str, Any], where: str, kind: str, template: str, fields: Mapping[str, Any]
) -> Example:
    return Example(
        id=id_of(row, where),
        kind=kind,
        template=template,
        fields=fields,
        ids=ids_of(row, where),
        source=optional_text(row, "source", where),
        lang=optional_text(row, "lang", where),
        licence=optional_text(row, "license", where),
    )


def _blank(identifier: str, **fields: str) -> Drop | None:
    """A Drop naming the first empty field, so `no_answer`, `no_question`, ..."""
    for name, value in fields.items():
        if not value.strip():
            return Drop(identifier, f"no_{name}")
    return None


def qa(paths: Sequence[Path]) -> Iterator[Item]:
    """Rows `{id, question, answer}`."""
    for where, row, identifier in _rows(paths):
        question, answer = text_of(row, "question", where), text_of(row, "answer", where)
        drop = _blank(identifier, question=question, answer=answer)
        fields = {"question": question.strip(), "answer": answer.strip()}
        yield drop or _example(row, where, "qa", "chat.qa", fields)


def reasoning(paths: Sequence[Path]) -> Iterator[Item]:
    """Rows `{id, question, rationale, answer}`; an open question and answer are preferred."""
    for where, row, identifier in _rows(paths):
        prefix = "open_" if row.get("open_question") and row.get("open_answer") else ""
        question = text_of(row, f"{prefix}question", where)
        answer = text_of(row, f"{prefix}answer", where)
        rationale = text_of(row, "rationale", where)
        drop = _blank(identifier, question=question, rationale=rationale, answer=answer)
        fields = {
            "question": question.strip(),
            "rationale": rationale.strip(),
            "answer": answer.strip(),
        }
        yield drop or _example(row, where, "reasoning", "chat.reasoning", fields)


def mcq(paths: Sequence[Path]) -> Iterator[Item]:
    """Rows `{id, question, options: {letter: text}, answer_idx, explanation?}`."""
    for where, row, identifier in _rows(paths):
        question = text_of(row, "question", where)
        options = object_of(row.get("options"), "field 'options'", where)
        for letter in options:
            text_of(options, letter, where)
        answer = text_of(row, "answer_idx", where).strip()
        explanation = optional_text(row, "explanation", where)
        yield _choice(row, where, identifier, question, options, answer, explanation)


def _choice(
    row: Mapping[str, Any],
    where: str,
    identifier: str,
    question: str,
    options: Mapping[str, str],
    answer: str,
    explanation: str,
) -> Item:
    if (drop := _blank(identifier, question=question, answer=answer)) is not None:
        return drop
    if len(options) < 2 or not all(text.strip() for text in options.values()):
        return Drop(identifier, "empty_option")
    if answer not in options:
        several = len(answer) > 1 and all(letter in options for letter in answer)
        return Drop(identifier, "several_right_answers" if several else "answer_is_no_option")
    fields = {
        "question": question.strip(),
        "options": dict(options),
        "answer_idx": answer,
        "explanation": explanation.strip(),
    }
    template = "chat.mcq_reason" if fields["explanation"] else "chat.mcq_label"
    return _example(row, where, "mcq", template, fields)


def conversations(paths: Sequence[Path]) -> Iterator[Item]:
    """Rows `{id, messages: [{role, content}]}`, roles user/assistant/system or patient/doctor.

    Chat templates want user and assistant in turn, the user first: neighbouring turns of one role
    are joined, empty turns removed, an assistant's opening and a user's closing turn cut off; each
    is a counted change.
    """
    for where, row, identifier in _rows(paths):
        turns = [
            _turn(object_of(raw, f"messages[{position}]", where), where)
            for position, raw in enumerate(list_of(row, "messages", where))
        ]
        messages, changes = _alternate(turns)
        for what in changes:
            yield Change(identifier, what)
        if not any(turn["role"] == "assistant" for turn in messages):
            yield Drop(identifier, "no_answer")
        else:
            fields = {"messages": messages}
            yield _example(row, where, "conversation", "chat.conversation", fields)


def _turn(raw: Mapping[str, Any], where: str) -> dict[str, str]:
    role = text_of(raw, "role", where)
    if role not in ROLES:
        raise UserError(f"unknown role {role!r}", where=where, allowed=", ".join(ROLES))
    return {"role": ROLES[role], "content": text_of(raw, "content", where).strip()}


def _alternate(turns: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
    changes = []
    filled = [turn for turn in turns if turn["content"]]
    if len(filled) != len(turns):
        changes.append("empty_turn_removed")
    system = [turn for turn in filled[:1] if turn["role"] == "system"]
    rest = filled[len(system) :]
    start = next((i for i, turn in enumerate(rest) if turn["role"] == "user"), len(rest))
    if start:
        changes.append("opening_assistant_turn_removed")
    joined: list[dict[str, str]] = []
    for turn in rest[start:]:
        if joined and joined[-1]["role"] == turn["role"]:
            joined[-1] = {**turn, "content": f"{joined[-1]['content']}\n{turn['content']}"}
            changes.append("neighbouring_turns_joined")
        else:
            joined.append(turn)
    while joined and joined[-1]["role"] != "assistant":
        joined.pop()
        changes.append("closing_user_turn_removed")
    return system + joined, changes


def headqa(paths: Sequence[Path]) -> Iterator[Item]:
    """HEAD-QA's one JSON object: `exams: {name: {data: [{qid, qtext, ra, answers, image}]}}`."""
    unique = Unique("id")
    for path in paths:
        exams = object_of(whole_json(path), "the file", str(path)).get("exams")
        for name, exam in object_of(exams, "field 'exams'", str(path)).items():
            for raw in list_of(object_of(exam, name, str(path)), "data", f"{path} [{name}]"):
                yield _headqa_item(path, name, raw, unique)


def _headqa_item(path: Path, exam: str, raw: Any, unique: Unique) -> Item:
    row = object_of(raw, f"exam {exam}", str(path))
    where = f"{path} [{exam}, qid {row.get('qid')}]"
    identifier = f"headqa-{exam}-{text_of(row, 'qid', where)}"
    if identifier in unique.seen:
        raise UserError("this qid occurs twice", where=where)
    unique.check(identifier, where)
    if row.get("image"):
        return Drop(identifier, "needs_image")
    answers = list_of(row, "answers", where)
    if len(answers) > len(LETTERS):
        raise UserError(f"{len(answers)} answers", where=where, allowed=f"at most {len(LETTERS)}")
    options: dict[str, str] = {}
    right = ""
    for position, (letter, answer) in enumerate(zip(LETTERS, answers, strict=False)):
        entry = object_of(answer, f"answers[{position}]", where)
        options[letter] = text_of(entry, "atext", where).strip()
        if row.get("ra") is not None and str(entry.get("aid")) == str(row["ra"]):
            right = letter
    stamped = {**row, "id": identifier}
    return _choice(stamped, where, identifier, text_of(row, "qtext", where), options, right, "")
