from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.data.readers import tables
from medexpert.data.readers.rows import Fault, Part, Row
from medexpert.data.readers.tables import csv_rows, parquet_rows, xlsx_rows
from medexpert.records import UserError


def write(tmp_path: Path, raw: bytes, name: str = "f.csv") -> str:
    path = tmp_path / name
    path.write_bytes(raw)
    return str(path)


# -- csv ---------------------------------------------------------------------------------------


def test_csv_rows_tell_the_line_they_end_on(tmp_path: Path) -> None:
    path = write(tmp_path, b'a,b\r\n1,"two\nlines"\n\n3\n4,5\n')
    assert list(csv_rows()(Part(path))) == [
        (f"{path}:3", {"a": "1", "b": "two\nlines"}),
        Fault(f"{path}:5", "1 cells, but 2 columns"),
        (f"{path}:6", {"a": "4", "b": "5"}),
    ]
    found = list(csv_rows(header=("x", "y"), delimiter="\t")(Part(write(tmp_path, b"1\t2\n"))))
    assert found == [(f"{path}:1", {"x": "1", "y": "2"})]


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 3200), parts=st.integers(1, 4))
def test_csv_parts(tmp_path: Path, count: int, parts: int) -> None:
    path = write(tmp_path, b"a,b\n" + b"".join(b'%d,"x\ny"\n' % i for i in range(count)))
    found = [
        int(row["a"])
        for index in range(parts)
        for _, row in cast(list[Row], list(csv_rows()(Part(path, index, parts))))
    ]
    assert sorted(found) == list(range(count))


def test_csv_encodings(tmp_path: Path) -> None:
    text = "问,答\n头痛,休息\n"
    for raw in (text.encode(), b"\xef\xbb\xbf" + text.encode(), text.encode("gb18030")):
        ((_, row),) = csv_rows()(Part(write(tmp_path, raw)))  # type: ignore[misc]
        assert row == {"问": "头痛", "答": "休息"}
    path = write(tmp_path, b"a,b\n\xff\xff,1\nc,d\n")
    assert list(csv_rows(encodings=("utf-8",))(Part(path))) == [
        Fault(f"{path}:2", "bytes that are not in the file's encoding"),
        (f"{path}:3", {"a": "c", "b": "d"}),
    ]


def test_csv_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for raw, match in [
        (b"", "the file is empty"),
        (b"PK\x03\x04", "this is no csv file"),
        (b"a,a\n", "column 'a' occurs twice"),
        (b"a,c\n", "column 'b' is missing; allowed: a, c"),
    ]:
        with pytest.raises(UserError, match=match):
            list(csv_rows(required=("b",) if b"c" in raw else ())(Part(write(tmp_path, raw))))


def test_a_long_line_or_cell_of_csv_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_CELL", 1 << 18)
    raw = b"a,b\n1,2\n" + b"x" * (3 << 18) + b'\n3,4\n"' + b"y\n" * (1 << 18) + b'",5\n6,7'
    path = write(tmp_path, raw)
    first, long, second, *faults = csv_rows()(Part(path))
    assert first == (f"{path}:2", {"a": "1", "b": "2"})
    assert long == Fault(f"{path}:3", "the line is longer than 0 MiB")
    assert second == (f"{path}:4", {"a": "3", "b": "4"})
    assert all(isinstance(fault, Fault) for fault in faults)
    assert "not valid csv (field larger than field limit" in str(faults[0])


# -- parquet -----------------------------------------------------------------------------------


def parquet_file(tmp_path: Path, columns: dict[str, list[Any]], **options: Any) -> str:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "f.parquet"
    parquet.write_table(arrow.table(columns), path, **options)
    return str(path)


def test_parquet_rows(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, {"a": [1, None], "b": ["x", "y"], "c": [{"d": [1]}, None]})
    assert list(parquet_rows(("c", "a"), ("z",))(Part(path))) == [
        (f"{path} [row 0]", {"c": {"d": [1]}, "a": 1}),
        (f"{path} [row 1]", {"c": None, "a": None}),
    ]
    ((_, row), _) = parquet_rows()(Part(path))  # type: ignore[misc]
    assert sorted(row) == ["a", "b", "c"]
    with pytest.raises(UserError, match="column 'z' is missing; allowed: a, b, c"):
        list(parquet_rows(("z",))(Part(path)))


def test_a_text_of_parquet_that_is_not_utf8_is_a_fault(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    raw = arrow.array([b"good", b"\xff", b"fine"], arrow.binary()).view(arrow.string())
    path = parquet_file(tmp_path, {"a": raw})
    assert list(parquet_rows(("a",))(Part(path))) == [
        (f"{path} [row 0]", {"a": "good"}),
        Fault(f"{path} [row 1]", "a text is not UTF-8"),
        (f"{path} [row 2]", {"a": "fine"}),
    ]


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 4200), parts=st.integers(1, 4), group=st.sampled_from([7, 900, 5000]))
def test_parquet_parts(tmp_path: Path, count: int, parts: int, group: int) -> None:
    path = parquet_file(tmp_path, {"a": list(range(count))}, row_group_size=max(group, count // 40))
    found = [
        row["a"]
        for index in range(parts)
        for _, row in cast(list[Row], list(parquet_rows(("a",))(Part(path, index, parts))))
    ]
    assert sorted(found) == list(range(count))


def test_damaged_parquet(tmp_path: Path) -> None:
    path = Path(parquet_file(tmp_path, {"a": [str(i) * 20 for i in range(3000)]}))
    whole = path.read_bytes()
    for raw in (b"PAR1 no", whole[: len(whole) // 2], b"", whole[4:]):
        path.write_bytes(raw)
        with pytest.raises(UserError, match=r"f\.parquet: not a readable parquet file"):
            list(parquet_rows(("a",))(Part(str(path))))


def test_a_row_group_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_ROW_GROUP", 10)
    path = parquet_file(tmp_path, {"a": [str(i) for i in range(3000)]})
    with pytest.raises(UserError, match="row group 0 is larger than"):
        list(parquet_rows(("a",))(Part(path)))


# -- xlsx --------------------------------------------------------------------------------------


def xlsx_file(tmp_path: Path, rows: list[list[Any]]) -> str:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(tmp_path / "f.xlsx")
    return str(tmp_path / "f.xlsx")


def test_xlsx_rows(tmp_path: Path) -> None:
    path = xlsx_file(tmp_path, [["Question", "Answer", None], ["头痛?", 1, None], [None, None]])
    ((where, row),) = xlsx_rows(("Question",))(Part(path))  # type: ignore[misc]
    assert where == f"{path} [row 2]"
    assert (row["Question"], row["Answer"]) == ("头痛?", 1)
    with pytest.raises(UserError, match="column 'Options' is missing; allowed: Question, Answer"):
        list(xlsx_rows(("Options",))(Part(path)))


def test_damaged_and_foreign_xlsx(tmp_path: Path) -> None:
    path = Path(xlsx_file(tmp_path, [["a"], *([str(i)] for i in range(2000))]))
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="not a readable zip file"):
        list(xlsx_rows()(Part(str(path))))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "no sheet")
    with pytest.raises(UserError, match="not a readable xlsx file"):
        list(xlsx_rows()(Part(str(path))))


def test_an_xlsx_bomb(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (100 << 20))
    path = write(tmp_path, raw.getvalue(), "b.xlsx")
    with pytest.raises(UserError, match="this zip file inflates more than 200-fold"):
        list(xlsx_rows()(Part(path)))
