"""What may leave: no sentence of the data, no path of the machine, every address as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from invented import prose
from medexpert import manifest
from medexpert.data.build import build
from medexpert.publish import _named_in, _names, _renamed, publish_data, without_text
from medexpert.recipe import Run


def test_published_data_quotes_no_row_and_no_path(
    tmp_path: Path, write_rows: Callable[..., Path], make_recipe: Callable[..., Run],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rows = [{"id": f"q{i}", "question": f"Is {i} odd?", "answer": prose(i, 2)} for i in range(60)]
    rows += [{"id": "velorin secret", "question": 7, "answer": "velorin cures"}]
    rows += [rows[5] | {"id": "q5"}]
    path = write_rows("far/q.jsonl", rows)
    recipe = make_recipe(
        root=str(tmp_path / "far"), instruct=[{"source": "medquad-qa", "path": str(path)}]
    )
    root = tmp_path / "run"
    facts = build(recipe, root / "data", key="k", progress=lambda line: None)
    manifest.write_json(root / "recipe.json", recipe.model_dump(mode="json"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    told = facts["stages"]["instruct"]["sources"]["medquad-qa"]["first_faults"]
    assert any("q5" in fault["what"] for fault in told)
    assert "q5" in (root / "data" / "card.md").read_text()
    files = publish_data(
        root, tmp_path / "out", command=f"medexpert data {path}", say=lambda line: None
    )
    assert {file.name for file in files} == {
        "card.md", "card.html", "manifest.json", "machine.json",
    }  # fmt: skip
    for file in files:
        text = file.read_text("utf-8")
        assert str(tmp_path) not in text
        assert "velorin" not in text
        assert "'q5'" not in text
    made = manifest.read_json(tmp_path / "out" / "manifest.json")
    entry = made["stages"]["instruct"]["sources"]["medquad-qa"]
    assert entry["faults"] == 2
    assert entry["first_faults"] == [{"where": "q.jsonl:61"}, {"where": "q.jsonl:62"}]
    assert made["settings"]["root"] == "DATA"
    assert "q.jsonl:61 | not published" in (tmp_path / "out" / "card.md").read_text()
    assert "SOURCE(medquad-qa)" in (tmp_path / "out" / "machine.json").read_text()
    assert without_text(made) == made


def test_paths_are_renamed_at_their_borders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/")
    monkeypatch.chdir("/")
    manifest.write_json(
        tmp_path / "recipe.json",
        {
            "base": {"model": "/models/b"},
            "data": {
                "root": "/mnt/d&d/",
                "quarantine": ["file:/mnt/b.jsonl"],
                "knowledge": [
                    {"source": "local-text", "path": "in/wong.txt", "phi": "redact"},
                    {"source": "general-en", "path": "file:///mnt/d&d/g"},
                ],
            },
        },
    )
    names = _names(tmp_path)
    for text, wanted in {
        "https://doi.org/10.1/x": "https://doi.org/10.1/x",
        "https://x.org/mnt/d&d/a": "https://x.org/mnt/d&d/a",
        '"/mnt/d&d/a.jsonl:3"': '"DATA/a.jsonl:3"',
        "/mnt/d&amp;d/a": "DATA/a",
        "/mnt/d&d2/a": "/mnt/d&d2/a",
        "in /mnt/d&d.": "in DATA.",
        "file:/mnt/b.jsonl": "file:PATH/b.jsonl",
        "file:///mnt/d&d/g/x": "file://SOURCE(general-en)/x",
        "a in/wong.txt b": "a SOURCE(local-text) b",
        "/models/b": "PATH/b",
        f"{tmp_path}/data": "RUN/data",
        "a / b": "a / b",
    }.items():
        assert _renamed(text, names) == wanted
    assert _renamed("a /b", {"/": "~"}) == "a /b"
    assert _named_in(tmp_path / "none.json") == {}
    assert json.dumps(names)
