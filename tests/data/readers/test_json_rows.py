from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.data.readers import json_rows
from medexpert.data.readers.json_rows import json_array, json_object
from medexpert.data.readers.rows import Fault, Part, Row
from medexpert.records import UserError


def write(tmp_path: Path, raw: bytes | str, name: str = "f.json") -> str:
    path = tmp_path / name
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return str(path)


def test_members_of_an_array_and_an_object(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        b'\xef\xbb\xbf \n[{"a": 1.5}, 7, {"a": "\\ud800"}, {"a": "\\ud83d\\ude00\\\\ud800"}]',
    )
    assert list(json_array()(Part(path))) == [
        (f"{path} [record 1]", {"a": 1.5}),
        Fault(f"{path} [record 2]", "a JSON object is expected, not a number"),
        Fault(f"{path} [record 3]", "a string holds half a surrogate pair"),
        (f"{path} [record 4]", {"a": "\U0001f600\\ud800"}),
    ]
    path = write(tmp_path, gzip.compress(b'{"x": {"1": {"b": 2, "pmid": "9"}, "2": []}}'))
    assert list(json_object("x", "pmid")(Part(path))) == [
        (f"{path} [1]", {"pmid": "1", "b": 2}),
        Fault(f"{path} [2]", "a JSON object is expected, not a list"),
    ]
    path = write(tmp_path, '{"q": [{"a": 1}], "r": 3}')
    assert [row for _, row in json_array("q")(Part(path))] == [{"a": 1}]  # type: ignore[misc]


def test_an_item_that_is_no_object_may_be_named(tmp_path: Path) -> None:
    path = write(tmp_path, '[["hello", "there"], {"a": 1}]')
    found = [row for _, row in json_array(under="turns")(Part(path))]  # type: ignore[misc]
    assert found == [{"turns": ["hello", "there"]}, {"a": 1}]


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        ("", "the file is empty"),
        ("  \n ", "the file is empty"),
        ("[]", "the file: an object is expected, not a list"),
        ("hello", "an object is expected, not something else"),
        ('{"1": {}', r"not valid JSON \(.*after \d items or more"),
        ('{"1": {}, "2": {oops}}', r"not valid JSON \(.*after \d items or more"),
        ('{"1": ' + "[" * 300 + "]" * 300 + "}", "nested too deeply"),
        (b'{"1": {"a": "\xff"}}', r"not valid JSON \("),
        ('{"1": {"a": ' + "9" * 5000 + "}}", r"not valid JSON \("),
        (b"\x1f\x8b\x08\x00cut", r"damaged or truncated gzip"),
    ],
)
def test_broken_files(tmp_path: Path, raw: bytes | str, match: str) -> None:
    with pytest.raises(UserError, match=r"f\.json: .*" + match):
        list(json_object()(Part(write(tmp_path, raw))))


def test_a_pointer_that_leads_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no item in the list 'questions' of this file"):
        list(json_array("questions")(Part(write(tmp_path, '{"q": []}'))))
    with pytest.raises(UserError, match="no item in the object 'exams' of this file"):
        list(json_object("exams")(Part(write(tmp_path, '{"q": []}'))))


def test_brackets_inside_strings_are_no_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"1": {"a": "[" * 500 + '\\"' + "{" * 500, "b": "\\"}}
    path = write(tmp_path, json.dumps(value))
    ((_, row),) = json_object()(Part(path))  # type: ignore[misc]
    assert row == {"id": "1", **value["1"]}


def test_one_item_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "MAX_ITEM", 1 << 20)
    path = write(tmp_path, '[{"a": "' + "x" * (3 << 20) + '"}]')
    with pytest.raises(UserError, match="one record is larger than 1 MiB"):
        list(json_array()(Part(path)))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 3500), parts=st.integers(1, 5))
def test_parts_hold_every_row_once(tmp_path: Path, count: int, parts: int) -> None:
    path = write(tmp_path, json.dumps({str(i): {} for i in range(count)}))
    found = [
        row["id"]
        for index in range(parts)
        for _, row in cast(list[Row], list(json_object()(Part(path, index, parts))))
    ]
    assert sorted(found, key=int) == [str(i) for i in range(count)]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=60), at=st.integers(0, 60), cut=st.integers(0, 30))
def test_no_bytes_bring_a_traceback(tmp_path: Path, raw: bytes, at: int, cut: int) -> None:
    text = json.dumps({"12": {"A": ['é\\"', 1.5e3, None]}, "13": {"A": {}}}).encode()
    path = write(tmp_path, text[:at] + raw + text[at + cut :])
    told = []
    for rows in (json_object(), json_array(), json_array("12.A")):
        try:
            list(rows(Part(path)))
        except UserError as error:
            told.append(str(error))
    assert all(line.startswith(path) for line in told)
