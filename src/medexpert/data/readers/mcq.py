"""Multi-choice formats -> Example with {question, options, answer_idx, explanation}.

MedQA, MedMCQA, HEAD-QA, MMLU, CMMLU, CMExam, CMB and our own rows. The label-only and the
reason-first template take one letter; a question with several right answers (`ABD`) fits the
label-only one and carries no explanation, which is counted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medexpert.data.readers.examples import Item, example, name_of
from medexpert.data.readers.json_rows import json_array, json_object
from medexpert.data.readers.rows import (
    Change,
    Drop,
    Fault,
    Part,
    Reader,
    Row,
    id_of,
    jsonl,
    kind_of,
    list_of,
    object_of,
    optional_text,
    text_of,
)
from medexpert.data.readers.tables import csv_rows, parquet_rows
from medexpert.data.readers.wording import one_line
from medexpert.records import UserError

LETTERS = "ABCDEFGHIJ"
# How tables write a cell that is empty.
_MISSING = ("", "nan", "none", "null")
_BETWEEN_LETTERS = re.compile(r"[\s,，、;；/()（）.]+")
_OPTION_LINE = re.compile(r"\s*[(（]?([A-Ja-jＡ-Ｊ])[)）.．、:：\s]\s*(.*)")


def letters_of(answer: str, where: str) -> str:
    """The right letters of an answer cell in alphabetical order, "" for an empty cell.

    `d`, `(D)`, `Ｄ` are D; `B,A,D` and `ABD` are ABD. Raises UserError for anything else.
    """
    plain = unicodedata.normalize("NFKC", answer).strip()
    if plain.lower() in _MISSING:
        return ""
    letters = _BETWEEN_LETTERS.sub("", plain).upper()
    if not letters or any(letter not in LETTERS for letter in letters):
        raise UserError(f"unknown answer label {answer[:40]!r}", where=where, allowed=f"{LETTERS}")
    return "".join(sorted(set(letters)))


def choice(
    row: Mapping[str, Any],
    where: str,
    identifier: str,
    question: str,
    options: Mapping[str, str],
    answer: str,
    explanation: str = "",
    *,
    lang: str = "",
    ids: Mapping[str, str] | None = None,
) -> Iterator[Item]:
    """A multi-choice example, or a Drop; changes to options and label are counted.

    `options` are by letter, in order; trailing empty ones are cut off. Raises UserError for an
    answer that is no letter.
    """
    right = letters_of(answer, where)
    given = {letter.strip().upper(): text.strip() for letter, text in options.items()}
    changes = []
    if right and right != answer:
        changes.append("label_normalised")
    while given and not next(reversed(given.values())):
        changes.append("empty_option_removed")
        given.popitem()
    reason = _unusable(question, given, len(options), right)
    if reason:
        yield Drop(identifier, reason)
        return
    explanation = "" if explanation.strip().lower() in _MISSING else explanation.strip()
    if len(right) > 1 and explanation:
        changes.append("explanation_left_out")
        explanation = ""
    for what in changes:
        yield Change(identifier, what)
    fields = {
        "question": question.strip(),
        "options": given,
        "answer_idx": right,
        "explanation": explanation,
    }
    template = "chat.mcq_reason" if explanation else "chat.mcq_label"
    yield example(row, where, identifier, "mcq", template, fields, lang=lang, ids=ids)


def _unusable(question: str, options: Mapping[str, str], written: int, right: str) -> str:
    if not question.strip():
        return "no_question"
    if not right:
        return "no_answer"
    if written < 2 or len(options) < 2 or not all(options.values()):
        return "empty_option"
    if any(letter not in options for letter in right):
        return "answer_is_no_option"
    return ""


def lettered(texts: Sequence[Any], name: str, where: str) -> dict[str, str]:
    """A list of option texts under A, B, C, ... Raises UserError."""
    if len(texts) > len(LETTERS):
        raise UserError(f"{len(texts)} {name}", where=where, allowed=f"at most {len(LETTERS)}")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            what = f"{name}[{position}]: a string is expected, not {kind_of(text)}"
            raise UserError(what, where=where)
    return dict(zip(LETTERS, texts, strict=False))


def option_lines(text: str, where: str) -> dict[str, str]:
    """Options written one a line, `A text` or `(A) text`; a line without a letter goes on the last.

    Raises UserError when the first line has no letter or a letter occurs twice.
    """
    options: dict[str, str] = {}
    letter = ""
    for line in text.split("\n"):
        found = _OPTION_LINE.fullmatch(line) or _OPTION_LINE.fullmatch(f"{line.rstrip()} ")
        # The letters come in order, so that a text line that opens with "A" is not one.
        if found and _letter(found[1]) == LETTERS[len(options) : len(options) + 1]:
            letter = _letter(found[1])
            options[letter] = found[2].strip()
        elif letter:
            options[letter] = f"{options[letter]}\n{line.strip()}".strip()
        elif line.strip():
            what = f"options: {line.strip()[:40]!r} does not begin with A"
            raise UserError(what, where=where, allowed="one option a line, A first")
    return options


def _letter(written: str) -> str:
    return unicodedata.normalize("NFKC", written).upper()


def options_of(row: Mapping[str, Any], name: str, where: str) -> dict[str, str]:
    """An object letter -> text. Raises UserError; also for a key that is no letter, and for two
    keys of one letter ("A" and "a")."""
    options = object_of(row.get(name), f"field {name!r}", where)
    seen: dict[str, str] = {}
    for key in options:
        letter = key.strip().upper()
        if letter not in tuple(LETTERS):
            what = f"field {name!r}: {key[:40]!r} is no option letter"
            raise UserError(what, where=where, allowed=", ".join(LETTERS))
        if letter in seen:
            what = f"field {name!r}: {seen[letter]!r} and {key[:40]!r} are one letter"
            raise UserError(what, where=where, allowed="one option a letter")
        seen[letter] = key[:40]
        text_of(options, key, where)
    return options


# -- one function a schema -----------------------------------------------------------------------


def mcq(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """`{id, question, options: {letter: text}, answer_idx, explanation?}`."""
    yield from choice(
        row,
        where,
        id_of(row, where),
        text_of(row, "question", where),
        options_of(row, "options", where),
        text_of(row, "answer_idx", where),
        optional_text(row, "explanation", where),
    )


def medqa(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """MedQA (US, mainland, Taiwan): `{question, answer, options, meta_info, answer_idx}`, no id."""
    question = text_of(row, "question", where)
    identifier = name_of(row, where, question, "id", prefix="" if "id" in row else "medqa-")
    options, right = options_of(row, "options", where), text_of(row, "answer_idx", where)
    answer = text_of(row, "answer", where).strip()
    if right in options and options[right].strip() != answer:
        yield Drop(identifier, "answer_and_letter_differ")
        return
    yield from choice(row, where, identifier, question, options, right)


def medmcqa(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """MedMCQA: `{id, question, opa..opd, cop 1..4, exp, choice_type, subject_name, topic_name}`.

    `cop` is absent or null in the test file. `choice_type` "multi" still has one right option.
    """
    identifier = id_of(row, where)
    options = lettered([text_of(row, f"op{x}", where) for x in "abcd"], "options", where)
    right = row.get("cop")
    if right is not None and (isinstance(right, bool) or not isinstance(right, int)):
        raise UserError(f"field 'cop': a number is expected, not {kind_of(right)}", where=where)
    if right is not None and not 1 <= right <= 4:
        raise UserError(f"field 'cop': {right}", where=where, allowed="1 to 4")
    kind = optional_text(row, "choice_type", where)
    if kind not in ("", "single", "multi"):
        raise UserError(f"choice_type {kind!r}", where=where, allowed="single, multi")
    yield from choice(
        row,
        where,
        identifier,
        text_of(row, "question", where),
        options,
        "" if right is None else LETTERS[right - 1],
        optional_text(row, "exp", where),
        ids={"qid": identifier},
    )


def medmcqa_rows(part: Part) -> Iterator[Row | Fault]:
    """JSON lines as published, or the hub's parquet, whose `cop` counts from 0 (-1: none)."""
    if not is_parquet(part):
        yield from jsonl(part)
        return
    columns = ("id", "question", "opa", "opb", "opc", "opd", "cop")
    for found in parquet_rows(columns, ("exp", "choice_type"))(part):
        if isinstance(found, Fault):
            yield found
            continue
        where, row = found
        right = row.get("cop")
        if isinstance(right, int) and not isinstance(right, bool):
            row = {**row, "cop": None if right == -1 else right + 1}
        yield where, row


def headqa(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """HEAD-QA: `{name, qid, qtext, ra, answers: [{aid, atext}], image}`, `name` being the exam's;
    `ra` is the right `aid`."""
    identifier = headqa_id(where, row)
    if row.get("image"):
        yield Drop(identifier, "needs_image")
        return
    options, right = headqa_options(where, row)
    question = text_of(row, "qtext", where)
    ids = {"qid": identifier}
    yield from choice({}, where, identifier, question, options, right, ids=ids)


def headqa_id(where: str, row: Mapping[str, Any]) -> str:
    """`headqa-EXAM-QID`; the same in both published forms. Raises UserError."""
    if row.get("qid") is None:
        text_of(row, "qid", where)
    return name_of(row, where, "", "qid", prefix=f"headqa-{text_of(row, 'name', where)}-")


def headqa_options(where: str, row: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """(options by letter, right letter or "") of a HEAD-QA item. Raises UserError."""
    entries = [
        object_of(answer, f"answers[{position}]", where)
        for position, answer in enumerate(list_of(row, "answers", where))
    ]
    options = lettered([text_of(entry, "atext", where) for entry in entries], "answers", where)
    right = row.get("ra")
    return options, next(
        (
            letter
            for letter, entry in zip(LETTERS, entries, strict=False)
            if right is not None and str(entry.get("aid")) == str(right)
        ),
        "",
    )


def headqa_rows(part: Part) -> Iterator[Row | Fault]:
    """Items of the published JSON (`exams: {name: {data: [item]}}`) or of the hub's parquet, each
    with its exam's name."""
    if is_parquet(part):
        columns = ("name", "qid", "qtext", "ra", "answers")
        yield from parquet_rows(columns, ("image",))(part)
        return
    number = -1
    for found in json_object("exams", "name")(Part(part.path)):
        if isinstance(found, Fault):
            if not part.index:  # an exam is in no slice but the first when it cannot be read
                yield found
            continue
        where, exam = found
        name = exam["name"]
        if not isinstance(exam.get("data"), list):
            if not part.index:
                yield Fault(where, "field 'data': a list is expected")
            continue
        for raw in exam["data"]:
            number += 1
            if not part.has(number):
                continue
            if isinstance(raw, dict):
                place = one_line(f"{name}, qid {raw.get('qid')}", 100)
                yield f"{part.path} [{place}]", {**raw, "name": name}
            else:
                yield Fault(where, f"an object is expected, not {kind_of(raw)}")


def mmlu(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """MMLU: a line `question,A,B,C,D,letter`, or the hub's `{question, subject, choices, answer}`,
    whose answer counts from 0."""
    question = text_of(row, "question", where)
    if "choices" not in row:
        options = {letter: text_of(row, letter, where) for letter in "ABCD"}
        identifier = name_of(row, where, question, prefix="mmlu-")
        right = text_of(row, "answer", where)
    else:
        options = lettered(list_of(row, "choices", where), "choices", where)
        subject = optional_text(row, "subject", where) or "any"
        identifier = name_of(row, where, question, prefix=f"mmlu-{subject}-")
        right = indexed(row, "answer", len(options), where)
    yield from choice(row, where, identifier, question, options, right)


def indexed(row: Mapping[str, Any], name: str, count: int, where: str) -> str:
    """The letter of an answer that counts from 0. Raises UserError."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise UserError(f"field {name!r}: {value!r}", where=where, allowed=f"0 to {count - 1}")
    return LETTERS[value]


def mmlu_rows(part: Part) -> Iterator[Row | Fault]:
    """The published CSV, which has no header, or the hub's parquet."""
    if is_parquet(part):
        yield from parquet_rows(("question", "choices", "answer"), ("subject",))(part)
    else:
        yield from csv_rows(header=("question", "A", "B", "C", "D", "answer"))(part)


def cmmlu(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """CMMLU: `,Question,A,B,C,D,Answer` with a header."""
    question = text_of(row, "Question", where)
    options = {letter: text_of(row, letter, where) for letter in "ABCD"}
    identifier = name_of(row, where, question, prefix="cmmlu-")
    right = text_of(row, "Answer", where)
    yield from choice(row, where, identifier, question, options, right, lang="zh")


def cmexam(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """CMExam: `Question,Options,Answer,Explanation,...`, options one a line, or our JSON rows."""
    if "Question" not in row:
        yield from mcq(where, row)
        return
    question = text_of(row, "Question", where)
    yield from choice(
        row,
        where,
        name_of(row, where, question, prefix="cmexam-"),
        question,
        option_lines(text_of(row, "Options", where), where),
        optional_text(row, "Answer", where),
        optional_text(row, "Explanation", where),
        lang="zh",
    )


def cmb(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """CMB-Exam: `{exam_type, exam_class, exam_subject, question, answer, question_type, option}`.

    The test file has an `id` and no `answer`.
    """
    question = text_of(row, "question", where)
    identifier = name_of(row, where, question, "id", prefix="cmb-")
    options = options_of(row, "option", where)
    right = optional_text(row, "answer", where)
    explanation = optional_text(row, "explanation", where)
    yield from choice(row, where, identifier, question, options, right, explanation, lang="zh")


def is_parquet(part: Part) -> bool:
    """Whether a file is a parquet file, by its name."""
    return part.path.lower().endswith((".parquet", ".parq"))


def _cmexam_rows(part: Part) -> Iterator[Row | Fault]:
    yield from (csv_rows() if ".csv" in part.path.lower() else jsonl)(part)


READERS: dict[str, Reader] = {
    "mcq": Reader(jsonl, mcq),
    "medqa": Reader(jsonl, medqa),
    "medmcqa": Reader(medmcqa_rows, medmcqa),
    "headqa": Reader(headqa_rows, headqa),
    "mmlu": Reader(mmlu_rows, mmlu),
    "cmmlu": Reader(csv_rows(), cmmlu),
    "cmexam": Reader(_cmexam_rows, cmexam),
    "cmb": Reader(json_array(), cmb),
}
