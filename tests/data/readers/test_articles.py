from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medexpert.data.quarantine.ids import pmids
from medexpert.data.readers import READERS
from medexpert.data.readers.rows import Drop, Fault, Item, Part, read
from medexpert.records import Document


def of(name: str, path: Path | str) -> list[Item]:
    return list(read(READERS[name], [Part(str(path))]))


def only(name: str, path: Path | str) -> Document:
    (item,) = of(name, path)
    assert isinstance(item, Document)
    return item


def test_pmc_fulltext(write_rows: Callable[..., Path]) -> None:
    row = {
        "id": "PMC9", "pmid": "4", "title": "Zinc", "license": "CC-BY", "lang": "en",
        "sections": [
            {"heading": "", "text": "First."}, {"heading": "Methods", "text": "A\nB"},
            {"heading": "Empty", "text": " "},
        ],
    }  # fmt: skip
    document = only("pmc_fulltext", write_rows("p.jsonl", [row]))
    assert document.text == "Zinc\nFirst.\n\n## Methods\nA\nB"
    assert document.ids == {"pmid": "4", "pmcid": "PMC9"}
    assert document.licence == "CC-BY"


def test_s2orc_with_blocks(write_rows: Callable[..., Path]) -> None:
    row = {
        "paper_id": "77", "title": "Zinc", "pubmed_id": 12, "doi": "10.1/A", "pmc_id": "5",
        "abstract": [{"text": "Short.", "section": "Abstract", "cite_spans": []}],
        "body_text": [
            {"text": "One.", "section": "Intro"}, {"text": "Two.", "section": "Intro"},
            {"text": "Three.", "section": "Doses"},
        ],
    }  # fmt: skip
    document = only("s2orc", write_rows("s.jsonl", [row]))
    assert document.text == "Zinc\nShort.\n\n## Intro\n\nOne.\n\nTwo.\n\n## Doses\n\nThree."
    assert document.ids == {"s2orc": "77", "pmid": "12", "doi": "10.1/a", "pmcid": "PMC5"}
    bare = {"paper_id": "78", "abstract": [], "body_text": []}
    assert of("s2orc", write_rows("t.jsonl", [bare])) == [Drop("s2orc-78", "no_text")]
    cord = {"paper_id": "ab", "metadata": {"title": "Iron"}, "body_text": [{"text": "x"}]}
    assert only("s2orc", write_rows("u.jsonl", [cord])).text == "Iron\nx"


def spans_row(**change: Any) -> dict[str, Any]:
    text = "Zinc\nShort.\nIntro\nOne.\nTable 1\nDoses\nTwo."

    def mark(*parts: str) -> str:
        return json.dumps([{"start": text.index(p), "end": str(text.index(p) + len(p))}
                           for p in parts])  # fmt: skip

    marks = {
        "title": mark("Zinc"), "abstract": mark("Short."),
        "paragraph": mark("Short.", "One.", "Two."),
        "sectionheader": mark("Intro", "Table 1", "Doses"), "author": None,
    }  # fmt: skip
    content = {"source": {"oainfo": {"license": "CCBY"}}, "text": text, "annotations": marks}
    ids = {"PubMed": "12", "PubMedCentral": "5", "DOI": "10.1/A", "MAG": None}
    if "externalids" in change:
        ids = change.pop("externalids")
    return {"corpusid": 77, "externalids": ids, "content": content | change}


def test_s2orc_with_spans(write_rows: Callable[..., Path]) -> None:
    document = only("s2orc", write_rows("s.jsonl", [spans_row()]))
    assert document.text == "Zinc\nShort.\n\n## Intro\n\nOne.\n\n## Doses\n\nTwo."
    assert document.ids == {"s2orc": "77", "pmid": "12", "pmcid": "PMC5", "doi": "10.1/a"}
    assert document.licence == "CCBY"
    assert of("s2orc", write_rows("t.jsonl", [spans_row(text=None)])) == [
        Drop("s2orc-77", "no_text")
    ]
    bare = only("s2orc", write_rows("u.jsonl", [spans_row(annotations={})]))
    assert bare.text.startswith("Zinc\nShort.")


@pytest.mark.parametrize(
    ("marks", "what"),
    [
        ({"paragraph": "{oops"}, "annotation 'paragraph' is no JSON list of spans"),
        ({"title": "7"}, "annotation 'title': a list is expected, not a number"),
        ({"title": '[{"start": 1}]'}, "annotation 'title': a span without start and end"),
        (
            {"title": '[{"start": 1, "end": 999}]'},
            "annotation 'title': span 1 to 999 of a text of 41 characters",
        ),
    ],
)
def test_s2orc_faults(write_rows: Callable[..., Path], marks: dict[str, str], what: str) -> None:
    path = write_rows("s.jsonl", [spans_row(annotations=marks)])
    assert of("s2orc", path) == [Fault(f"{path}:1", what)]


def test_medrag(write_rows: Callable[..., Path]) -> None:
    rows = [
        {"id": "A_0", "title": "Anatomy_Gray", "content": "Bones.", "contents": "A. Bones."},
        {"id": "p_0", "title": "Zinc for colds", "content": "It was.", "contents": "", "PMID": 12},
    ]
    book, abstract = of("medrag", write_rows("m.jsonl", rows))
    assert isinstance(book, Document)
    assert isinstance(abstract, Document)
    assert (book.title, book.text) == ("Anatomy Gray", "Bones.")
    assert (abstract.text, abstract.ids) == ("Zinc for colds\nIt was.", {"pmid": "12"})


def test_guidelines(write_rows: Callable[..., Path]) -> None:
    row = {"id": "g1", "source": "who", "title": None, "clean_text": "Rest.", "raw_text": "R",
           "url": None, "overview": None}  # fmt: skip
    path = write_rows("g.jsonl", [row, row | {"id": "g2", "clean_text": ""}])
    first, second = of("guidelines", path)
    assert isinstance(first, Document)
    assert (first.text, first.source) == ("Rest.", "who")
    assert second == Drop("g2", "no_text")


def test_text_without_ids_is_named_by_its_line(write_rows: Callable[..., Path]) -> None:
    rows = [{"text": "One.", "timestamp": "2019", "url": "http://x"}, {"text": "Two."}]
    first, second = of("text_jsonl", write_rows("c4-00.json.gz", rows))
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert re.fullmatch(r"c4-00-1-[0-9a-f]{8}", first.id)
    assert re.fullmatch(r"c4-00-2-[0-9a-f]{8}", second.id)


def test_texts_of_two_folders_and_their_own_ids(tmp_path: Path) -> None:
    found: list[Any] = []
    held: dict[str, list[dict[str, Any]]] = {
        "a": [{"text": "One."}, {"text": "Two.", "id": "mine-7"}],
        "b": [{"text": "Three."}, {"text": "Four.", "id": 8, "pmid": 98000001}],
    }
    for folder, rows in held.items():
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "data.jsonl"
        file.write_text("\n".join(json.dumps(row) for row in rows))
        found += of("text_jsonl", file)
    assert len({item.id for item in found}) == 4
    assert [item.id for item in found[1::2]] == ["mine-7", "8"]
    assert pmids(found[3]) >= {"98000001"}
    books = [tmp_path / folder / "book.txt" for folder in "ab"]
    for book in books:
        book.write_text(f"A book of {book.parent.name}.")
    assert only("textbook_txt", books[0]).id != only("textbook_txt", books[1]).id


def test_numbers_of_other_collections_are_no_pmids(
    tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "w.parquet"
    page = {"id": ["12"], "url": ["https://en.wikipedia.org/wiki/x"], "title": ["x"], "text": ["y"]}
    parquet.write_table(arrow.table(page), file)
    documents = [only("wikipedia", file), only("fineweb", file)]
    documents.append(only("s2orc", write_rows("s.jsonl", [spans_row(externalids=None)])))
    assert [item.id for item in documents] == ["wikipedia-en-12", "fineweb-12", "s2orc-77"]
    assert not any(map(pmids, documents))


def test_parquet_of_the_web(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "000.parquet"
    columns = {"text": ["Bones."], "id": ["<urn:uuid:1>"], "dump": ["CC"], "url": ["http://x"],
               "language": ["en"], "token_count": [2], "score": [3.5]}  # fmt: skip
    parquet.write_table(arrow.table(columns), file)
    document = only("fineweb", file)
    assert (document.id, document.text, document.lang) == ("fineweb-<urn:uuid:1>", "Bones.", "en")
    columns = {"id": ["12"], "url": ["https://zh.wikipedia.org/wiki/x"], "title": ["锌"],
               "text": ["锌是金属。"]}  # fmt: skip
    parquet.write_table(arrow.table(columns), file)
    document = only("wikipedia", file)
    assert document.text == "锌是金属。"
    assert (document.lang, document.title) == ("zh", "锌")
    parquet.write_table(arrow.table(columns | {"text": [None]}), file)
    (fault,) = of("wikipedia", file)
    assert fault == Fault(f"{file} [row 0]", "field 'text': a string is expected, not null")


def test_a_plain_book_is_cut_between_paragraphs(tmp_path: Path) -> None:
    path = tmp_path / "Anatomy_Gray.txt"
    lines = [f"Paragraph {i}. " + "bone " * 400 for i in range(25)]
    path.write_bytes("\n".join(lines).encode() + b"\nbad \xff line\nlast\n")
    *found, fault, last = of("textbook_txt", path)
    assert fault == Fault(f"{path}:26", "not UTF-8 (byte 4 of the line)")
    documents = [item for item in (*found, last) if isinstance(item, Document)]
    assert "\n".join(item.text for item in documents) == "\n".join(
        [line.rstrip() for line in lines] + ["last"]
    )
    assert all(len(item.text) < 23_000 for item in documents)
    assert [item.id[:-8] for item in documents] == ["Anatomy_Gray-1-", "Anatomy_Gray-11-",
                                                    "Anatomy_Gray-21-"]  # fmt: skip
    assert documents[0].title == "Anatomy Gray"
    pieces = [item for index in range(2) for item in read(READERS["textbook_txt"],
              [Part(str(path), index, 2)])]  # fmt: skip
    assert sum(isinstance(item, Document) for item in pieces) == 3
    assert sum(isinstance(item, Fault) for item in pieces) == 1
