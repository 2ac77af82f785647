"""The facts of a build add up: tokens, shares, inputs, bad rows by file and by source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from invented import prose
from medexpert.data import grams
from medexpert.data.build import build
from medexpert.data.build.bad_rows import Places, hidden_id
from medexpert.data.build.digests import Sums, short_names, source_digests
from medexpert.data.build.facts import shares_line
from medexpert.recipe import Run
from medexpert.records import Document, UserError, read_jsonl

Make = Callable[..., Run]
Rows = Callable[..., Path]


def made(recipe: Run, folder: Path) -> dict[str, Any]:
    return build(recipe, folder, key="k", progress=lambda line: None)


def texts(start: int, count: int, sentences: int = 4) -> list[dict[str, Any]]:
    return [{"id": f"d{i}", "text": prose(i, sentences)} for i in range(start, start + count)]


def test_tokens_are_those_of_the_lines_written(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    small, large = write_rows("s.jsonl", texts(0, 6)), write_rows("l.jsonl", texts(50, 40, 9))
    general = write_rows("g.jsonl", [{"id": "long", "text": prose(900, 400)}, *texts(300, 5)])
    recipe = make_recipe(
        knowledge=[
            {"source": "pubmed-abstracts", "path": str(small), "weight": 0.4},
            {"source": "text-jsonl", "path": str(large), "weight": 0.6},
            {"source": "general-en", "path": str(general), "role": "replay"},
        ],
        max_epochs=3.0, max_chars=500, replay_share=0.2,
    )  # fmt: skip
    facts = made(recipe, tmp_path / "out")["stages"]["knowledge"]
    written: dict[str, list[Document]] = {}
    for document in read_jsonl(tmp_path / "out" / "knowledge.jsonl", Document):
        written.setdefault(document.source, []).append(document)
    for name, source in facts["sources"].items():
        tokens = sum(len(grams.tokens(grams.content(d))) for d in written[name])
        assert source["tokens"] == pytest.approx(tokens, rel=0.02)
        assert source["realised_records"] == pytest.approx(
            len(written[name]) / facts["records"], abs=1e-3
        )
    assert facts["tokens"] == sum(source["tokens"] for source in facts["sources"].values())
    assert facts["sources"]["pubmed-abstracts"]["epochs"] == 3.0
    # Only some parts of the long document are used; the others are counted, not lost.
    replay = facts["sources"]["general-en"]
    parts = {d.id for d in written["general-en"] if d.id.startswith("long#")}
    (total,) = {int(part.rpartition("of")[2]) for part in parts}
    assert replay["unused_parts"] == total - len(parts) > 0
    assert f"{replay['unused_parts']} parts of long" in (tmp_path / "out/card.md").read_text()
    # Targets are shares of the whole stage, as the realised ones are.
    assert sum(s["target"] for s in facts["sources"].values()) == pytest.approx(1, abs=1e-3)
    assert replay["target"] == pytest.approx(0.2)
    assert facts["sources"]["pubmed-abstracts"]["target"] == pytest.approx(0.8 * 0.4)
    line = shares_line("knowledge", facts)
    assert line.startswith(
        "data knowledge: shares of records/characters (wanted): pubmed-abstracts "
    )
    assert f"/{replay['realised']:.1%} (20.0%)" in line


def test_parts_have_ids_of_their_own(tmp_path: Path, write_rows: Rows, make_recipe: Make) -> None:
    rows = [{"id": "L", "text": prose(1, 60)}, {"id": "L#1", "text": prose(2, 8)}]
    source = {"source": "general-en", "path": str(write_rows("g.jsonl", rows))}
    made(make_recipe(knowledge=[source], max_chars=2000), tmp_path / "out")
    ids = [d.id for d in read_jsonl(tmp_path / "out" / "knowledge.jsonl", Document)]
    assert len(set(ids)) == len(ids)
    assert {"L#1", f"L#1of{len(ids) - 1}"} <= set(ids)


def test_inputs_have_their_own_sizes(tmp_path: Path, write_rows: Rows, make_recipe: Make) -> None:
    first = write_rows("notes/10.jsonl", texts(0, 9))
    second = write_rows("notes/0.jsonl", texts(20, 3))
    source = {"source": "local-text", "path": str(first.parent)}
    facts = made(make_recipe(knowledge=[source]), tmp_path / "out")
    inputs = facts["stages"]["knowledge"]["sources"]["local-text"]["inputs"]
    assert {one["file"]: one["bytes"] for one in inputs} == {
        "0.jsonl": second.stat().st_size, "10.jsonl": first.stat().st_size,
    }  # fmt: skip


def test_limit_books_each_row_under_its_file(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    write_rows("many/a.jsonl", texts(0, 5))
    second = write_rows("many/b.jsonl", texts(10, 5))
    second.write_text("{broken\n" + second.read_text())
    write_rows("many/c.jsonl", texts(20, 5))
    source = {"source": "local-text", "path": str(tmp_path / "many"), "limit": 7}
    facts = made(make_recipe(knowledge=[source], max_bad_rows=0.2), tmp_path / "out")
    entry = facts["stages"]["knowledge"]["sources"]["local-text"]
    assert (entry["read"], entry["kept"], entry["faults"]) == (8, 7, 1)
    assert entry["first_faults"][0]["where"] == "b.jsonl:1"
    ids = {d.id for d in read_jsonl(tmp_path / "out" / "knowledge.jsonl", Document)}
    assert ids == {*(f"a.jsonl#{i}" for i in range(1, 6)), "b.jsonl#2", "b.jsonl#3"}


def test_one_damaged_document_does_not_stop_a_folder(tmp_path: Path, make_recipe: Make) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    for i in range(30):
        (folder / f"n{i}.txt").write_text(prose(i, 6))
    (folder / "damaged.json").write_text("[{")
    source = {"source": "local-text", "path": str(folder)}
    facts = made(make_recipe(knowledge=[source]), tmp_path / "out")
    entry = facts["stages"]["knowledge"]["sources"]["local-text"]
    assert (entry["kept"], entry["faults"]) == (30, 1)
    (folder / "torn.docx").write_text("no archive")
    with pytest.raises(
        UserError,
        match=r"source 'local-text': 2 of 32 rows are bad \(6.2%\); first: .*damaged\.json.*torn",
    ):
        made(make_recipe(knowledge=[source], seed=2), tmp_path / "out")


def test_the_first_faults_are_those_of_the_file(
    tmp_path: Path, write_rows: Rows, make_recipe: Make
) -> None:
    packed = write_rows("f/a.jsonl.gz", texts(0, 40))
    plain = write_rows("f/a.jsonl", texts(50, 40))
    plain.write_text(plain.read_text() + "{broken\n" * 5)
    assert packed.is_file()
    source = {"source": "local-text", "path": f"{tmp_path}/./f"}
    with pytest.raises(UserError, match=r"a\.jsonl: 5 of 45 rows.*first: .*a\.jsonl:41: not valid"):
        made(make_recipe(knowledge=[source]), tmp_path / "out")


def private(tmp_path: Path) -> dict[str, Any]:
    pytest.importorskip("presidio_analyzer")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "alice_wong.pdf").write_bytes(b"%PDF-1.4 damaged")
    rows = [json.dumps(row) for row in texts(0, 25)]
    rows[3] = '{"id": "eve jones", "Eve Jones": "seen today"}'
    (folder / "eve_jones.jsonl").write_text("\n".join(rows))
    (folder / "bob_miller.txt").write_text("")
    (folder / "carol.smith").write_text("Carol Smith")
    return {"source": "local-text", "path": str(folder), "phi": "redact"}


def test_no_name_of_a_file_survives_with_phi(tmp_path: Path, make_recipe: Make) -> None:
    source = private(tmp_path)
    out = tmp_path / "out"
    facts = made(make_recipe(knowledge=[source], max_bad_rows=1.0), out)
    entry = facts["stages"]["knowledge"]["sources"]["local-text"]
    assert (entry["faults"], entry["dropped"]) == (2, {"empty": 1, "unknown_kind": 1})
    places = {fault["where"] for fault in entry["first_faults"]}
    assert places == {hidden_id("alice_wong.pdf"), f"{hidden_id('eve_jones.jsonl')}:4"}
    assert hidden_id("bob_miller.txt") in {one["file"] for one in entry["inputs"]}
    for file in out.rglob("*"):
        if file.is_file():
            text = file.read_text("utf-8").casefold()
            for name in ("alice", "wong", "eve_", "eve j", "jones", "bob", "miller", "smith"):
                assert name not in text, (file, name)
    with pytest.raises(UserError) as caught:
        made(make_recipe(knowledge=[source], max_bad_rows=0.01), tmp_path / "stopped")
    assert "2 of 28 rows are bad" in str(caught.value) or "1 of 25 rows" in str(caught.value)
    assert not {"alice", "eve", "bob", "jones"} & set(str(caught.value).casefold().split("_"))
    assert hidden_id("eve_jones.jsonl") in str(caught.value)


def test_hidden_places() -> None:
    places = Places(hidden=True)
    file = places.file("/x/notes/./bob.jsonl")
    assert places.row("/x/notes/./bob.jsonl", "/x/notes/bob.jsonl:7") == f"{file}:7"
    assert places.row("/x/bob.zip", "/x/bob.zip [bob/1.txt]") == places.file("/x/bob.zip")
    assert places.record("bob.jsonl#7") == f"{file}#7"
    assert places.record("bob.jsonl#bob") == file
    assert Places(hidden=False).row("/x/./a", "/x/a:7") == "/x/a:7"


@pytest.mark.parametrize(
    ("paths", "short"),
    [
        (["d/./x/a", "d/./b"], ["x/a", "b"]),
        (["s3://k/f/a", "s3://k/f/g/a"], ["a", "g/a"]),
        (["/x/a.jsonl", "y/a.jsonl"], ["/x/a.jsonl", "y/a.jsonl"]),
        (["a.jsonl"], ["a.jsonl"]),
        ([], []),
    ],
)
def test_short_names(paths: list[str], short: list[str]) -> None:
    assert list(short_names(paths).values()) == short


def test_a_remote_input_is_read_once(make_recipe: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    from medexpert.data.build import digests

    read: list[str] = []
    inner = digests._sum

    def counted(url: str) -> str:
        read.append(url)
        return inner(url)

    monkeypatch.setattr(digests, "_sum", counted)
    url = "memory://facts/q.jsonl"
    with fsspec.open(url, "wb") as handle:
        handle.write(b'{"id": "a"}\n')
    recipe = make_recipe(instruct=[{"source": "medquad-qa", "path": url}])
    first = source_digests(recipe)
    assert source_digests(recipe) == first
    assert Sums().of(url) == first["instruct/medquad-qa"]["q.jsonl"]
    assert read == [url]
    with fsspec.open(url, "wb") as handle:
        handle.write(b'{"id": "b"}\n')
    assert source_digests(recipe) != first
