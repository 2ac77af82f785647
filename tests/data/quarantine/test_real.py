"""On the published files, where they are present; nothing of them is quoted here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from medexpert.data import quarantine
from medexpert.data.opened import rows
from medexpert.data.quarantine import Quarantine
from medexpert.data.quarantine.files import probe_of
from medexpert.data.readers.rows import Fault
from medexpert.records import Document


def test_every_pubmedqa_item_by_each_of_its_texts(real_data: Path, tmp_path: Path) -> None:
    facts = quarantine.prepare(["pubmedqa"], str(real_data), str(tmp_path / "i.npz"))
    assert facts["pubmedqa"]["items"] == 1000
    opened = Quarantine.open(str(tmp_path / "i.npz"))
    rows = json.loads((real_data / "stage3" / "pubmedqa" / "ori_pqal.json").read_text())
    missed: Counter[str] = Counter()
    for pmid, row in rows.items():
        texts = {
            "question": row["QUESTION"],
            "context": "\n".join(row["CONTEXTS"]),
            "answer": row["LONG_ANSWER"],
            "two sentences": ". ".join(" ".join(row["CONTEXTS"]).split(". ")[1:3]),
        }
        for role, text in texts.items():
            found = {hit.item for hit in opened.hits(Document("x", f"So: {text}", "s"))}
            missed[role] += pmid not in found
        assert opened.hit(Document("x", "y", "s", ids={"pmid": pmid})) is not None
        title = opened.hit(Document("x", "y", "s", title=row["QUESTION"]))
        missed["title"] += title is None or title.item != pmid
    # 64 questions have less than eight words: inside a text nothing tells them from any other.
    assert missed["context"] == missed["answer"] == 0
    assert missed["question"] <= 65
    assert missed["title"] <= 8
    assert missed["two sentences"] <= 25


@pytest.fixture(scope="module")
def exam(real_data: Path) -> dict[str, set[str]]:
    """Training record -> number of the MedQA test question (from 0) that it holds."""
    index, _ = quarantine.index_of(["medqa-us"], str(real_data))
    opened = Quarantine(index)
    number = {name: str(at) for at, (_, name) in enumerate(index.items)}
    found: dict[str, set[str]] = {}
    for row in rows(str(real_data / "stage2" / "medqa_us_mcq.jsonl.gz")):
        assert not isinstance(row, Fault)
        for hit in opened.hits_of(probe_of(row[1])):
            found.setdefault(str(row[1]["id"]), set()).add(number[hit.item])
    return found


@pytest.mark.parametrize(
    ("record", "item"),
    [("medqa-us-train-771", "555"), ("medqa-us-train-897", "1185"), ("medqa-us-train-60", "46")],
)
def test_known_near_copies_of_medqa(exam: dict[str, set[str]], record: str, item: str) -> None:
    assert item in exam[record]


def test_exam_boilerplate_is_no_hit(exam: dict[str, set[str]]) -> None:
    """Any run of 13 words would flag some 400 of the 1,273 questions."""
    assert len(set().union(*exam.values())) <= 40
