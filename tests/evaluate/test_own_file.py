"""`file:PATH`: what is accepted, and every fault of a bad file told with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate.tasks import task_named
from medexpert.evaluate.tasks.own_file import own_file, read
from medexpert.records import UserError

ROW: dict[str, Any] = {"id": "a", "question": "Which?", "choices": ["one", "two"], "answer": 1}


def write(path: Path, *rows: Any) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return f"file:{path}"


def test_a_file_is_a_task(tmp_path: Path) -> None:
    long = ["a very long first choice that no one calls a word", "b"]
    name = write(tmp_path / "mine.jsonl", ROW, ROW | {"id": 2, "choices": long, "answer": 0})
    task = task_named(name)
    assert (task.name, task.choices, task.protocols) == ("file:mine.jsonl", (), ("question-only",))
    assert not task.is_official("test", "question-only")
    first, second = task.load(Path(), "test")
    assert (first.answer, second.id, second.answer) == ("two", "2", long[0])
    with pytest.raises(UserError, match="a file has no split 'dev'"):
        task.load(Path(), "dev")


def test_words_that_all_questions_share_are_classes(tmp_path: Path) -> None:
    verdict = ROW | {"choices": ["yes", "no"], "context": "Text."}
    name = write(tmp_path / "v.jsonl", verdict, verdict | {"id": "b", "context": ["One.", "Two."]})
    task = own_file(name)
    assert task.choices == ("yes", "no")
    assert task.protocols == ("reasoning-required", "question-only")
    assert task.load(Path(), "test")[1].contexts == ("One.", "Two.")


def test_the_version_is_the_content(tmp_path: Path) -> None:
    one = own_file(write(tmp_path / "a.jsonl", ROW))
    spaced = own_file(write(tmp_path / "b.jsonl", "", json.dumps(ROW, indent=None) + "  "))
    other = own_file(write(tmp_path / "c.jsonl", ROW | {"answer": 0}))
    assert one.version == spaced.version != other.version


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", r"not a JSON object in UTF-8"),
        ("[1]", r"an object is expected, not list"),
        (ROW | {"choice": []}, r"unknown key 'choice'.*did you mean 'choices'\?"),
        ({"id": "a", "question": "q", "choices": ["x", "y"]}, r"key 'answer' is missing"),
        (ROW | {"answer": 2}, r"'answer' is 2; allowed: an index, 0 to 1"),
        (ROW | {"answer": -1}, r"'answer' is -1"),
        (ROW | {"answer": "two"}, r"'answer' is 'two'; .* 0 to 1; for the choice 'two' write 1"),
        (ROW | {"answer": "B"}, r"'answer' is 'B'; .* 0 to 1; for choice B write 1"),
        (ROW | {"answer": "C"}, r"'answer' is 'C'; allowed: an index, 0 to 1$"),
        (ROW | {"answer": "1"}, r"'answer' is '1'; .*; write 1 without quotes"),
        (ROW | {"choices": ["B", "A"], "answer": "A"}, r".*for the choice 'A' write 1"),
        (ROW | {"answer": True}, r"'answer' is True"),
        (ROW | {"answer": 1.0}, r"'answer' is 1.0"),
        (ROW | {"choices": ["one"], "answer": 0}, r"1 choices; allowed: 2 to 26"),
        (ROW | {"choices": "one two"}, r"'choices' must be a list of texts"),
        (ROW | {"choices": ["one", " "]}, r"a choice is empty"),
        (ROW | {"choices": ["one", "one "]}, r"choices 'one' and 'one ' look the same"),
        (ROW | {"choices": ["no", "ｎｏ"]}, r"choices 'no' and 'ｎｏ' look the same"),
        (ROW | {"choices": ["no", "nо"]}, r"choices .* look the same"),  # a Cyrillic o
        (ROW | {"choices": ["no", "no\u200b"]}, r"choices .* look the same"),
        (ROW | {"question": " "}, r"'question' is empty or no text"),
        (ROW | {"id": None}, r"'id' must be a text or a number, not None"),
        (ROW | {"context": 3}, r"'context' must be a text or a list of texts"),
        (
            '{"id": "a", "question": "\\ud800?", "choices": ["x", "y"], "answer": 0}',
            r"not a JSON object in UTF-8 \(.*surrogates",
        ),
        (ROW | {"lang": "fr"}, r"'lang' is 'fr'; allowed: en, zh"),
    ],
)
def test_a_bad_line_is_told(tmp_path: Path, row: Any, told: str) -> None:
    name = write(tmp_path / "bad.jsonl", ROW | {"id": "ok"}, row)
    with pytest.raises(UserError, match=rf"bad\.jsonl:2: {told}"):
        task_named(name)


def test_prefixes_and_powers_are_different_choices(tmp_path: Path) -> None:
    rows = [ROW | {"choices": ["ten", "ten times"]}, ROW | {"id": "b", "choices": ["10²", "102"]}]
    assert len(read(Path(write(tmp_path / "p.jsonl", *rows).removeprefix("file:")))) == 2


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    name = write(tmp_path / "bad.jsonl", ROW, ROW, "{", ROW | {"id": "c", "answer": 9})
    with pytest.raises(UserError) as caught:
        task_named(name)
    told = str(caught.value)
    assert "3 faults in this file" in told
    for line, reason in ((2, "'a' stands in line 1"), (3, "not a JSON"), (4, "'answer' is 9")):
        assert f"bad.jsonl:{line}: " in told
        assert reason in told


def test_an_id_given_twice_is_told_beside_other_faults(tmp_path: Path) -> None:
    """Also where a line that has the id is at fault itself, the first or the second."""
    name = write(
        tmp_path / "bad.jsonl", ROW | {"answer": 9}, ROW, ROW | {"id": "b", "context": "Text."},
        ROW | {"id": "b", "lang": "fr"}, ROW | {"id": 0}, ROW | {"id": "0"},
    )  # fmt: skip
    with pytest.raises(UserError) as caught:
        task_named(name)
    told = str(caught.value)
    assert "6 faults in this file" in told
    for line, reason in (
        (1, "'answer' is 9"), (2, "id 'a' stands in line 1 already"),
        (3, "'context' stands in 1 of 6"), (4, "'lang' is 'fr'"),
        (4, "id 'b' stands in line 3 already"), (6, "id '0' stands in line 5 already"),
    ):  # fmt: skip
        assert f"bad.jsonl:{line}: {reason}" in told


def test_many_faults_are_counted(tmp_path: Path) -> None:
    name = write(tmp_path / "bad.jsonl", *["{"] * 50)
    with pytest.raises(UserError, match="30 more faults"):
        task_named(name)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        task_named(f"file:{tmp_path / 'gone.jsonl'}")
    with pytest.raises(UserError, match="a folder, not a JSONL file"):
        task_named(f"file:{tmp_path}")
    with pytest.raises(UserError, match=r"no question in this file; allowed: one object a line"):
        task_named(write(tmp_path / "empty.jsonl", ""))
    mixed = write(tmp_path / "m.jsonl", ROW | {"context": "x"}, ROW | {"id": "b"})
    with pytest.raises(
        UserError, match=r"1 fault in this file\n.*m\.jsonl:2: 'context' stands in 1"
    ):
        task_named(mixed)


@pytest.mark.parametrize(
    ("having", "told"),
    [
        ((2,), r"m\.jsonl:3: 'context' stands in 1 of 6 .*; those that have one: line 3$"),
        ((0, 1, 3, 4), r"m\.jsonl:3: .* in 4 of 6 .*; those that have none: lines 3, 6$"),
    ],
)
def test_all_lines_that_break_the_rule_of_contexts_are_told(
    tmp_path: Path, having: tuple[int, ...], told: str
) -> None:
    rows = [ROW | {"id": i} | ({"context": "Text."} if i in having else {}) for i in range(6)]
    with pytest.raises(UserError, match=told):
        task_named(write(tmp_path / "m.jsonl", *rows))


def test_an_unknown_key_hides_no_other_fault_of_its_line(tmp_path: Path) -> None:
    name = write(tmp_path / "u.jsonl", ROW | {"note": "x", "answer": 7, "question": ""})
    with pytest.raises(UserError) as caught:
        task_named(name)
    told = str(caught.value)
    assert "3 faults in this file" in told
    assert all(part in told for part in ("unknown key 'note'", "'answer' is 7", "'question' is"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from(sorted(ROW)), VALUES), min_size=1, max_size=3))
def test_no_content_brings_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any]
) -> None:
    path = tmp_path_factory.mktemp("own") / "any.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    try:
        asked = read(path)
    except UserError:
        return
    assert all(question.answer in question.choices for question in asked)
