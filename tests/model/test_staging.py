from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medexpert.manifest import write_manifest
from medexpert.model.staging import build_once, cache_root, locked, staged
from medexpert.records import UserError


def write_and_raise(folder: Path, error: Exception) -> None:
    with staged(folder) as into:
        (into / "half").write_text("x")
        raise error


def fill(text: str, key: str = "k") -> Callable[[Path], None]:
    def write(into: Path) -> None:
        (into / "a.txt").write_text(text)
        write_manifest(into, key=key, files=[into / "a.txt"], facts={})

    return write


def test_cache_root_is_the_argument_then_the_variable_then_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDEXPERT_CACHE", str(tmp_path / "v"))
    assert cache_root(tmp_path / "a") == tmp_path / "a"
    assert cache_root() == tmp_path / "v"
    monkeypatch.delenv("MEDEXPERT_CACHE")
    assert cache_root() == Path.home() / ".cache" / "medexpert"


def test_a_cache_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the model cache must be a folder"):
        cache_root(tmp_path / "file")


def test_a_failure_leaves_the_old_folder_and_no_trace(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with staged(folder) as into:
        fill("old")(into)
    with pytest.raises(RuntimeError, match="stop"):
        write_and_raise(folder, RuntimeError("stop"))
    assert (folder / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the disk is full"):
        write_and_raise(tmp_path / "m", OSError(errno.ENOSPC, "No space left on device"))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_as_safetensors_tells_it(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    text = 'I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }'
    with pytest.raises(UserError, match="the disk is full"), staged(tmp_path / "m"):
        raise SafetensorError(text)


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".m.partial-dead").mkdir()
    with staged(tmp_path / "m") as into:
        fill("x")(into)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="did not write; nothing was replaced"), staged(tmp_path):
        pass
    assert (tmp_path / "thesis.txt").exists()
    with pytest.raises(UserError, match="it is a file"), staged(tmp_path / "thesis.txt"):
        pass


def test_a_folder_is_built_once_and_again_when_damaged_or_of_another_key(tmp_path: Path) -> None:
    built: list[str] = []
    lines: list[str] = []

    def build(key: str) -> Path:
        def write(into: Path) -> None:
            built.append(key)
            fill("content", key)(into)

        return build_once(tmp_path / "m", key, write, lines.append)

    build("k")
    build("k")
    assert built == ["k"]
    assert lines == []
    (tmp_path / "m" / "a.txt").write_text("CONTENT")
    build("k")
    assert built == ["k", "k"]
    assert "damaged" in lines[0]
    assert "SHA-256 differs" in lines[0]
    build("k2")
    assert built == ["k", "k", "k2"]
    assert "another source" in lines[1]


def test_two_builders_at_once_build_once(tmp_path: Path) -> None:
    built: list[int] = []

    def write(into: Path) -> None:
        built.append(1)
        time.sleep(0.2)
        fill("x")(into)

    lines: list[str] = []
    threads = [
        threading.Thread(target=build_once, args=(tmp_path / "m", "k", write, lines.append))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [1]
    assert any("another process is preparing m" in line for line in lines)


def test_the_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), locked(tmp_path / "m"):
        raise RuntimeError("stop")
    with locked(tmp_path / "m"):
        pass
