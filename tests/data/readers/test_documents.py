from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medexpert.data.readers.documents import (
    documents,
    pubmed_abstracts,
    structured_abstracts,
    tcm_classics,
    unwrap,
)
from medexpert.data.readers.rows import Change
from medexpert.records import Document, UserError


def test_title_is_part_of_the_text_once(write_rows: Callable[..., Path]) -> None:
    rows = [
        {"id": "a", "title": "Gout", "text": "Crystals in a joint.", "license": "MIT"},
        {"id": "b", "title": "Gout", "text": "Gout\nAgain."},
        {"id": "c", "title": "Alone", "text": ""},
    ]
    first, second, third = documents([write_rows("d.jsonl", rows)])
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert isinstance(third, Document)
    assert (first.text, first.licence) == ("Gout\nCrystals in a joint.", "MIT")
    assert second.text == "Gout\nAgain."
    assert third.text == ""


def test_entities_and_truncation_mark(write_rows: Callable[..., Path]) -> None:
    row = {"id": "a", "pmid": "9", "text": "p &lt; 0.05 here. (ABSTRACT TRUNCATED AT 250 WORDS)"}
    change, document = pubmed_abstracts([write_rows("d.jsonl.gz", [row])])
    assert change == Change("a", "entities_or_truncation_mark")
    assert isinstance(document, Document)
    assert document.text == "p < 0.05 here."
    assert document.ids == {"pmid": "9"}


def test_sections_become_labelled_lines(write_rows: Callable[..., Path]) -> None:
    row = {
        "id": "PMC7", "pmid": "", "title": "T",
        "sections": [
            {"label": "Methods:", "text": "We looked."}, {"label": "", "text": "Then."},
            {"label": "Empty", "text": " "},
        ],
    }  # fmt: skip
    (document,) = structured_abstracts([write_rows("d.jsonl", [row])])
    assert isinstance(document, Document)
    assert document.text == "T\nMETHODS: We looked.\nThen."
    assert document.ids == {"pmcid": "PMC7"}


def test_a_section_must_be_an_object(write_rows: Callable[..., Path]) -> None:
    path = write_rows("d.jsonl", [{"id": "a", "sections": ["x"]}])
    with pytest.raises(UserError, match=r":1: sections\[0\]: an object is expected, not a string"):
        list(structured_abstracts([path]))


def test_unwrapping_joins_only_lines_broken_by_width(write_rows: Callable[..., Path]) -> None:
    wide = "字" * 30
    assert unwrap(f"<目录>卷一\n{wide}\n下\n\n短\n行") == f"卷一\n{wide}下\n\n短\n行"
    assert unwrap(f"{wide}。\n下") == f"{wide}。\n下"
    change, _ = tcm_classics([write_rows("d.jsonl", [{"id": "a", "text": "甲\\x乙"}])])
    assert change == Change("a", "unwrapped")
