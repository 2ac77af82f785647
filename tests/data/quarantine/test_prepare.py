"""The index file: what goes in, its bytes, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.quarantine import Hit, Quarantine, prepare
from medexpert.data.readers.pubmedqa import official_split
from medexpert.records import Document, UserError

PMID = official_split().test[3]
ROW = {
    "id": "own-000001",
    "question": "Why do the gulls of this harbour refuse bread that was baked on a Tuesday?",
    "choices": ["They are full", "Tuesday's flour is coarse", "They cannot see it"],
    "answer": 1,
    "explanation": "The mill sharpens its stones on Mondays, hence coarse flour one day later.",
    "pmid": "98000001",
}


@pytest.fixture
def own(write_rows: Callable[..., Path]) -> str:
    """A benchmark of the user's own."""
    return f"file:{write_rows('own.jsonl', [ROW])}"


def doc(text: str, **ids: str) -> Document:
    return Document("d", text, "s", ids=ids)


def test_pubmedqa_without_files_is_by_id_only(tmp_path: Path) -> None:
    file = str(tmp_path / "q" / "index.npz")
    facts = prepare(["pubmedqa"], str(tmp_path), file)["pubmedqa"]
    assert (facts["ids"], facts["items"], facts["text"]) == (1000, 1000, False)
    assert facts["checked"] is True
    opened = Quarantine.open(file)
    assert opened.hit(doc("Text.", pmid=PMID)) == Hit("pubmedqa", PMID, "id", 1.0)
    assert opened.hit(doc("Text.", pmid="1")) is None


def test_pubmedqa_with_text(pqal: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "index.npz")
    facts = prepare(["pubmedqa"], str(pqal), file)["pubmedqa"]
    assert (facts["ids"], facts["items"], facts["text"]) == (1000, 1000, True)
    assert list(facts["files"]) == ["stage3/pubmedqa/ori_pqal.json"]
    assert len(next(iter(facts["files"].values()))) == 64
    # Every item reads like every other here: all but the number is boilerplate.
    assert facts["boilerplate_tokens"] > 0.5 * facts["tokens"]


def test_own_benchmark(own: str, tmp_path: Path) -> None:
    file = str(tmp_path / "index.npz")
    facts = prepare([own], "", file)
    assert facts[own]["items"] == 1
    opened = Quarantine.open(file)
    assert opened.hit(doc(str(ROW["explanation"]))) == Hit(
        own, "own-000001", "substring", 1.0, "answer"
    )
    assert opened.hit(doc("x", pmid="98000001")) == Hit(own, "own-000001", "id", 1.0)


def test_all_says_what_is_not_checked(pqal: Path, tmp_path: Path) -> None:
    facts = prepare(["all"], str(pqal), str(tmp_path / "index.npz"))
    assert facts["pubmedqa"]["text"] is True
    absent = {name: value for name, value in facts.items() if not value["checked"]}
    assert "medmcqa" in absent
    assert all(value["why"] and not value["items"] for value in absent.values())


def test_bytes_depend_on_the_inputs_only(pqal: Path, own: str, tmp_path: Path) -> None:
    files = [tmp_path / "1.npz", tmp_path / "2.npz"]
    for file in files:
        prepare(["pubmedqa", own], str(pqal), str(file))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert sorted(p.name for p in tmp_path.glob("*.npz*")) == ["1.npz", "2.npz"]


def test_opening_twice_shares_the_arrays_but_not_the_counts(own: str, tmp_path: Path) -> None:
    file = str(tmp_path / "index.npz")
    prepare([own], "", file)
    one, two = Quarantine.open(file), Quarantine.open(file)
    assert one.index is two.index
    assert one.guarded is not two.guarded


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["pubmdqa"], "unknown benchmark 'pubmdqa'.*mean 'pubmedqa'"),
        (["medmcqa"], "medmcqa"),
        (["file:absent.jsonl"], "absent.jsonl: no such file"),
    ],
)
def test_faults(names: list[str], match: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=match):
        prepare(names, str(tmp_path), str(tmp_path / "index.npz"))


def test_empty_benchmark(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="no item"):
        prepare([f"file:{tmp_path / 'none.jsonl'}"], "", str(tmp_path / "index.npz"))


@pytest.mark.parametrize("damage", ["cut", "noise", "other"])
def test_damaged_index(own: str, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "index.npz"
    prepare([own], "", str(file))
    raw = file.read_bytes()
    changed: dict[str, Any] = {"cut": raw[: len(raw) // 2], "noise": b"x" * 99, "other": b""}
    file.write_bytes(changed[damage])
    with pytest.raises(UserError, match="not a quarantine index, or a damaged one"):
        Quarantine.open(str(file))


def test_missing_index(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such quarantine index"):
        Quarantine.open(str(tmp_path / "none.npz"))


def test_index_that_cannot_be_written(own: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="cannot write the quarantine index"):
        prepare([own], "", str(tmp_path / "file" / "index.npz"))
