from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medexpert.data.readers import READERS
from medexpert.data.readers.documents import unwrap
from medexpert.data.readers.rows import Change, Drop, Fault, Item, Part, read
from medexpert.records import Document


def of(name: str, *paths: Path) -> list[Item]:
    return list(read(READERS[name], [Part(str(path)) for path in paths]))


def test_title_is_part_of_the_text_once(write_rows: Callable[..., Path]) -> None:
    rows = [
        {"id": "a", "title": "Gout", "text": "Crystals in a joint.", "license": "MIT"},
        {"id": "b", "title": "Gout", "text": "Gout\nAgain."},
        {"id": "c", "title": "Alone", "text": ""},
    ]
    first, second, third = of("documents", write_rows("d.jsonl", rows))
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert isinstance(third, Document)
    assert (first.text, first.licence) == ("Gout\nCrystals in a joint.", "MIT")
    assert second.text == "Gout\nAgain."
    assert third.text == ""


def test_entities_and_truncation_mark(write_rows: Callable[..., Path]) -> None:
    row = {"id": "a", "pmid": "9", "text": "p &lt; 0.05 here. (ABSTRACT TRUNCATED AT 250 WORDS)"}
    change, document = of("pubmed_abstracts", write_rows("d.jsonl.gz", [row]))
    assert change == Change("a", "entities_or_truncation_mark")
    assert isinstance(document, Document)
    assert document.text == "p < 0.05 here."
    assert document.ids == {"pmid": "9"}


def test_sections_become_labelled_lines(write_rows: Callable[..., Path]) -> None:
    row = {
        "id": "PMC7", "pmid": "", "title": "T &gt; U",
        "sections": [
            {"label": "Methods:", "text": "We looked."}, {"label": "", "text": "Then."},
            {"label": "Empty", "text": " "},
        ],
    }  # fmt: skip
    (document,) = of("structured_abstracts", write_rows("d.jsonl", [row]))
    assert isinstance(document, Document)
    assert document.text == "T > U\nMETHODS: We looked.\nThen."
    assert document.ids == {"pmcid": "PMC7"}


def test_a_section_must_be_an_object(write_rows: Callable[..., Path]) -> None:
    path = write_rows("d.jsonl", [{"id": "a", "sections": ["x"]}])
    (fault,) = of("structured_abstracts", path)
    assert fault == Fault(f"{path}:1", "sections[0]: an object is expected, not a string")


def test_unwrapping_joins_only_lines_broken_by_width(write_rows: Callable[..., Path]) -> None:
    wide = "字" * 30
    assert unwrap(f"<目录>卷一\n{wide}\n下\n\n短\n行") == f"卷一\n{wide}下\n\n短\n行"
    assert unwrap(f"{wide}。\n下") == f"{wide}。\n下"
    change, _ = of("tcm_classics", write_rows("d.jsonl", [{"id": "a", "text": "甲\\x乙"}]))
    assert change == Change("a", "unwrapped")


@pytest.mark.parametrize(
    ("name", "file", "count"),
    [
        ("documents", "general_en.jsonl.gz", 3187),
        ("documents", "general_zh.jsonl.gz", 2054),
        ("documents", "textbooks_openstax_medical.jsonl.gz", 356),
        ("documents", "zh_drug_monographs.jsonl.gz", 2441),
        ("pubmed_abstracts", "pubmed_abstracts.jsonl.gz", 16445),
        ("structured_abstracts", "pubmed_rct_abstracts.jsonl.gz", 3945),
        ("tcm_classics", "zh_tcm_classics.jsonl.gz", 1016),
        ("pmc_fulltext", "pmc_fulltext/part-000.jsonl.gz", 595),
    ],
)
def test_published_files_read_whole(real_data: Path, name: str, file: str, count: int) -> None:
    items = of(name, real_data / "stage1" / file)
    assert not [item for item in items if isinstance(item, Fault | Drop)]
    assert sum(isinstance(item, Document) for item in items) == count
