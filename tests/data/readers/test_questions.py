from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.readers.questions import READERS
from medexpert.data.readers.rows import Drop, Fault, Part, read
from medexpert.records import UserError


def of(name: str, path: Path | str, parts: int = 1) -> list[Any]:
    return list(read(READERS[name], [Part(str(path), i, parts) for i in range(parts)]))


MEDQUAD = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="0000001" source="X" url="https://pubmed.ncbi.nlm.nih.gov/77/">
<!--a remark-->
<Focus>Tea fever</Focus>
<QAPairs>
 <QAPair pid="1"><Question qid="0000001-1" qtype="information">What is tea fever ?</Question>
  <Answer>A fever.
  - after   tea</Answer></QAPair>
 <QAPair pid="2"><Question qid="0000001-2" qtype="causes">Why ?</Question><Answer></Answer></QAPair>
</QAPairs></Document>"""


def medquad(tmp_path: Path, text: str, name: str = "0000001.xml") -> Path:
    folder = tmp_path / "4_Tea_QA"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_medquad(tmp_path: Path) -> None:
    item, drop = of("medquad", medquad(tmp_path, MEDQUAD))
    assert item.id == "medquad-4-0000001-1"
    assert item.fields == {"question": "What is tea fever ?", "answer": "A fever.\n- after tea"}
    assert item.ids == {"qid": "0000001-1", "pmid": "77"}
    assert drop == Drop("medquad-4-0000001-2", "no_answer")
    cut = of("medquad", medquad(tmp_path, MEDQUAD, "0000001_2.xml"))
    assert cut[0].id == "medquad-4-0000001_2-1"


def test_medquad_in_its_rare_spellings(tmp_path: Path) -> None:
    text = """<doc docid="0000002" url=""><qaPairs><pair pid="1">
    <question qid="0000002-1">what ?</question><answer>This.</answer></pair></qaPairs></doc>"""
    (item,) = of("medquad", medquad(tmp_path, text, "0000002.xml"))
    assert (item.id, item.fields["answer"]) == ("medquad-4-0000002-1", "This.")


def test_medquad_faults(tmp_path: Path) -> None:
    (found,) = of("medquad", medquad(tmp_path, MEDQUAD.replace(' id="0000001"', "")))
    assert found.what == "<Document> has no id"
    (found,) = of("medquad", medquad(tmp_path, MEDQUAD.replace("Answer>", "Reply>")))
    assert found.what == "QAPair 1 lacks <Question> or <Answer>"
    with pytest.raises(UserError, match="the root element is <html>; allowed: Document, doc"):
        of("medquad", medquad(tmp_path, "<html/>"))


def test_medquad_as_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "MedQuAD.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MedQuAD/4_Tea_QA/0000001.xml", MEDQUAD)
        archive.writestr("MedQuAD/4_Tea_QA/0000003.xml", "<Document")
        archive.writestr("MedQuAD/4_Tea_QA/0000004.xml", "<html/>")
        archive.writestr("MedQuAD/readme.txt", "x")
    item, drop, broken, other = of("medquad", path)
    assert item.id == "medquad-4-0000001-1"
    assert isinstance(drop, Drop)
    assert broken.what.startswith("not valid XML")
    assert "0000004.xml" in other.where
    assert other.what.startswith("the root element is <html>; allowed: Document")


LIVEQA = """<?xml version="1.0"?><LiveQA2017-Medical-Test-Set-Full>
<NLM-QUESTION qid="TQ1"><Original-Question qfile="1.txt"><SUBJECT>Tea fever</SUBJECT>
<MESSAGE>Does it pass?</MESSAGE></Original-Question>
<NIST-PARAPHRASE>Does tea fever pass?</NIST-PARAPHRASE><NLM-Summary>Tea fever?</NLM-Summary>
<ReferenceAnswers><RefAnswer aid="TQ1A1"><ANSWER>It does.</ANSWER>
<AnswerURL>https://www.ncbi.nlm.nih.gov/pubmed/55</AnswerURL></RefAnswer></ReferenceAnswers>
</NLM-QUESTION>
<NLM-QUESTION qid="TQ2"><Original-Question><SUBJECT/><MESSAGE>Why?</MESSAGE></Original-Question>
<ReferenceAnswers><ReferenceAnswer aid="TQ2A1"><ANSWER>So.</ANSWER></ReferenceAnswer>
<ReferenceAnswer aid="TQ2A2"><ANSWER></ANSWER></ReferenceAnswer></ReferenceAnswers></NLM-QUESTION>
</LiveQA2017-Medical-Test-Set-Full>"""
TRAIN = """<NLM-QUESTIONS><NLM-QUESTION questionid="Q1" fRef="1"><SUBJECT></SUBJECT>
<MESSAGE>Tea?</MESSAGE><SUB-QUESTIONS><SUB-QUESTION subqid="Q1-S1"><ANNOTATIONS/>
<ANSWERS><ANSWER answerid="Q1-S1-A1" pairid="1">Tea.</ANSWER></ANSWERS></SUB-QUESTION>
</SUB-QUESTIONS></NLM-QUESTION>
<NLM-QUESTION qid="2.0"><SUBJECT>Tea</SUBJECT><MESSAGE>No?</MESSAGE></NLM-QUESTION>
<NLM-QUESTION><MESSAGE>x</MESSAGE></NLM-QUESTION><NLM-QUESTION qid="3"/></NLM-QUESTIONS>"""


def test_liveqa_test_xml(tmp_path: Path) -> None:
    path = tmp_path / "t.xml"
    path.write_text(LIVEQA, encoding="utf-8")
    first, second, third = of("liveqa", path)
    assert first.id == "liveqa-TQ1-1"
    assert first.fields == {"question": "Tea fever\nDoes it pass?", "answer": "It does."}
    assert first.ids == {"qid": "liveqa-TQ1", "pmid": "55"}
    assert second.fields["question"] == "Why?"
    assert third == Drop("liveqa-TQ2-2", "no_answer")
    path.write_text(LIVEQA.replace("RefAnswer", "Reply"), encoding="utf-8")
    assert of("liveqa", path)[0].what == "<Reply> among the reference answers"


def test_liveqa_training_xml(tmp_path: Path) -> None:
    path = tmp_path / "t.xml"
    path.write_text(TRAIN, encoding="utf-8")
    first, second, third, fourth = of("liveqa", path)
    assert (first.id, first.fields["answer"]) == ("liveqa-Q1-1", "Tea.")
    assert second == Drop("liveqa-2.0", "no_answer")
    assert third.what == "<NLM-QUESTION> has neither qid nor questionid"
    assert fourth.what == "<NLM-QUESTION> has no <MESSAGE>"


def test_liveqa_rows(write_rows: Callable[..., Path]) -> None:
    row: dict[str, Any] = {
        "id": "liveqa-TQ9",
        "subject": "tea",
        "message": "Is Tea good?",
        "summary": "Tea?",
    }
    row |= {"paraphrase": "Tea?", "references": [{"answer": "Yes.", "url": "x"}]}
    item, fault = of("liveqa", write_rows("f.jsonl", [row, row | {"references": [1]}]))
    assert item.fields["question"] == "Is Tea good?"
    assert fault.what == "references[0]: an object is expected, not a number"


def test_medicationqa_sheet(tmp_path: Path) -> None:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    head = ["Question", "Focus (Drug)", "Question Type", "Answer", "Section Title", "URL"]
    book.active.append(head)
    book.active.append(["how much teamol", "Teamol", "Dose", "Two.", "Dosage", "http://x.org"])
    book.active.append(["why teamol", "Teamol", "Use", None, None, None])
    path = tmp_path / "m.xlsx"
    book.save(path)
    item, drop = of("medicationqa", path)
    assert item.fields == {"question": "how much teamol", "answer": "Two."}
    assert item.id.startswith("m-2-")
    assert drop.reason == "no_answer"


def test_medicationqa_rows(write_rows: Callable[..., Path]) -> None:
    rows = [{"id": "m1", "question": "q", "answer": "a", "url": "u"}, {"answer": "a"}]
    item, fault = of("medicationqa", write_rows("f.jsonl", rows))
    assert item.id == "m1"
    assert fault.what.startswith("field 'question' is missing")


CMEDQA = {
    "question.csv": "question_id,content\n1,嗓子疼怎么办\n2,咳嗽\n",
    "answer.csv": "ans_id,question_id,content\n10,1,喝温水\n11,2,休息\n12,3,无\n13,1,\n",
    "train_candidates.txt": "question_id,pos_ans_id,neg_ans_id\n1,10,11\n1,13,11\n3,12,10\n",
}


@pytest.mark.parametrize("zipped", [False, True])
def test_cmedqa2_joins_questions_and_answers(tmp_path: Path, zipped: bool) -> None:
    for name, text in CMEDQA.items():
        if zipped:
            with zipfile.ZipFile(tmp_path / f"{name.split('.')[0]}.zip", "w") as archive:
                archive.writestr(name, text)
        else:
            (tmp_path / name).write_text(text, encoding="utf-8")
    path = tmp_path / ("answer.zip" if zipped else "answer.csv")
    first, second, third, fourth = of("cmedqa2", path, parts=2)
    assert first.id == "cmedqa2-10"
    assert first.fields == {"question": "嗓子疼怎么办", "answer": "喝温水"}
    assert (first.lang, first.ids) == ("zh", {"qid": "1"})
    assert second == Drop("cmedqa2-11", "not_in_train_split")
    assert third.what == "question_id '3' is not in the question file"
    assert fourth == Drop("cmedqa2-13", "no_answer")


def test_cmedqa2_needs_its_other_files(tmp_path: Path) -> None:
    path = tmp_path / "answer.csv"
    path.write_text(CMEDQA["answer.csv"], encoding="utf-8")
    with pytest.raises(UserError, match=r"train_candidates\.txt: no such file"):
        of("cmedqa2", path)
    with pytest.raises(UserError, match=r"file of answers; allowed: answer\.csv, answer\.zip"):
        of("cmedqa2", tmp_path / "question.csv")


def test_huatuo_in_every_published_shape(write_rows: Callable[..., Path]) -> None:
    rows = [
        {"questions": "嗓子疼？", "answers": "喝温水。"},
        {"questions": ["嗓子疼？"], "answers": ["喝温水。"]},
        {"questions": [["嗓子疼？", "喉咙痛？"]], "answers": ["喝温水。"]},
        {"id": 5, "question": "嗓子疼？", "answer": "喝温水。", "label": "x", "score": 5},
        {"questions": ["嗓子疼？"], "answers": ["https://example.org/1.htm"]},
        {"questions": [], "answers": ["喝温水。"]},
        {"questions": [3], "answers": ["喝温水。"]},
    ]
    items = of("huatuo", write_rows("f.jsonl", rows))
    assert items[2].what == "other_wordings_left_out"
    for at in (0, 1, 3, 4):
        assert items[at].fields == {"question": "嗓子疼？", "answer": "喝温水。"}
    assert [items[5].reason, items[6].reason] == ["answer_is_a_link", "no_question"]
    assert isinstance(items[7], Fault)
    assert items[7].what == "field 'questions': text is expected, not a number"
