"""Any training file in, every benchmark item in it out."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.data.audit import Audit, audit
from medexpert.records import Document, Example, UserError, to_json

QUESTION = "Why do the gulls of this harbour refuse bread that was baked on a Tuesday?"
ANSWER = "The mill sharpens its stones on Mondays, hence coarse flour one day later."
OPTIONS = ["They are full", "Tuesday's flour is coarse", "They cannot see it"]
CLEAN = "A heron stood on the quay and watched the tide turn twice before it left for the north."
BENCH = [
    {"id": "gull-0001", "question": QUESTION, "choices": OPTIONS, "answer": 1,
     "explanation": ANSWER, "pmid": "98000001"},
    {"id": "gull-0002", "question": "Colour of foam?", "qid": "foam-colour",
     "choices": ["white as chalk", "grey as slate"], "answer": 0},
]  # fmt: skip


@pytest.fixture
def check(write_rows: Callable[..., Path]) -> Callable[..., Audit]:
    """check(file, ...): an audit against the invented benchmark."""
    bench = write_rows("bench.jsonl", BENCH)

    def run(*files: Path, said: list[str] | None = None) -> Audit:
        say = (said if said is not None else []).append
        return audit([str(file) for file in files], [f"file:{bench}"], "", say=say)

    return run


def told(result: Audit) -> list[tuple[int, str, str, str]]:
    return [(one.line, one.record, one.hit.item, one.hit.kind) for one in result.hits]


def rows(*texts: str) -> list[dict[str, Any]]:
    return [{"id": f"r{n}", "text": text} for n, text in enumerate(texts)]


def test_jsonl_of_any_schema(check: Callable[..., Audit], write_rows: Callable[..., Path]) -> None:
    file = write_rows(
        "train.jsonl",
        [
            {"id": "r0", "text": CLEAN},
            {"conversations": [{"from": "human", "value": QUESTION}, {"value": "?"}]},
            {"q": {"deep": [{"down": f"He said: {ANSWER}"}]}},
            {"pubid": 98000001, "text": CLEAN},
            {"meta": {"pmid": "PMID 98000001"}, "text": CLEAN},
            {"question": "colour of FOAM",
             "choices": {"text": ["grey as slate", "white as chalk"]}},
            {"question": "Colour of foam?", "opa": "white as chalk", "opb": "grey as slate"},
            {"qtext": "Colour of foam?", "answers": [{"aid": 1, "atext": "White as chalk."},
                                                     {"aid": 2, "atext": "Grey as slate."}]},
            {"question": "Colour of foam?", "options": "(A) white as chalk.\n(B) grey as slate."},
            {"question": "Colour of foam?", "options": {"A": "black as coal", "B": "grey"}},
            {"question_id": "foam-colour"},
        ],
    )  # fmt: skip
    result = check(file)
    assert told(result) == [
        (2, "2", "gull-0001", "substring"), (3, "3", "gull-0001", "substring"),
        (4, "98000001", "gull-0001", "id"), (5, "5", "gull-0001", "id"),
        (6, "6", "gull-0002", "exact"), (7, "7", "gull-0002", "exact"),
        (8, "8", "gull-0002", "exact"), (9, "9", "gull-0002", "exact"),
        (11, "11", "gull-0002", "id"),
    ]  # fmt: skip
    assert result.exit_code == 1


def test_json_report(check: Callable[..., Audit], write_rows: Callable[..., Path]) -> None:
    file = write_rows("train.jsonl.gz", rows(CLEAN, ANSWER))
    value = json.loads(check(file).as_json())
    assert value["hits"] == [
        {"file": str(file), "line": 2, "record": "r1", "benchmark": value["hits"][0]["benchmark"],
         "item": "gull-0001", "kind": "substring", "score": 1.0, "role": "answer"}
    ]  # fmt: skip
    summary = value["summary"][0]
    assert (summary["records"], summary["items"], summary["kinds"]) == (1, 1, {"substring": 1})
    assert summary["examples"] == value["hits"]
    assert value["files"][0] | {"file": ""} == {
        "file": "", "rows": 2, "bad_rows": 0, "hits": 1, "first_bad_rows": [],
    }  # fmt: skip


def test_text_report_names_places_and_quotes_nothing(
    check: Callable[..., Audit], write_rows: Callable[..., Path]
) -> None:
    said: list[str] = []
    result = check(write_rows("t.jsonl", rows(CLEAN, QUESTION)), said=said)
    text = result.as_text()
    assert "line 2 (record r1): item gull-0001, substring of the question" in text
    assert "2 items" in text
    assert "gulls" not in text + result.as_json() + "".join(said)
    assert any("2 rows, 0 bad, 1 hits" in line for line in said)


def test_clean_file(check: Callable[..., Audit], write_rows: Callable[..., Path]) -> None:
    result = check(write_rows("train.jsonl", rows(CLEAN)))
    assert result.exit_code == 0
    assert "no hits" in result.as_text()


def test_own_records(check: Callable[..., Audit], tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    example = Example("e", "s", "qa", "chat.qa", {"question": "Why?", "answer": ANSWER})
    documents = [Document("d", CLEAN, "s", ids={"pmid": "98000001"}),
                 Document("t", CLEAN, "s", title=QUESTION)]  # fmt: skip
    file.write_text("\n".join(map(to_json, [*documents, example])))
    assert told(check(file)) == [
        (1, "d", "gull-0001", "id"), (2, "t", "gull-0001", "substring"),
        (3, "e", "gull-0001", "substring"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.json", json.dumps(rows(CLEAN, ANSWER), indent=1)),
        ("a.json", json.dumps([CLEAN, ANSWER])),
        ("b.json", json.dumps({"version": 1, "data": rows(CLEAN, ANSWER)})),
        ("c.json", json.dumps({"r0": {"text": [CLEAN]}, "r1": {"text": [ANSWER]}}, indent=2)),
        ("d.json", "\n".join(map(json.dumps, rows(CLEAN, ANSWER)))),
        ("d.ndjson", "\n".join(map(json.dumps, rows(CLEAN, ANSWER)))),
        ("e.json", json.dumps({"exams": {"x": {"name": "x", "data": rows(CLEAN, ANSWER)}}})),
        ("f.csv", f'name,text\nr0,"{CLEAN}"\nr1,"{ANSWER}"\n'),
        ("g.tsv", f"name\ttext\nr0\t{CLEAN}\nr1\t{ANSWER}\n"),
        ("h.txt", f"{CLEAN}\n{ANSWER}\n"),
        ("i.md", f"# Gulls\n\n* {ANSWER}\n"),
    ],
)
@pytest.mark.parametrize("pack", ["", ".gz", ".bz2", ".xz"])
def test_formats(
    check: Callable[..., Audit], tmp_path: Path, name: str, raw: str, pack: str
) -> None:
    packers = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    file = tmp_path / (name + pack)
    file.write_bytes(packers[pack](raw.encode()))
    result = check(file)
    assert [one.hit.item for one in result.hits] == ["gull-0001"]


def test_labels_by_pmid(check: Callable[..., Audit], tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"98000001": "yes", "98000002": "no"}))
    assert told(check(tmp_path / "labels.json")) == [(1, "98000001", "gull-0001", "id")]


def test_parquet(check: Callable[..., Audit], tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = arrow.table(
        {"id": ["r0", "r1"], "messages": [[{"content": CLEAN}], [{"content": ANSWER}]]}
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    assert [one.record for one in check(tmp_path / "t.parquet").hits] == ["r1"]


def test_a_long_text_file_is_read_in_blocks(check: Callable[..., Audit], tmp_path: Path) -> None:
    lines = [f"{CLEAN} {n}" for n in range(1500)]
    for at in (3, 170, 171, 172, 900, 1499):
        lines[at] = ANSWER
    (tmp_path / "book.txt").write_text("\n".join(lines))
    found = [one.line for one in check(tmp_path / "book.txt").hits]
    assert found == sorted(set(found))
    # Blocks are the records: one hit for lines 4 to 173, and none twice in an overlap.
    assert len(found) == 3


def test_bad_rows_are_counted(check: Callable[..., Audit], tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in rows(*[CLEAN] * 60)]
    lines[10] = "{not json"
    lines[20] = "[1]"
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    result = check(tmp_path / "t.jsonl")
    assert (result.files[0].rows, result.files[0].bad) == (60, 2)
    assert "t.jsonl:11: " in result.as_text()


@pytest.mark.parametrize(("count", "told_of"), [(60, "60"), (5000, "201")])
def test_too_many_bad_rows(
    check: Callable[..., Audit], tmp_path: Path, count: int, told_of: str
) -> None:
    lines = [json.dumps(row) if n % 10 else "no" for n, row in enumerate(rows(*[CLEAN] * count))]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    with pytest.raises(
        UserError, match=rf"of the first {told_of} rows are bad, over 5%.*jsonl:1: "
    ):
        check(tmp_path / "t.jsonl")


@pytest.mark.parametrize(
    ("files", "against", "match"),
    [
        ([], ["pubmedqa"], "no file to audit"),
        (["x.jsonl"], [], "no benchmark to audit against"),
        (["x.jsonl"], ["pubmdqa"], "unknown benchmark 'pubmdqa'"),
        (["x.jsonl"], ["pubmedqa"], "x.jsonl: no such file"),
        (["x.pdf"], ["pubmedqa"], "rows are not read from .pdf files; allowed: jsonl, json"),
    ],
)
def test_faults(files: list[str], against: list[str], match: str) -> None:
    with pytest.raises(UserError, match=match):
        audit(files, against, "", say=lambda line: None)


def test_widespread_phrases_are_named(
    check: Callable[..., Audit], write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    long = " ".join(f"word{n} and thing{n} of the other sort" for n in range(60))
    bench = write_rows("long.jsonl", [{"id": "long-item", "question": long}])
    phrase = " ".join(long.split()[70:85])
    file = write_rows("t.jsonl", rows(*[f"{CLEAN} {phrase} {n}" for n in range(9)]))
    result = audit([str(file)], [f"file:{bench}"], "", say=lambda line: None)
    row = result.tally.rows()[0]
    assert (row["widespread"], row["phrases"]) == (["long-item"], 9)
    assert "probably phrases of this file's own" in result.as_text()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
keys = st.sampled_from(["id", "question", "options", "answers", "choices", "pmid", "fields", "ids"])


@given(st.lists(st.dictionaries(keys | st.text(max_size=5), json_values), min_size=1, max_size=5))
@settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
def test_any_row(
    check: Callable[..., Audit], tmp_path: Path, made: list[Mapping[str, Any]]
) -> None:
    file = tmp_path / "any.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in made))
    result = check(file)
    assert result.files[0].rows == len(made)


def test_csv_options(check: Callable[..., Audit], tmp_path: Path) -> None:
    with (tmp_path / "t.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows(
            [["Question", "A", "B"], ["Colour of foam?", "Grey as slate", "White as chalk"]]
        )
    assert [one.hit.kind for one in check(tmp_path / "t.csv").hits] == ["exact"]


def test_csv_without_a_header(check: Callable[..., Audit], tmp_path: Path) -> None:
    """MMLU's files name no columns: their first line is an item like the others."""
    with (tmp_path / "t.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerows([[QUESTION, *OPTIONS, "B"], [CLEAN, "x", "y", "z", "A"]])
    result = check(tmp_path / "t.csv")
    assert [(one.line, one.hit.item) for one in result.hits] == [(1, "gull-0001")]
    assert result.files[0].rows == 2


def test_a_csv_of_one_line(check: Callable[..., Audit], tmp_path: Path) -> None:
    for number, cells in enumerate(
        [["r0", ANSWER], [QUESTION, *OPTIONS, "B"], ["Colour of foam?", "white as chalk"]]
    ):
        with (tmp_path / f"{number}.csv").open("w", newline="") as handle:
            csv.writer(handle).writerow(cells)
        assert check(tmp_path / f"{number}.csv").files[0].rows == 1
    assert [len(check(tmp_path / f"{number}.csv").hits) for number in (0, 1)] == [1, 1]


def test_a_headerless_table_matches_short_questions(
    check: Callable[..., Audit], tmp_path: Path
) -> None:
    cells = ["Colour of foam?", "white as chalk", "grey as slate", "", "", "A"]
    with (tmp_path / "t.csv").open("w", newline="") as handle:
        csv.writer(handle).writerows(
            [[*cells[:3], "x", "y", "A"], [CLEAN, "1", "1", "2", "3", "D"]]
        )
    assert check(tmp_path / "t.csv").files[0].rows == 2


def test_a_short_question_as_a_turn(write_rows: Callable[..., Path]) -> None:
    bench = write_rows("b.jsonl", [{"id": "geese", "question": "Does tallow soothe geese?"}])
    turns = [{"from": "human", "value": "does tallow soothe geese"}, {"from": "gpt", "value": "No"}]
    file = write_rows("t.jsonl", [{"conversations": turns}, {"conversations": turns[1:]}])
    result = audit([str(file)], [f"file:{bench}"], "", say=lambda line: None)
    assert told(result) == [(1, "1", "geese", "exact")]
