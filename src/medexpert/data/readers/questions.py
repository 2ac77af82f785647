"""Question-answer collections -> Example: MedQuAD, LiveQA-Med, MedicationQA, cMedQA2, Huatuo."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from medexpert.data.readers.archives import xml_members
from medexpert.data.readers.examples import Item, answered, cited, name_of
from medexpert.data.readers.mcq import is_parquet
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
from medexpert.data.readers.tables import csv_rows, parquet_rows, xlsx_rows
from medexpert.data.readers.xml_rows import text_in, xml_records
from medexpert.records import UserError

# MedQuAD's root elements and the attribute that names the document; five files have the latter two.
MEDQUAD_ROOTS = {"Document": "id", "doc": "docid", "DiseaseFile": "fid"}
LIVEQA_ROOTS = ("NLM-QUESTIONS", "LiveQA2017-Medical-Test-Set-Full")
_QUESTIONS_KEPT = 512 << 20  # characters of cMedQA2's questions held; the published ones are 6 M
_LINK = re.compile(r"https?://\S+")

# -- MedQuAD -------------------------------------------------------------------------------------


def medquad(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """MedQuAD: `<Document id url>`, in it `<QAPairs><QAPair pid><Question qid qtype/><Answer/>`.

    Five files spell the elements otherwise. Three of its twelve folders have empty answers (a
    copyright): Drops. The folder's number is part of the name, since document ids begin anew in
    each.
    """
    document = row["xml"]
    number = document.get(MEDQUAD_ROOTS[document.tag])
    if not number:
        what = f"<{document.tag}> has no {MEDQUAD_ROOTS[document.tag]}"
        raise UserError(what, where=where)
    path = _path(where)
    folder = re.match(r"(\d+)_", path.parent.name)
    prefix = f"medquad-{folder[1]}-" if folder else "medquad-"
    # Some documents were cut into several files that keep the document's id, so the file names it.
    stem = path.stem if path.stem.startswith(number) else number
    pairs = document.findall("QAPairs/QAPair") + document.findall("qaPairs/pair")
    if not pairs:
        yield Drop(f"{prefix}{stem}", "no_question")
    for position, pair in enumerate(pairs, 1):
        question, answer = (
            next((child for child in pair if child.tag in (tag, tag.lower())), None)
            for tag in ("Question", "Answer")
        )
        if question is None or answer is None:
            what = f"QAPair {position} lacks <Question> or <Answer>"
            raise UserError(what, where=where)
        qid = question.get("qid") or f"{number}-{pair.get('pid') or position}"
        yield answered(
            {},
            where,
            f"{prefix}{stem}{qid.removeprefix(number)}",
            text_in(question),
            _paragraphs(answer),
            lang="en",
            ids={"qid": qid, **cited(document.get("url") or "")},
        )


def _paragraphs(element: Any) -> str:
    """Text of an element with its line breaks, blank runs squeezed."""
    lines = ("".join(element.itertext())).split("\n")
    text = "\n".join(re.sub(r"[ \t\r\u00a0]+", " ", line).strip() for line in lines)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _path(where: str) -> PurePosixPath:
    """The file of `where`, also inside an archive."""
    inside = re.search(r"\[(.+)\]$", where)
    path = inside[1] if inside else where.rpartition(":")[0] or where
    return PurePosixPath(path.replace("\\", "/"))


def medquad_rows(part: Part) -> Iterator[Row | Fault]:
    """One XML file, or a zip or tar archive of them."""
    if not part.path.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz")):
        roots = tuple(MEDQUAD_ROOTS)
        yield from xml_records(*roots, roots=roots)(part)
        return
    for found in xml_members(part, (".xml",)):
        if isinstance(found, Fault) or found[1]["xml"].tag in MEDQUAD_ROOTS:
            yield found
        else:
            where, root = found[0], found[1]["xml"]
            allowed = ", ".join(MEDQUAD_ROOTS)
            yield Fault(where, f"the root element is <{str(root.tag)[:60]}>; allowed: {allowed}")


# -- LiveQA-Med ----------------------------------------------------------------------------------


def liveqa(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """LiveQA-Med of TREC 2017: the test and training XML, or rows `{id, subject, message,
    paraphrase, summary, references: [{answer, url}]}`. One example a reference answer."""
    item = liveqa_item(where, row)
    if not item.answers:
        yield Drop(item.id, "no_answer")
    for number, (answer, url) in enumerate(item.answers, 1):
        ids = {"qid": item.id, **cited(url)}
        identifier = f"{item.id}-{number}"
        yield answered(row_of(row), where, identifier, item.asked, answer, lang="en", ids=ids)


class LiveQuestion:
    """A question of LiveQA-Med in either form; `answers` are (text, address)."""

    def __init__(
        self, identifier: str, subject: str, message: str, others: tuple[str, ...]
    ) -> None:
        self.id, self.subject, self.message, self.others = identifier, subject, message, others
        self.answers: list[tuple[str, str]] = []

    @property
    def asked(self) -> str:
        """Subject and message, the subject left out where the message says it already."""
        if not self.message:
            return self.subject or next(filter(None, self.others), "")
        known = self.subject.lower() in self.message.lower()
        return self.message if known else f"{self.subject}\n{self.message}"


def liveqa_item(where: str, row: Mapping[str, Any]) -> LiveQuestion:
    """The question of one row. Raises UserError for a row that breaks the schema."""
    if "xml" in row:
        return _liveqa_xml(where, row["xml"])
    item = LiveQuestion(
        id_of(row, where),
        text_of(row, "subject", where).strip(),
        text_of(row, "message", where).strip(),
        tuple(optional_text(row, name, where).strip() for name in ("paraphrase", "summary")),
    )
    for position, raw in enumerate(list_of(row, "references", where)):
        reference = object_of(raw, f"references[{position}]", where)
        item.answers.append(
            (text_of(reference, "answer", where), optional_text(reference, "url", where))
        )
    return item


def _liveqa_xml(where: str, element: Any) -> LiveQuestion:
    number = element.get("qid") or element.get("questionid")
    if not number:
        raise UserError("<NLM-QUESTION> has neither qid nor questionid", where=where)
    message = element.find(".//MESSAGE")
    if message is None:
        raise UserError("<NLM-QUESTION> has no <MESSAGE>", where=where)
    others = tuple(text_in(element.find(tag)) for tag in ("NIST-PARAPHRASE", "NLM-Summary"))
    # The second training file counts its questions 1.0, 2.0; the first Q1, Q2.
    identifier = f"liveqa-{number}"
    item = LiveQuestion(identifier, text_in(element.find(".//SUBJECT")), text_in(message), others)
    # The first question's answers are called RefAnswer, all others ReferenceAnswer.
    for reference in element.iterfind("ReferenceAnswers/*"):
        if reference.tag not in ("RefAnswer", "ReferenceAnswer"):
            raise UserError(f"<{reference.tag}> among the reference answers", where=where)
        answer = text_in(reference.find("ANSWER"))
        item.answers.append((answer, text_in(reference.find("AnswerURL"))))
    for answer in element.findall(".//SUB-QUESTION/ANSWERS/ANSWER"):
        item.answers.append((text_in(answer), ""))
    return item


def row_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row's own fields; nothing for an XML row."""
    return {} if "xml" in row else row


def liveqa_rows(part: Part) -> Iterator[Row | Fault]:
    """XML questions or JSON lines, told by the file's name."""
    xml = ".xml" in part.path.lower()
    yield from (xml_records("NLM-QUESTION", roots=LIVEQA_ROOTS) if xml else jsonl)(part)


# -- MedicationQA --------------------------------------------------------------------------------


def medicationqa(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """MedicationQA: a sheet `Question, Focus (Drug), Question Type, Answer, Section Title, URL`, or
    rows `{id, question, answer, url, ...}`."""
    sheet = "Question" in row
    question = optional_text(row, "Question" if sheet else "question", where)
    answer = optional_text(row, "Answer" if sheet else "answer", where)
    address = optional_text(row, "URL" if sheet else "url", where)
    if not sheet:
        text_of(row, "question", where)
    identifier = name_of(row, where, question, "id")
    yield answered(row, where, identifier, question, answer, lang="en", ids=cited(address))


def medicationqa_rows(part: Part) -> Iterator[Row | Fault]:
    """The published sheet or JSON lines."""
    sheet = part.path.lower().endswith((".xlsx", ".xlsm"))
    yield from (xlsx_rows(("Question", "Answer")) if sheet else jsonl)(part)


# -- cMedQA2 -------------------------------------------------------------------------------------


def cmedqa2(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """cMedQA2 after the join: `{ans_id, question_id, content, question, in_train}`."""
    number = id_of(row, where, "question_id")
    identifier = f"cmedqa2-{id_of(row, where, 'ans_id')}"
    if row["question"] is None:
        raise UserError(f"question_id {number!r} is not in the question file", where=where)
    if not row["in_train"]:
        yield Drop(identifier, "not_in_train_split")
        return
    answer = text_of(row, "content", where)
    ids = {"qid": number}
    yield answered(row, where, identifier, row["question"], answer, lang="zh", ids=ids)


def cmedqa2_rows(part: Part) -> Iterator[Row | Fault]:
    """Rows of `answer.csv` with their question from `question.csv` beside it.

    `train_candidates.txt` says which questions are for training; the others are the published dev
    and test questions.

    Each may be a zip of one file of that name, as in the repository.
    """
    folder, _, name = part.path.rpartition("/")
    ending = name.removeprefix("answer")
    if ending == name:
        what = "cMedQA2 is read from its file of answers"
        raise UserError(what, where=part.path, allowed="answer.csv, answer.zip")
    zipped = ending.lower().endswith(".zip")
    plural = ending[: -len(".csv")]  # "s" in copies that name their files as the README does

    def beside(stem: str, suffix: str) -> str:
        path = f"{folder}/{stem}" if folder else stem
        return f"zip://{stem}{suffix}::{path}.zip" if zipped else f"{path}{suffix}"

    train = set()
    for found in csv_rows(required=("question_id",))(Part(beside("train_candidates", ".txt"))):
        if not isinstance(found, Fault):
            train.add(found[1]["question_id"].strip())
        elif not part.index:
            yield found
    questions: dict[str, str] = {}
    size = 0
    required = ("question_id", "content")
    for found in csv_rows(required=required)(Part(beside(f"question{plural}", ".csv"))):
        if isinstance(found, Fault):
            if not part.index:
                yield found
            continue
        content = found[1]["content"]
        size += len(content)
        if size > _QUESTIONS_KEPT:
            raise UserError("more questions than are held in memory", where=found[0])
        questions[found[1]["question_id"].strip()] = content
    answers = Part(beside(f"answer{plural}", ".csv"), part.index, part.parts)
    for found in csv_rows(required=("ans_id", *required))(answers):
        if isinstance(found, Fault):
            yield found
            continue
        where, row = found
        number = row["question_id"].strip()
        told = {"question": questions.get(number), "in_train": number in train}
        yield where, {**row, "question_id": number, **told}


# -- Huatuo-26M ----------------------------------------------------------------------------------


def huatuo(where: str, row: Mapping[str, Any]) -> Iterator[Item]:
    """Huatuo-26M's sets: `{questions, answers}`, each a string, a list of strings, or a list of
    such lists (encyclopedia); Huatuo26M-Lite: `{id, question, answer, label, score}`.

    The first wording and the first answer are taken, others counted. An answer that is only a link
    (the consultation set) is a Drop.
    """
    short = "question" in row
    asked = _wordings(row, "question" if short else "questions", where)
    told = _wordings(row, "answer" if short else "answers", where)
    question, answer = (next(iter(texts), "") for texts in (asked, told))
    identifier = name_of(row, where, question, "id")
    if len(asked) > 1:
        yield Change(identifier, "other_wordings_left_out")
    if len(told) > 1:
        yield Change(identifier, "other_answers_left_out")
    if _LINK.fullmatch(answer):
        yield Drop(identifier, "answer_is_a_link")
        return
    kept = {k: v for k, v in row.items() if k in ("source", "lang", "license", "licence")}
    yield answered(kept, where, identifier, question, answer, lang="zh")


def _wordings(row: Mapping[str, Any], name: str, where: str) -> list[str]:
    """The texts in a string, a list of strings or a list of such lists, in order, none empty."""
    if name not in row:
        text_of(row, name, where)
    waiting, texts = [row[name]], []
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, list):
            waiting = value + waiting
        elif isinstance(value, str):
            texts.append(value.strip())
        else:
            what = f"field {name!r}: text is expected, not {kind_of(value)}"
            raise UserError(what, where=where)
    return [text for text in texts if text]


def _huatuo_rows(part: Part) -> Iterator[Row | Fault]:
    if is_parquet(part):
        optional = ("id", "question", "answer", "questions", "answers")
        yield from parquet_rows((), optional)(part)
    else:
        yield from jsonl(part)


READERS: dict[str, Reader] = {
    "medquad": Reader(medquad_rows, medquad),
    "liveqa": Reader(liveqa_rows, liveqa),
    "medicationqa": Reader(medicationqa_rows, medicationqa),
    "cmedqa2": Reader(cmedqa2_rows, cmedqa2),
    "huatuo": Reader(_huatuo_rows, huatuo),
}
