"""Files to break: our own small ones in every published schema. Every sentence is invented."""

from __future__ import annotations

import bz2
import csv
import functools
import gzip
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas import (
    APOLLO,
    BIOASQ,
    CITATION,
    CMB,
    CMEDQA,
    CMEDQA_ANSWERS,
    CMEXAM,
    CMMLU,
    DIALOGUE,
    EVIDENCE,
    GPT,
    HEADQA,
    HTML,
    JATS,
    LIVEQA,
    LIVEQA_XML,
    MCQ,
    MEDLINE,
    MEDMCQA,
    MEDQA,
    MEDQUAD,
    MMLU,
    OWN,
    PAPER,
    PDF,
    PQA,
    RCT,
    S2ORC,
    S2ORC_OLD,
    SECTIONS,
    TEXT,
    TURNS,
    ZH,
)

_TIME = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


@dataclass(frozen=True)
class Seed:
    """A well-formed file: which reader takes it, its name, its bytes and files beside it.

    `family` says who reads it: reader, abstract, benchmark, evidence or any (show, stats, audit).
    """

    family: str
    format: str
    name: str
    data: bytes
    beside: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    real: bool = False

    @property
    def label(self) -> str:
        """A name for reports."""
        return f"{self.family}:{self.format}:{self.name}" + (":real" if self.real else "")


def _lines(*rows: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _value(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode()


def _each(row: Mapping[str, Any], key: str = "id", n: int = 8) -> list[dict[str, Any]]:
    """The row n times, with an id and words of its own each."""
    made = []
    for at in range(n):
        own: dict[str, Any] = {key: f"{row.get(key, 'r')}{at}"} if key else {}
        if str(row.get("pmid", "")):
            own["pmid"] = f"{row['pmid']}{at}"
        made.append({**row, **own})
    return made


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """A parquet file of rows."""
    import pyarrow as arrow
    import pyarrow.parquet as table

    target = io.BytesIO()
    table.write_table(arrow.Table.from_pylist(rows), target)
    return target.getvalue()


def xlsx(*rows: list[Any]) -> bytes:
    """A workbook of one sheet."""
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    target = io.BytesIO()
    book.save(target)
    return _steady(target.getvalue())


def docx(*paragraphs: str) -> bytes:
    """A Word file."""
    import docx as word

    document = word.Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    target = io.BytesIO()
    document.save(target)
    return _steady(target.getvalue())


def _steady(data: bytes) -> bytes:
    """An office file without the time at which it was made."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return zipped({name: _TIME.sub(b"2020-01-01T00:00:00Z", x) for name, x in members.items()})


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip archive."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return target.getvalue()


def tarred(members: Mapping[str, bytes], *, packed: bool = True) -> bytes:
    """A tar archive, gzip'd."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    raw = target.getvalue()
    return gzip.compress(raw, mtime=0) if packed else raw


def _readers() -> list[tuple[str, str, bytes]]:
    """(reader, file name, bytes) of published formats that are one file of text."""
    text = {"id": "d", "text": TEXT, "title": "Tea", "pmid": "", "license": "MIT", "source": "x"}
    return [
        ("documents", "d.jsonl", _lines(*_each(text))),
        ("pubmed_abstracts", "p.jsonl", _lines(*_each(text | {"pmid": 1, "lang": "en"}))),
        ("tcm_classics", "t.jsonl", _lines(*_each({"text": ZH, "source": "b"}))),
        ("structured_abstracts", "s.jsonl", _lines(*_each({"sections": SECTIONS, "year": 1}))),
        ("pmc_fulltext", "f.jsonl", _lines(*_each(
            PAPER | {"sections": [{"heading": "A", "text": TEXT}]}))),
        ("s2orc", "s2.jsonl", _lines(*[S2ORC | {"corpusid": n} for n in range(6)])),
        ("s2orc", "s1.jsonl", _lines(*_each(S2ORC_OLD, "paper_id"))),
        ("medrag", "m.jsonl", _lines(*_each(
            {"title": "A_b", "content": TEXT, "contents": TEXT, "PMID": 3}))),
        ("guidelines", "g.jsonl", _lines(*_each(
            {"source": "w", "title": None, "clean_text": TEXT, "url": ""}))),
        ("text_jsonl", "x.jsonl", _lines(*_each({"text": TEXT, "source": "y"}))),
        ("textbook_txt", "Tea_Book.txt", f"# Tea\n\n{TEXT}\n\n{TEXT}\n".encode()),
        ("medline", "pubmed25n0001.xml", MEDLINE.format("".join(
            CITATION.format(n) for n in range(20, 26))).encode()),
        ("pmc_oa", "PMC77.nxml", JATS.format(77).encode()),
        ("pubmed_rct", "train.txt", RCT.encode()),
    ]  # fmt: skip


def _example_readers() -> list[tuple[str, str, bytes]]:
    """The same of questions, conversations and instructions."""
    qa = {"id": "q", "question": "Does tea help?", "answer": TEXT, "pmid": "12"}
    alpaca = {"instruction": "Sum up.", "input": "It hurts.", "output": "Rest for a day."}
    blue = {"input": "何者？\n选项：甲，乙\n答：", "target": "甲", "answer_choices": ["甲", "乙"]}
    blue |= {"task_type": "cls", "task_dataset": "CHIP-CTC"}
    pqas = {str(n): PQA for n in range(10, 18)}
    pqau = {str(n): {**PQA, "PMCID": "PMC9"} for n in range(10, 18)}
    o1 = {"Question": "Why?", "Complex_CoT": "Let me see.", "Response": "So."}
    exams = {"E": {"name": "E", "data": [HEADQA | {"qid": str(n)} for n in range(6)]}}
    meddialog = [
        {"description": "sore", "utterances": ["patient: sore throat", "doctor: warm tea."]},
        ["病人：嗓子疼", "医生：喝温水。"],
        {"dialogue_id": 1, "dialogue_turns": {"speaker": [0, 1], "utterance": ["疼", "喝水。"]}},
    ] * 3  # fmt: skip
    huatuo = [
        {"questions": "嗓子疼？", "answers": ZH}, {"questions": ["嗓子疼？"], "answers": [ZH]},
        {"questions": [["嗓子疼？", "喉咙痛？"]], "answers": [ZH]},
        {"id": 5, "question": "嗓子疼？", "answer": ZH, "label": "x", "score": 5},
    ]  # fmt: skip
    return [
        ("qa", "q.jsonl", _lines(*_each(qa))),
        ("reasoning", "r.jsonl", _lines(*_each(qa | {"rationale": "Let me see."}))),
        ("mcq", "m.jsonl", _lines(*_each(MCQ))),
        ("conversations", "c.jsonl", _lines(*_each({"messages": TURNS}))),
        ("pqau", "u.json", _value(pqau)),
        ("pubmedqa_a", "ori_pqaa.json", _value(pqas)),
        ("pubmedqa_u", "ori_pqau.json", _value(pqas)),
        ("bioasq", "9B1_golden.json", _value({"questions": _each(BIOASQ)})),
        ("medqa", "train.jsonl", _lines(*_each(MEDQA, ""))),
        ("medmcqa", "train.json", _lines(*_each(MEDMCQA))),
        ("headqa", "train_EN.json", _value({"version": "1.0", "language": "en", "exams": exams})),
        ("mmlu", "anatomy_dev.csv", MMLU.encode()),
        ("cmmlu", "anatomy_dev.csv", CMMLU.encode()),
        ("cmexam", "val.csv", CMEXAM.encode()),
        ("cmb", "CMB-train.json", _value([CMB] * 5)),
        ("apollo", "a.jsonl", _lines(*_each(
            {"question": "何者？", "options": "(A) 甲.\n(B) 乙.", "answer": "(A)", "source": ""}))),
        ("medquad", "0000001.xml", MEDQUAD.format(1, 1).encode()),
        ("liveqa", "test.xml", LIVEQA_XML.encode()),
        ("liveqa", "l.jsonl", _lines(*_each(LIVEQA))),
        ("medicationqa", "m.jsonl", _lines(*_each(qa))),
        ("huatuo", "h.jsonl", _lines(*huatuo, *huatuo[:3])),
        ("chatdoctor", "chat.json", _value([alpaca] * 6)),
        ("chatdoctor", "icliniq.json", _value(
            [{"input": "It hurts.", "answer_icliniq": "Rest.", "answer_chatgpt": "No."}] * 5)),
        ("alpaca", "alpaca.json", _value([alpaca] * 6)),
        ("promptcblue", "train.json", _lines(*_each(blue, "sample_id"))),
        ("medical_o1", "o1.json", _value([o1] * 6)),
        ("ultramedical", "u.jsonl", _lines(*_each(
            {"id": "MedQA,", "type": "Exam", "conversations": GPT, "answer": "A", "score": "5"}))),
        ("sharegpt", "s.jsonl", _lines(*_each({"conversations": GPT}))),
        ("sharegpt", "s.json", _value(_each({"conversations": GPT}))),
        ("meddialog", "d.json", _value(meddialog)),
        ("meddialog", "2020.txt", "".join(DIALOGUE.format(n) for n in range(1, 7)).encode()),
    ]  # fmt: skip


def _packed_readers() -> list[tuple[str, str, bytes]]:
    """The same of formats whose bytes are an archive or a table."""
    wiki = {"id": "1", "url": "https://en.wikipedia.org/x", "title": "t", "text": TEXT}
    hub = {"dialogue_id": 1, "dialogue_turns": [{"speaker": "病人", "utterance": "疼"}]}
    head = ["Question", "Focus (Drug)", "Question Type", "Answer", "Section Title", "URL"]
    articles = {f"PMC{n}.xml": JATS.format(n).encode() for n in (3, 4)}
    books = {f"MedQuAD/4_Tea_QA/000000{n}.xml": MEDQUAD.format(n, n).encode() for n in (1, 2)}
    mmlu = {"question": "Which?", "subject": "anatomy", "choices": list("wxyz"), "answer": 0}
    return [
        ("wikipedia", "w.parquet", parquet([wiki | {"id": str(n)} for n in range(6)])),
        ("fineweb", "f.parquet", parquet([{"id": str(n), "text": TEXT} for n in range(6)])),
        ("medmcqa", "t.parquet", parquet(_each(MEDMCQA | {"cop": 3}))),
        ("mmlu", "test.parquet", parquet([mmlu] * 4)),
        ("meddialog", "t.parquet", parquet([hub] * 3)),
        ("medicationqa", "m.xlsx", xlsx(head, *[["how much", "T", "Dose", "Two.", "D", "u"]] * 4)),
        ("pmc_oa", "a.tar.gz", tarred(articles)),
        ("pmc_oa", "a.tar", tarred(articles, packed=False)),
        ("pmc_oa", "a.zip", zipped(articles)),
        ("medquad", "MedQuAD.zip", zipped(books)),
        ("medline", "pubmed25n0002.xml.gz", gzip.compress(
            MEDLINE.format(CITATION.format(5)).encode(), mtime=0)),
        ("documents", "d.jsonl.bz2", bz2.compress(
            _lines(*_each({"id": "d", "text": TEXT, "title": "", "license": "MIT"})))),
    ]  # fmt: skip


def _benchmarks() -> list[tuple[str, str, bytes]]:
    exams = {"E": {"name": "E", "data": [HEADQA | {"qid": str(n)} for n in range(6)]}}
    general = {"question": "Which?", "choices": ["one", "two"], "answer": 1, "pmid": 12}
    said = {"instruction": "Say.", "input": "", "gpt-4-answer": "A.", "claude-2": "B."}
    return [
        ("pubmedqa", "ori_pqal.json", _value({str(n): PQA for n in range(10, 18)})),
        ("medqa", "test.jsonl", _lines(*_each(MEDQA, ""))),
        ("medmcqa", "dev.json", _lines(*_each(MEDMCQA))),
        ("mmlu", "anatomy_test.csv", MMLU.encode()),
        ("cmmlu", "anatomy_test.csv", CMMLU.encode()),
        ("headqa", "dev.json", _value({"exams": exams})),
        ("apollo", "a.jsonl", _lines(*_each(APOLLO))),
        ("cmexam", "test.csv", CMEXAM.encode()),
        ("cmb", "test.json", _value([CMB] * 5)),
        ("liveqa", "l.jsonl", _lines(*_each(LIVEQA))),
        ("medicationqa", "m.jsonl", _lines(*_each({"question": "dose?", "answer": "Two."}))),
        ("medinstruct", "i.jsonl", _lines(*_each(said))),
        ("bioasq", "g.json", _value({"questions": _each(BIOASQ)})),
        ("file", "f.jsonl", _lines(*_each(general))),
    ]


def _local() -> list[tuple[str, bytes]]:
    rows = [{"text": TEXT, "title": "Tea", "pmid": "3"}, {"content": ZH}, {"note": TEXT}] * 3
    table = io.StringIO()
    csv.writer(table).writerows([["id", "text"], *([str(n), TEXT + "\n" + ZH] for n in range(6))])
    return [
        ("note.txt", f"{TEXT}\n\n{ZH}\n".encode()),
        ("gb.txt", (ZH * 4).encode("gb18030")),
        ("wide.txt", TEXT.encode("utf-16-le")),
        ("note.md", f"# Tea\n\n{TEXT}\n\n- one\n- two\n".encode()),
        ("note.jsonl", _lines(*rows)),
        ("wide.jsonl", _lines(*rows).decode().encode("utf-16")),
        ("note.json", _value(rows)),
        ("note.csv", table.getvalue().encode()),
        ("note.tsv", f"text\tid\n{TEXT}\t1\n{ZH}\t2\n".encode()),
        ("note.parquet", parquet([{"text": TEXT}, {"text": ZH}])),
        ("note.html", HTML.encode()),
        ("note.pdf", PDF),
        ("note.docx", docx(TEXT, ZH)),
        ("cite.xml", MEDLINE.format(CITATION.format(5)).encode()),
        ("art.nxml", JATS.format(77).encode()),
        ("note.txt.gz", gzip.compress(TEXT.encode(), mtime=0)),
    ]


def _evidence() -> list[Seed]:
    votes = (
        b"UserID,PromptID,PMCID,Valid Label,Valid Reasoning,Label,Annotations,Label Code,"
        b"In Abstract\n0,1,7,True,True,significantly decreased,shorter,-1,True\n"
        b"0,2,7,True,True,no significant difference,same,0,True\n"
    )
    asked = b"PromptID,PMCID,Outcome,Intervention,Comparator\n1,7,stay,tea,water\n2,7,pain,tea,x\n"
    article = b"TITLE: Tea\n\n  ABSTRACT.METHODS:\nBy lot.\n\nABSTRACT.RESULTS:\nShorter.\n"
    files = {"a.csv": votes, "p.csv": asked, "txt_files/PMC7.txt": article}
    lines = _lines(*_each(EVIDENCE))
    seeds = [Seed("evidence", "rows", "e.jsonl", lines)]
    for name, data in files.items():
        beside = {other: held for other, held in files.items() if other != name}
        seeds.append(Seed("evidence", "tables", name, data, beside))
    return seeds


@functools.cache
def own() -> tuple[Seed, ...]:
    """Our own files, one or more for every reader there is."""
    seeds = [
        Seed("reader", *told) for told in (*_readers(), *_example_readers(), *_packed_readers())
    ]
    answers = CMEDQA_ANSWERS.encode()
    seeds.append(Seed("reader", "cmedqa2", "answer.csv", answers, CMEDQA))
    packed = {f"{name.split('.')[0]}.zip": zipped({name: data}) for name, data in CMEDQA.items()}
    seeds.append(Seed("reader", "cmedqa2", "answer.zip", zipped({"answer.csv": answers}), packed))
    seeds += [Seed("reader", "local-text", name, data) for name, data in _local()]
    seeds += [Seed("benchmark", *told) for told in _benchmarks()]
    abstracts = ("structured_abstracts", "medline", "pmc_oa", "pubmed_rct")
    seeds += [Seed("abstract", *told) for told in _readers() if told[0] in abstracts]
    seeds += _evidence()
    pqal = next(told for told in _benchmarks() if told[0] == "pubmedqa")
    seeds.append(Seed("pubmedqa", *pqal))
    seeds.append(Seed("own", "own_examples", "mine.jsonl", _lines(*_each(OWN))))
    seeds += [
        Seed("any", "audit", "t.csv", f"id,text\n1,{TEXT}\n2,{ZH}\n".encode()),
        Seed("any", "audit", "t.txt", f"{TEXT}\n{ZH}\n".encode() * 20),
        Seed("any", "audit", "t.json", _value({"a": [MCQ, MEDQA], "b": {"12": PQA}})),
        Seed("any", "audit", "t.parquet", parquet(_each({"text": TEXT}))),
    ]
    return tuple(seeds)
