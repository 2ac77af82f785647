from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from medexpert.data import places
from medexpert.records import UserError


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.pipe_file("/places/a-1.txt", b"1")
    system.pipe_file("/places/a-2.txt", b"2")
    yield system
    system.rm("/places", recursive=True)


def test_local_and_remote_answer_alike(tmp_path: Path, memory: Any) -> None:
    for name in ("a-1.txt", "a-2.txt"):
        (tmp_path / name).touch()
    for base in (str(tmp_path), "memory://places", "memory://places/"):
        assert places.is_folder(base)
        assert not places.is_file(base)
        assert places.is_file(places.join(base, "a-1.txt"))
        found = places.matching(base, "a-*.txt")
        assert [path.rsplit("/", 1)[1] for path in found] == ["a-1.txt", "a-2.txt"]
        assert all(places.is_file(path) for path in found)
        assert places.matching(base, "b*") == []
        assert places.matching(base, "b.txt") == []
        assert len(places.matching(base, "a-1.txt")) == 1


def test_a_pattern_alone(tmp_path: Path) -> None:
    (tmp_path / "x.txt").touch()
    (tmp_path / "folder.txt").mkdir()
    assert places.matching("", str(tmp_path / "*.txt")) == [str(tmp_path / "x.txt")]
    assert places.join("", "x") == "x"


def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch, memory: Any) -> None:
    def refuse(path: str) -> bool:
        raise PermissionError("no access\nto this bucket")

    with monkeypatch.context() as changed:
        changed.setattr(type(memory), "isfile", lambda self, path: refuse(path))
        with pytest.raises(UserError, match=r"^memory://places/a: cannot be reached: no access$"):
            places.is_file("memory://places/a")
    with pytest.raises(UserError, match=r"^what://x: cannot be opened: "):
        places.is_folder("what://x")
