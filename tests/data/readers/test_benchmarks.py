from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.readers.benchmarks import BENCHMARK_READERS, BenchmarkItem
from medexpert.records import UserError


def of(name: str, *paths: Path) -> list[BenchmarkItem]:
    return list(BENCHMARK_READERS[name]([str(path) for path in paths]))


def written(tmp_path: Path, name: str, value: Any) -> Path:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_pubmedqa_holds_every_item_and_its_long_answer(pqal: Path) -> None:
    items = of("pubmedqa", pqal / "stage3" / "pubmedqa" / "ori_pqal.json")
    assert len(items) == len({item.id for item in items}) == 1000
    first = items[0]
    assert first.ids == {"pmid": first.id}
    assert first.texts == {
        "question": f"Does treatment {first.id} shorten the stay?",
        "context": f"Patients of ward {first.id} were allotted by lot.\nThe stay was measured.",
        "answer": f"The stay was shorter on ward {first.id}.",
    }


def test_multi_choice_benchmarks(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    row = {"question": "Which?", "options": {"A": "one", "B": "two"}, "answer_idx": "A"}
    (item,) = of("medqa", write_rows("test.jsonl", [row | {"answer": "one"}]))
    assert item.id.startswith("test-1-")
    assert (item.ids, item.texts) == ({}, {"question": "Which?\none\ntwo"})
    hard = {"question": "Which?", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "exp": "so"}
    (item,) = of("medmcqa", write_rows("dev.json", [hard | {"id": "u", "cop": 1}]))
    assert item.texts == {"question": "Which?\na\nb\nc\nd", "answer": "so"}
    assert (item.id, item.ids) == ("u", {"qid": "u"})
    (item,) = of("mmlu", written(tmp_path, "anatomy_test.csv", "Which?,a,b,c,d,D\n"))
    assert item.texts == {"question": "Which?\na\nb\nc\nd"}
    (item,) = of("cmmlu", written(tmp_path, "c.csv", ",Question,A,B,C,D,Answer\n0,何,a,b,c,d,D\n"))
    assert item.texts == {"question": "何\na\nb\nc\nd"}


def test_headqa_keeps_what_needs_a_picture(tmp_path: Path) -> None:
    answers = [{"aid": 1, "atext": "one"}, {"aid": 2, "atext": "two"}]
    item = {"qid": "1", "qtext": "Which?", "ra": "1", "answers": answers, "image": "p.png"}
    (found,) = of("headqa", written(tmp_path, "d.json", {"exams": {"E": {"data": [item]}}}))
    assert (found.id, found.ids) == ("headqa-E-1", {"qid": "headqa-E-1"})
    assert found.texts == {"question": "Which?\none\ntwo"}


def test_apollo(write_rows: Callable[..., Path]) -> None:
    row = {"question": "何者？", "options": "(A) 甲.\n(B) 乙.", "answer": "(AB)", "source": "x"}
    (item,) = of("apollo", write_rows("a.jsonl", [row]))
    assert item.texts == {"question": "何者？\n甲.\n乙."}
    with pytest.raises(UserError, match=r"b\.jsonl:1: field 'answer': '甲'; allowed: \(A\)"):
        of("apollo", write_rows("b.jsonl", [row | {"answer": "甲"}]))


def test_cmexam_and_cmb_as_published(tmp_path: Path) -> None:
    text = 'Question,Options,Answer,Explanation\n何者？,"A 甲\nB 乙",A,因为\n'
    (item,) = of("cmexam", written(tmp_path, "test.csv", text))
    assert item.texts == {"question": "何者？\n甲\n乙", "answer": "因为"}
    row = {"id": 3, "question": "何者？", "option": {"A": "甲", "B": "乙"}}
    (item,) = of("cmb", written(tmp_path, "test.json", [row]))
    assert (item.id, item.texts) == ("3", {"question": "何者？\n甲\n乙"})


def test_open_question_benchmarks(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    live: dict[str, Any] = {
        "id": "liveqa-TQ1",
        "subject": "",
        "message": "Tea?",
        "paraphrase": "Is tea good?",
    }
    page = "https://pubmed.ncbi.nlm.nih.gov/5/"
    live |= {"summary": "Tea?", "references": [{"answer": "Yes.", "url": page}]}
    live["references"].append({"answer": "Yes, very.", "url": ""})
    (item,) = of("liveqa", write_rows("l.jsonl", [live]))
    assert item.ids == {"qid": "liveqa-TQ1"}
    assert item.texts == {
        "question": "Tea?", "question_2": "Is tea good?", "answer": "Yes.",
        "answer_2": "Yes, very.",
    }  # fmt: skip
    row: dict[str, Any] = {"id": "m-1", "question": "dose?", "answer": "Two."}
    (item,) = of("medicationqa", write_rows("m.jsonl", [row]))
    assert item.texts == {"question": "dose?", "answer": "Two."}
    row = {"id": 0, "instruction": "Say.", "gpt-4-answer": "A.", "claude-2": "B."}
    (item,) = of("medinstruct", write_rows("i.jsonl", [row]))
    assert item.id == "medinstruct-0"
    assert item.texts == {"question": "Say.", "answer": "A.", "answer_2": "B."}


def test_bioasq_is_not_named_by_what_it_cites(tmp_path: Path) -> None:
    page = "http://www.ncbi.nlm.nih.gov/pubmed/12"
    row: dict[str, Any] = {"id": "5be", "body": "Is tea warm?", "type": "list", "documents": [page]}
    row |= {"snippets": [{"text": "Warm.", "document": page}], "ideal_answer": ["Yes.", "Yes."]}
    (item,) = of("bioasq", written(tmp_path, "g.json", {"questions": [row]}))
    assert item.ids == {"qid": "5be"}
    assert item.texts == {"question": "Is tea warm?", "context": "Warm.", "answer": "Yes."}


def test_any_file_in_the_general_shape(write_rows: Callable[..., Path]) -> None:
    rows = [
        {"id": "a", "question": "Which?", "choices": ["one", "two"], "answer": 1, "pmid": 12},
        {"question": "Why?", "answer": "So.", "context": ["C.", "D."], "explanation": "E."},
        {"id": "c", "question": "Is it?", "context": "C.", "choices": ["yes"], "answer": "yes"},
    ]
    first, second, third = of("file", write_rows("f.jsonl", rows))
    assert (first.ids, first.texts) == ({"pmid": "12"}, {"question": "Which?\none\ntwo"})
    assert second.id.startswith("f-2-")
    assert second.texts == {
        "question": "Why?", "context": "C.\nD.", "answer": "So.", "answer_2": "E.",
    }  # fmt: skip
    assert third.texts == {"question": "Is it?\nyes", "context": "C."}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"answer": 2}, r"f\.jsonl:1: field 'answer': 2; allowed: 0 to 1"),
        ({"answer": [1]}, "field 'answer': an index of choices is expected, not a list"),
        ({"question": None}, "field 'question': a string is expected, not null"),
        ({"choices": "one"}, "field 'choices': a list is expected, not a string"),
    ],
)
def test_a_bad_row_closes_the_benchmark(
    write_rows: Callable[..., Path], change: Any, what: str
) -> None:
    row = {"id": "a", "question": "Which?", "choices": ["one", "two"], "answer": 1}
    with pytest.raises(UserError, match=what):
        of("file", write_rows("f.jsonl", [row | change]))


def test_an_id_that_occurs_twice(write_rows: Callable[..., Path]) -> None:
    row = {"id": "a", "question": "Which?"}
    with pytest.raises(UserError, match="id 'a' occurs twice"):
        of("file", write_rows("f.jsonl", [row]), write_rows("g.jsonl", [row]))
    path = write_rows("h.jsonl", [])
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"h\.jsonl:1: not valid JSON"):
        of("file", path)


@pytest.mark.parametrize(
    ("name", "pattern", "count"),
    [
        ("pubmedqa", "stage3/pubmedqa/ori_pqal.json", 1000),
        ("medqa", "eval/medqa_us_4_options_test.jsonl", 1273),
        ("medmcqa", "eval/medmcqa_dev_a.jsonl", 2078),
        ("mmlu", "eval/mmlu_medical/*.csv", 817),
        ("mmlu", "eval/mmlu_general/*.csv", 1036),
        ("cmmlu", "eval/cmmlu_medical/*.csv", 823),
        ("headqa", "eval/dev_HEAD_EN.json", 1366),
        ("apollo", "eval/cmexam_test_a.jsonl.gz", 1039),
        ("apollo", "eval/cmb_single_a.jsonl.gz", 977),
        ("apollo", "eval/medqa_mcmle_test_a.jsonl.gz", 1732),
        ("liveqa", "eval/liveqa_med_test.jsonl.gz", 104),
        ("medicationqa", "eval/medicationqa_a.jsonl.gz", 328),
        ("medinstruct", "eval/medinstruct_test.jsonl", 216),
        ("bioasq", "stage3/bioasq/*.json.gz", 1497),
    ],
)
def test_published_benchmarks_read_whole(
    real_data: Path, name: str, pattern: str, count: int
) -> None:
    items = of(name, *sorted(real_data.glob(pattern)))
    assert len(items) == len({item.id for item in items}) == count
    assert all(item.texts.get("question") for item in items)
