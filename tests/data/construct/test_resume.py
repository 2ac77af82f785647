"""Killed at any byte and run again: the same files. And whose files they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.construct.rejects import Outcome, Reject
from medexpert.data.construct.resume import Job, run
from medexpert.manifest import sha256_file
from medexpert.records import Example, UserError

QUIET: Any = lambda _: None  # noqa: E731


@dataclass(frozen=True)
class Thing:
    id: str
    where: str


class Killed(BaseException):
    pass


def things(n: int = 20) -> list[Thing | Reject]:
    out: list[Thing | Reject] = [Thing(f"t{k}", f"f:{k + 1}") for k in range(n)]
    out[3] = Reject("", "f:4", "bad_row", "f", {"what": "broken"})
    out[7] = Thing("t2", "f:8")
    return out


def work(items: Sequence[Thing]) -> list[Outcome]:
    out: list[Outcome] = []
    for item in items:
        if item.id.endswith("5"):
            out.append(Reject(item.id, item.where, "unparsed", "f", {"written": "é\ud800"}))
        else:
            answer = "maybe" if item.id.endswith("1") else "yes"
            fields = {"question": item.id, "contexts": ["c"], "answer": answer}
            out.append(Example(item.id, "f", "task", "pubmedqa.lm_eval", fields))
    return out


def do(out: Path, *, work: Any = work, items: Any = None, late: Any = None, key: str = "k") -> Any:
    job = Job(out, {"teacher": key}, block=4)
    given = items or (lambda: iter(things()))
    return run(job, given, work, facts={"name": "x"}, late=late, say=QUIET)


def bytes_of(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.parent.glob("x.*")}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    do(tmp_path / "whole" / "x.jsonl")
    return bytes_of(tmp_path / "whole" / "x.jsonl")


def test_what_is_written(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    found = do(out)
    assert found["counts"] == {
        "read": 20,
        "kept": 16,
        "labels": {"maybe": 2, "yes": 14},
        "rejected": {"bad_row": 1, "id_twice": 1, "unparsed": 2},
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "x.jsonl", "x.manifest.json", "x.rejects.jsonl",
    ]  # fmt: skip
    assert found["files"]["x.jsonl"]["sha256"] == sha256_file(out)
    rejects = [json.loads(line) for line in (tmp_path / "x.rejects.jsonl").open("rb")]
    assert [r["reason"] for r in rejects] == ["bad_row", "id_twice", "unparsed", "unparsed"]
    assert rejects[0]["where"] == "f:4"


@pytest.mark.parametrize("block", range(5))
def test_killed_between_blocks(tmp_path: Path, whole: dict[str, bytes], block: int) -> None:
    calls = 0

    def dies(items: Sequence[Thing]) -> list[Outcome]:
        nonlocal calls
        calls += 1
        if calls > block:
            raise Killed
        return work(items)

    out = tmp_path / "x.jsonl"
    with pytest.raises(Killed):
        do(out, work=dies)
    assert not out.exists()
    asked: list[str] = []

    def counts(items: Sequence[Thing]) -> list[Outcome]:
        asked.extend(item.id for item in items)
        return work(items)

    do(out, work=counts)
    assert bytes_of(out) == whole
    assert len(asked) == sum(isinstance(t, Thing) for t in things()[4 * block :]) - (block <= 1)


def test_killed_at_every_byte_of_the_progress(tmp_path: Path, whole: dict[str, bytes]) -> None:
    kept: list[bytes] = []

    def spies(items: Sequence[Thing]) -> list[Outcome]:
        kept[:] = [(tmp_path / "x.progress.jsonl").read_bytes()]
        return work(items)

    out = tmp_path / "x.jsonl"
    do(out, work=spies)
    for size in range(0, len(kept[0]), 61):
        for path in tmp_path.glob("x.*"):
            path.unlink()
        (tmp_path / "x.progress.jsonl").write_bytes(kept[0][:size])
        do(out)
        assert bytes_of(out) == whole, size


def test_killed_while_the_files_are_put_in_place(tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "x.jsonl"

    def dies(examples: Iterator[Any]) -> dict[str, str]:
        raise Killed

    with pytest.raises(Killed):
        do(out, late=dies)
    out.write_bytes(b"from an earlier try")
    do(out)
    assert bytes_of(out) == whole


def test_finished_work_is_not_done_again(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    first = do(out)
    (tmp_path / "x.progress.jsonl").write_bytes(b"left over")

    def never(items: Sequence[Thing]) -> list[Outcome]:
        raise AssertionError

    assert do(out, work=never) == first
    assert not (tmp_path / "x.progress.jsonl").exists()


def test_late_rejects(tmp_path: Path) -> None:
    def late(examples: Iterator[Any]) -> dict[str, str]:
        return {e["id"]: "maybe_cap" for e in examples if e["fields"]["answer"] == "maybe"}

    found = do(tmp_path / "x.jsonl", late=late)
    assert found["counts"]["labels"] == {"yes": 14}
    assert found["counts"]["rejected"]["maybe_cap"] == 2
    assert b'"maybe"' not in (tmp_path / "x.jsonl").read_bytes()


def test_other_works_files_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    out.write_text("mine\n")
    with pytest.raises(UserError, match="a file is here already"):
        do(out)
    out.unlink()
    do(out)
    with pytest.raises(UserError, match=r"other finished work .* another teacher"):
        do(out, key="other")
    out.write_text("changed\n")
    with pytest.raises(UserError, match="not the one its manifest describes"):
        do(out)


def test_other_works_progress_and_damage(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"

    def dies(items: Sequence[Thing]) -> list[Outcome]:
        raise Killed

    with pytest.raises(Killed):
        do(out, work=dies)
    with pytest.raises(UserError, match="unfinished work of another teacher"):
        do(out, key="other")
    progress = tmp_path / "x.progress.jsonl"
    first = progress.read_bytes()
    progress.write_bytes(first + b"broken\n{}\n")
    with pytest.raises(UserError, match=r"x.progress.jsonl:2: damaged"):
        do(out)
    progress.write_bytes(first + b'{"block": 4}\n')
    with pytest.raises(UserError, match=r"x.progress.jsonl:2: damaged"):
        do(out)


def test_an_input_of_bad_rows_stops_before_any_work(tmp_path: Path) -> None:
    bad = Reject("", "f:2", "bad_row", "f", {"what": "not valid JSON"})
    with pytest.raises(UserError, match=r"1 of 2 rows are bad \(f:2: not valid JSON\)"):
        do(tmp_path / "x.jsonl", items=lambda: iter([Thing("a", "f:1"), bad]))
    with pytest.raises(UserError, match="no item in the input"):
        do(tmp_path / "x.jsonl", items=lambda: iter([]))
    assert not list(tmp_path.iterdir())
