from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Change, Drop, Fault, Item, Part, read
from medexpert.records import Example, UserError

ITEM: dict[str, Any] = {
    "QUESTION": "Does zinc shorten a cold?", "CONTEXTS": ["Forty people.", "Two arms."],
    "LABELS": ["METHODS", "RESULTS"], "MESHES": ["Zinc"], "LONG_ANSWER": "It may.",
    "final_decision": "yes",
}  # fmt: skip


def write(tmp_path: Path, value: Any) -> Part:
    path = tmp_path / "ori_pqaa.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value, indent=4))
    return Part(str(path))


def items(part: Part, name: str = "pubmedqa_a") -> list[Item]:
    return list(read(READERS[name], [part]))


def test_artificial_and_unlabelled_items(tmp_path: Path) -> None:
    (item,) = items(write(tmp_path, {"12": ITEM}))
    assert item == Example(
        id="12", source="", kind="task", template="pubmedqa.lm_eval", ids={"pmid": "12"},
        fields={"question": ITEM["QUESTION"], "contexts": ITEM["CONTEXTS"], "answer": "yes",
                "long_answer": "It may."},
    )  # fmt: skip
    bare = {key: value for key, value in ITEM.items() if key != "final_decision"}
    (item,) = items(write(tmp_path, {"12": bare}), "pubmedqa_u")
    assert isinstance(item, Example)
    assert item.fields["answer"] == ""


def test_labels_in_the_wrong_case_are_lowered_and_counted(tmp_path: Path) -> None:
    change, item = items(write(tmp_path, {"12": ITEM | {"final_decision": "Maybe"}}))
    assert change == Change("12", "label_in_lower_case")
    assert isinstance(item, Example)
    assert item.fields["answer"] == "maybe"


def test_faults_name_the_item(tmp_path: Path) -> None:
    part = write(
        tmp_path,
        {
            "1": ITEM | {"final_decision": "perhaps"}, "2": ITEM | {"CONTEXTS": [1]}, "x": ITEM,
            "3": ITEM | {"QUESTION": " "}, "4": 7, "5": ITEM,
        },
    )  # fmt: skip
    assert items(part)[:-1] == [
        Fault(f"{part.path} [1]", "final_decision 'perhaps'; allowed: yes, no, maybe"),
        Fault(f"{part.path} [2]", "field 'CONTEXTS': a list of strings is expected"),
        Fault(f"{part.path} [x]", "key 'x' is no PMID"),
        Drop("3", "no_question"),
        Fault(f"{part.path} [4]", "a JSON object is expected, not a number"),
    ]
    item = json.dumps(ITEM)
    _, twice = items(write(tmp_path, f'{{"12": {item}, "12": {item}}}'))
    assert isinstance(twice, Fault)
    assert "id '12' occurs twice" in twice.what
    with pytest.raises(UserError, match="an object is expected, not a list"):
        items(write(tmp_path, []))


def test_parquet_of_the_hub_reads_the_same(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = {
        "pubid": [12], "question": [ITEM["QUESTION"]], "long_answer": ["It may."],
        "context": [{"contexts": ITEM["CONTEXTS"], "labels": ITEM["LABELS"], "meshes": ["Zinc"]}],
        "final_decision": ["yes"],
    }  # fmt: skip
    file = tmp_path / "train-00000-of-00001.parquet"
    parquet.write_table(arrow.table(rows), file)
    assert items(Part(str(file))) == items(write(tmp_path, {"12": ITEM}))
    del rows["final_decision"]
    parquet.write_table(arrow.table(rows), file)
    (item,) = items(Part(str(file)), "pubmedqa_u")
    assert isinstance(item, Example)
    (fault,) = items(Part(str(file)))
    assert fault == Fault(
        f"{file} [row 0]", "field 'final_decision': a string is expected, not null"
    )
