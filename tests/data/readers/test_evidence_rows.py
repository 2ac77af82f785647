from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.readers.evidence_rows import (
    LABELS,
    EvidenceRow,
    evidence_rows,
    evidence_tables,
    rows_of,
)
from medexpert.data.readers.rows import Change, Drop, Fault, Part
from medexpert.records import UserError


def vote(label: str, valid: str = "True", evidence: str = "shorter (p = 0.01)") -> dict[str, Any]:
    row = {"user": "0", "label": label, "label_code": 0, "valid_label": valid}
    return row | {"valid_reasoning": "True", "evidence": evidence}


def prompt(**change: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"id": "ei2-1", "split": "train", "pmcid": "PMC7", "pmid": "5"}
    row |= {"title": "Tea", "year": "2001", "license": "CC-BY", "intervention": "tea"}
    row |= {"comparator": "water", "outcome": "stay", "label": LABELS[1], "agree": True}
    row |= {"abstract": [{"label": "METHODS", "text": " Lot. "}, {"label": "", "text": ""}]}
    return row | {"annotations": [vote(LABELS[1]), vote(LABELS[1])]} | change


def of(path: Path) -> list[Any]:
    return list(evidence_rows([Part(str(path))]))


def test_json_rows(write_rows: Callable[..., Path]) -> None:
    (row,) = of(write_rows("e.jsonl.gz", [prompt()]))
    assert isinstance(row, EvidenceRow)
    assert (row.label, row.agree, row.licence) == (LABELS[1], True, "CC-BY")
    assert row.abstract == (("METHODS", "Lot."),)
    assert row.evidence == ("shorter (p = 0.01)",)
    assert row.ids == {"pmid": "5", "pmcid": "PMC7"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": None}, "no_valid_label"),
        ({"outcome": " "}, "no_outcome"),
        ({"label": LABELS[2]}, "label_against_valid_annotations"),
        ({"annotations": [vote(LABELS[1], "False")]}, "no_valid_label"),
        ({"annotations": [vote(LABELS[1]), vote(LABELS[2])]}, "annotators_split_evenly"),
    ],
)
def test_drops(write_rows: Callable[..., Path], change: Any, reason: str) -> None:
    assert of(write_rows("e.jsonl", [prompt(**change)])) == [Drop("ei2-1", reason)]


def test_an_invalid_annotation_does_not_count(write_rows: Callable[..., Path]) -> None:
    votes = [vote(LABELS[0], "False", "longer"), vote(LABELS[0], "False"), vote(LABELS[1])]
    (row,) = of(write_rows("e.jsonl", [prompt(annotations=votes)]))
    assert (row.label, row.evidence) == (LABELS[1], ("shorter (p = 0.01)",))


def test_label_in_another_spelling(write_rows: Callable[..., Path]) -> None:
    change, row = of(write_rows("e.jsonl", [prompt(label="Significantly Decrease")]))
    assert change == Change("ei2-1", "label_normalised")
    assert row.label == LABELS[1]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"label": "better"}, "unknown label 'better'; allowed: significantly increased"),
        ({"agree": 1}, "field 'agree': true or false is expected"),
        ({"abstract": "x"}, "field 'abstract': a list is expected, not a string"),
        ({"annotations": [vote(LABELS[0], "perhaps")]}, "field 'valid_label': 'perhaps'; allowed"),
        ({"id": ""}, "field 'id' is empty"),
    ],
)
def test_faults(write_rows: Callable[..., Path], change: Any, what: str) -> None:
    fault, row = of(write_rows("e.jsonl", [prompt(**change), prompt(id="ei2-2")]))
    assert isinstance(fault, Fault)
    assert fault.where.endswith("e.jsonl:1")
    assert fault.what.startswith(what)
    assert row.id == "ei2-2"


HEAD = (
    "UserID,PromptID,PMCID,Valid Label,Valid Reasoning,Label,Annotations,Label Code,In Abstract\n"
)
ANNOTATIONS = HEAD + (
    "0,1,7,True,True,significantly decreased,shorter,-1,True\n"
    "1,1,7,True,True,significantly decrease,shorter,-1,True\n"
    "2,1,7,False,True,significantly increased,longer,1,True\n"
    "0,2,7,True,True,significantly decreased,shorter,-1,True\n"
    "1,2,7,True,True,no significant difference,same,0,True\n"
    "0,3,7,False,False,no significant difference,same,0,True\n"
    "0,5,7,True,True,much better,same,0,True\n"
)
PROMPTS = (
    "PromptID,PMCID,Outcome,Intervention,Comparator\n"
    "1,7,stay,tea,water\n2,7,pain,tea,water\n3,7,sleep,tea,water\n4,7,mood,tea,water\n"
    "1,7,stay,tea,water\n"
)
STRUCTURED = (
    "TITLE: Tea and stay\n\n  ABSTRACT.METHODS:\nBy lot.\nTwo wards.\n\nABSTRACT.RESULTS:\nShorter."
    "\n\nBODY.INTRODUCTION:\nLong ago.\n"
)
PLAIN = "TITLE: \nTea and stay\n\n\nBy lot.\nShorter.\nBODY.INTRODUCTION:\nLong ago.\n"


def tables(tmp_path: Path, article: str) -> list[Any]:
    (tmp_path / "a.csv").write_text(ANNOTATIONS, encoding="utf-8")
    (tmp_path / "p.csv").write_text(PROMPTS, encoding="utf-8")
    (tmp_path / "txt_files").mkdir(exist_ok=True)
    (tmp_path / "txt_files" / "PMC7.txt").write_text(article, encoding="utf-8")
    names = ("a.csv", "p.csv", "txt_files")
    return list(evidence_tables(*(str(tmp_path / name) for name in names)))


def test_published_tables(tmp_path: Path) -> None:
    fault, row, second, third, fourth, twice = tables(tmp_path, STRUCTURED)
    assert fault.where.endswith("a.csv:8")
    assert fault.what.startswith("unknown label 'much better'")
    assert (row.id, row.pmcid, row.label, row.agree) == ("ei2-1", "PMC7", LABELS[1], True)
    assert row.abstract == (("METHODS", "By lot. Two wards."), ("RESULTS", "Shorter."))
    assert (row.title, row.outcome, row.evidence) == ("Tea and stay", "stay", ("shorter",))
    assert second == Drop("ei2-2", "annotators_split_evenly")
    assert third == Drop("ei2-3", "no_valid_label")
    assert fourth == Drop("ei2-4", "not_annotated")
    assert "id '1' occurs twice" in twice.what


def test_splits_by_article(tmp_path: Path) -> None:
    tables(tmp_path, PLAIN)
    for split, text in (("train", "6\n"), ("validation", "7\n"), ("test", "PMC8\n")):
        (tmp_path / f"{split}_article_ids.txt").write_text(text, encoding="utf-8")
    votes, prompts = str(tmp_path / "a.csv"), str(tmp_path / "p.csv")
    found = list(evidence_tables(votes, prompts, splits=str(tmp_path)))
    (row,) = (item for item in found if isinstance(item, EvidenceRow))
    assert (row.split, row.abstract) == ("validation", ())
    (tmp_path / "test_article_ids.txt").write_text("8\nx\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"test_article_ids\.txt:2: 'X' is no number of an article"):
        list(evidence_tables(votes, prompts, splits=str(tmp_path)))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The published tables under their own names: 1, 6, 7 in one split each, 8 in none."""
    head = PROMPTS.splitlines()[0]
    (tmp_path / "annotations_merged.csv").write_text(
        HEAD
        + "".join(f"0,{n},{n},True,True,significantly decreased,x,-1,True\n" for n in (1, 6, 7, 8))
    )
    (tmp_path / "prompts_merged.csv").write_text(
        f"{head}\n" + "".join(f"{n},{n},stay,tea,water\n" for n in (1, 6, 7, 8))
    )
    for folder in ("txt_files", "splits"):
        (tmp_path / folder).mkdir()
    for number in (1, 6, 7, 8):
        (tmp_path / "txt_files" / f"PMC{number}.txt").write_text(STRUCTURED, encoding="utf-8")
    for split, article in (("train", 1), ("validation", 6), ("test", 7)):
        (tmp_path / "splits" / f"{split}_article_ids.txt").write_text(f"{article}\n")
    return tmp_path


def around(folder: Path, *slices: tuple[int, int]) -> list[Any]:
    names = ("annotations_merged.csv", "prompts_merged.csv")
    parts = [Part(str(folder / n), *part) for part in slices or [(0, 1)] for n in names]
    return list(rows_of("evidence_tables", parts))


def test_rows_of_the_tables_without_the_test_split(project: Path) -> None:
    first, second, third, fourth = around(project)
    assert (first.id, first.split, second.id, second.split) == (
        "ei2-1",
        "train",
        "ei2-6",
        "validation",
    )
    assert first.abstract[1] == ("RESULTS", "Shorter.")
    assert third == Drop("ei2-7", "other_split")
    assert fourth == Drop("ei2-8", "no_split")
    assert around(project, (0, 2), (1, 2)) == [first, second, third, fourth]


def test_rows_of_json_lines(write_rows: Callable[..., Path]) -> None:
    splits = ("train", "validation", "test", "")
    rows = [prompt(id=f"ei2-{n}", split=split) for n, split in enumerate(splits)]
    part = Part(str(write_rows("e.jsonl", rows)))
    found: list[Any] = list(rows_of("evidence_inference", [part]))
    assert [item.id for item in found if isinstance(item, EvidenceRow)] == [
        "ei2-0",
        "ei2-1",
        "ei2-3",
    ]
    assert found[2] == Drop("ei2-2", "other_split")
    with pytest.raises(UserError, match="unknown Evidence Inference reader 'evidence_table'"):
        list(rows_of("evidence_table", [part]))


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        ("prompts_merged.csv", r"annotations_merged\.csv: no prompts_merged\.csv beside it"),
        (
            "annotations_merged.csv",
            r"annotations_merged\.csv: .*no such file|no annotations_merged",
        ),
        ("txt_files", r"txt_files: the articles are missing; allowed: the project's folder"),
        ("splits", r"test_article_ids\.txt is missing: which articles are the test split"),
    ],
)
def test_what_is_missing_around_the_tables(project: Path, gone: str, told: str) -> None:
    (project / gone).rename(project / "elsewhere")
    with pytest.raises(UserError, match=told):
        around(project)


def test_prompts_alone_are_told(tmp_path: Path) -> None:
    (tmp_path / "prompts_merged.csv").write_text(PROMPTS)
    with pytest.raises(UserError, match=r"prompts_merged\.csv: no annotations_merged\.csv beside"):
        list(rows_of("evidence_tables", [Part(str(tmp_path / "prompts_merged.csv"))]))


def test_article_without_headings(tmp_path: Path) -> None:
    row = tables(tmp_path, PLAIN)[1]
    assert (row.title, row.abstract) == ("Tea and stay", (("", "By lot. Shorter."),))


def test_missing_article(tmp_path: Path) -> None:
    tables(tmp_path, PLAIN)
    (tmp_path / "txt_files" / "PMC7.txt").unlink()
    found: list[Any] = list(
        evidence_tables(
            str(tmp_path / "a.csv"), str(tmp_path / "p.csv"), str(tmp_path / "txt_files")
        )
    )
    assert found[1].what.endswith("PMC7.txt: no such file")
    with pytest.raises(UserError, match=r"none\.csv: no such file"):
        list(evidence_tables(str(tmp_path / "none.csv"), str(tmp_path / "p.csv")))


def test_published_rows_read_whole(real_data: Path) -> None:
    paths = sorted((real_data / "stage3").glob("evidence_inference_v2_*.jsonl.gz"))
    found = list(evidence_rows(Part(str(path)) for path in paths))
    assert not [item for item in found if isinstance(item, Fault)]
    reasons = [item.reason for item in found if isinstance(item, Drop)]
    assert sum(isinstance(item, EvidenceRow) for item in found) == 2035
    assert reasons.count("no_valid_label") == 32
    assert reasons.count("annotators_split_evenly") == 14
    assert reasons.count("label_against_valid_annotations") == 106
