"""PQA-L in its published shapes, and the official split."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.readers import pubmedqa
from medexpert.records import UserError

REFERENCE = Path(__file__).parents[2] / "reference" / "make_pubmedqa_split.py"
SPLIT = Path(pubmedqa.__file__).with_name("pubmedqa_split.json")
ITEM: dict[str, Any] = {
    "QUESTION": "Does it?", "CONTEXTS": ["It was seen."], "LABELS": ["RESULTS"],
    "final_decision": "maybe", "LONG_ANSWER": "Perhaps it does.",
}  # fmt: skip


def write(folder: Path, text: str, name: str = "ori_pqal.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_split_is_500_and_ten_times_50() -> None:
    split = pubmedqa.official_split()
    assert len(split.test) == 500
    assert [len(fold) for fold in split.folds] == [50] * 10
    assert len(split.everything()) == 1000


def test_split_file_comes_from_the_committed_script(real_data: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_split", REFERENCE)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    made = script.make(real_data / "stage3" / "pubmedqa")
    assert script.render(made) == SPLIT.read_text(encoding="utf-8")


def test_split_agrees_with_published_facts(real_data: Path) -> None:
    folder = real_data / "stage3" / "pubmedqa"
    truth = json.loads((folder / "test_ground_truth.json").read_text(encoding="utf-8"))
    test = pubmedqa.test_questions(real_data)
    assert {q.id: q.answer for q in test} == truth
    assert [q.id for q in test] == list(truth)
    assert not any(q.long_answer for q in test)
    assert Counter(q.answer for q in test) == {"yes": 276, "no": 169, "maybe": 55}
    _, dev = pubmedqa.fold_questions(real_data, 9)
    assert Counter(q.answer for q in dev) == {"yes": 29, "no": 19, "maybe": 2}


def test_folds_need_no_test_item(real_data: Path) -> None:
    file = real_data / "stage3" / "pubmedqa" / "pqal_train_dev.json"
    train, dev = pubmedqa.fold_questions(file, 0)
    assert (len(train), len(dev)) == (450, 50)
    with pytest.raises(UserError, match="500 of the 500 official test items are missing"):
        pubmedqa.test_questions(file)


@pytest.mark.parametrize("fold", range(10))
def test_fold_parts_are_disjoint_from_each_other_and_the_test(pqal: Path, fold: int) -> None:
    train, dev = pubmedqa.fold_questions(pqal, fold)
    ids = [q.id for q in train] + [q.id for q in dev]
    assert (len(train), len(dev), len(set(ids))) == (450, 50, 500)
    assert not set(ids) & set(pubmedqa.official_split().test)
    assert all(q.long_answer for q in train)


def test_unknown_fold(pqal: Path) -> None:
    with pytest.raises(UserError, match="fold 10; allowed: 0 to 9"):
        pubmedqa.fold_questions(pqal, 10)


def test_test_questions_hide_the_long_answer_unless_asked(pqal: Path) -> None:
    assert not any(q.long_answer for q in pubmedqa.test_questions(pqal))
    assert all(q.long_answer for q in pubmedqa.test_questions(pqal, keep_long_answer=True))


def test_found_in_the_usual_places(pqal: Path, tmp_path: Path) -> None:
    folder = pqal / "stage3" / "pubmedqa"
    assert pubmedqa.find_pubmedqa(pqal) == folder
    assert pubmedqa.find_pubmedqa(folder) == folder
    assert pubmedqa.find_pubmedqa(folder / "ori_pqal.json") == folder / "ori_pqal.json"
    with pytest.raises(UserError, match=r"no PubMedQA here; allowed: ori_pqal\.json"):
        pubmedqa.find_pubmedqa(tmp_path)


def test_parquet_of_the_hub_reads_the_same(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {
        "pubid": [12, 7], "question": ["Does it?"] * 2, "long_answer": ["Perhaps it does."] * 2,
        "context": [{"contexts": ["It was seen."], "labels": ["RESULTS"], "meshes": ["A"]}] * 2,
        "final_decision": ["maybe", "no"],
    }  # fmt: skip
    folder = tmp_path / "pqa_labeled"
    folder.mkdir()
    file = folder / "train-00000-of-00001.parquet"
    parquet.write_table(arrow.table(rows), file)
    found = pubmedqa.read_pubmedqa(pubmedqa.find_pubmedqa(tmp_path))
    write(tmp_path, json.dumps({"12": ITEM, "7": ITEM | {"final_decision": "no"}}))
    assert found == pubmedqa.read_pubmedqa(tmp_path)
    assert list(found) == ["12", "7"]

    parquet.write_table(arrow.table(rows | {"pubid": [12, 12]}), file)
    with pytest.raises(UserError, match=r"\[row 1\]: PMID '12' occurs twice"):
        pubmedqa.read_pubmedqa(file)
    parquet.write_table(arrow.table({"pubid": [1]}), file)
    with pytest.raises(UserError, match="column 'question' is missing"):
        pubmedqa.read_pubmedqa(file)
    file.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a readable parquet file"):
        pubmedqa.read_pubmedqa(file)


def test_duplicate_pmid_in_the_json_object(tmp_path: Path) -> None:
    item = json.dumps(ITEM)
    path = write(tmp_path, f'{{"12": {item},\n"13": {item},\n"12": {item}}}')
    with pytest.raises(UserError, match=r'ori_pqal\.json:3: key "12" occurs twice'):
        pubmedqa.read_pubmedqa(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"final_decision": "Yes"}, r"\[12\]: final_decision 'Yes'; allowed: yes, no, maybe"),
        ({"CONTEXTS": []}, r"\[12\]: field 'CONTEXTS' is empty"),
        ({"CONTEXTS": "It"}, r"\[12\]: field 'CONTEXTS': a list is expected, not a string"),
        ({"CONTEXTS": [1]}, r"\[12\]: field 'CONTEXTS': a list of strings is expected"),
        ({"QUESTION": None}, r"\[12\]: field 'QUESTION': a string is expected, not null"),
    ],
)
def test_bad_items_name_their_pmid(tmp_path: Path, change: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        pubmedqa.read_pubmedqa(write(tmp_path, json.dumps({"12": ITEM | change})))


def test_missing_field_names_its_pmid(tmp_path: Path) -> None:
    item = {k: v for k, v in ITEM.items() if k != "LONG_ANSWER"}
    with pytest.raises(UserError, match=r"\[12\]: field 'LONG_ANSWER' is missing"):
        pubmedqa.read_pubmedqa(write(tmp_path, json.dumps({"12": item})))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the file is empty"),
        ("{}", "no item in this file"),
        ("[]", "the file: an object is expected, not a list"),
        ('{"x": {}}', "key 'x' is no PMID"),
        ('{"1": {}', r"ori_pqal\.json:1: not valid JSON"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        pubmedqa.read_pubmedqa(write(tmp_path, text))
