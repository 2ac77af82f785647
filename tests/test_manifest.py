"""Finished or not: manifests, atomic writes, full disks."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from medexpert import manifest
from medexpert.records import UserError


def finished(folder: Path) -> Path:
    (folder / "a.txt").write_text("a")
    manifest.write_manifest(folder, key="k", files=[folder / "a.txt"], facts={"n": 1})
    return folder


def test_a_finished_folder_is_complete_for_its_key_only(tmp_path: Path) -> None:
    finished(tmp_path)
    assert manifest.is_complete(tmp_path, "k")
    assert not manifest.is_complete(tmp_path, "other")
    assert manifest.verify(tmp_path)["n"] == 1
    assert "torch" in manifest.verify(tmp_path)["versions"]


def test_missing_short_and_changed_files_are_told_apart(tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "a.txt").write_text("b")
    with pytest.raises(UserError, match="SHA-256 differs"):
        manifest.verify(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match="0 bytes, but the manifest says 1"):
        manifest.verify(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"file a\.txt is missing"):
        manifest.verify(tmp_path)
    assert not manifest.is_complete(tmp_path, "k")


def test_no_manifest_and_nonsense_manifest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a finished folder"):
        manifest.verify(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(UserError, match="not a manifest"):
        manifest.verify(tmp_path)
    (tmp_path / "manifest.json").write_text('{"key": "k", "files": {"a.txt": 1}}')
    assert not manifest.is_complete(tmp_path, "k")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest\.json:1: not valid JSON"):
        manifest.verify(tmp_path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    manifest.write_text(path, "old")

    def half() -> None:
        with manifest.atomic(path) as handle:
            handle.write(b"ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_full_disk_is_one_line() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with (
        pytest.raises(UserError, match="the disk is full"),
        manifest.disk_errors(full),
        full.open("wb") as handle,
    ):
        handle.write(b"x")


def test_no_permission_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write here"), manifest.disk_errors(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_digest_names_content_not_key(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    for folder in (one, two):
        folder.mkdir()
        finished(folder)
    manifest.write_manifest(two, key="other", files=[two / "a.txt"], facts={})
    assert manifest.output_digest(one) == manifest.output_digest(two)
    assert manifest.output_digest(one) == manifest.digest_files([one / "a.txt"])


def test_reading_json_tells_where(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(UserError, match="no such file"):
        manifest.read_json(path)
    path.write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        manifest.read_json(path)
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(UserError, match=r"x\.json:2: not valid JSON"):
        manifest.read_json(path)


def test_code_version_without_git(monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert manifest.code_version.__wrapped__() == "unknown"


def test_code_version_is_not_that_of_a_repository_further_up(
    monkeypatch: Any, tmp_path: Path
) -> None:
    (tmp_path / ".git").mkdir()
    place = tmp_path / "venv" / "site-packages" / "medexpert" / "manifest.py"
    monkeypatch.setattr(manifest, "__file__", str(place))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("git was asked"))
    assert manifest.code_version.__wrapped__() == "unknown"


def test_provenance_goes_into_every_manifest_of_the_block(tmp_path: Path) -> None:
    with manifest.provenance({"recipe_hash": "h"}):
        assert manifest.verify(finished(tmp_path))["recipe_hash"] == "h"
    assert "recipe_hash" not in manifest.verify(finished(tmp_path))
