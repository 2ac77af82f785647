from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.data.readers import READERS
from medexpert.data.readers.abstracts import ABSTRACT_READERS, Abstract
from medexpert.data.readers.rows import Change, Drop, Fault, Item, Part, read
from medexpert.records import Document, UserError

GOOD = """###101
OBJECTIVE\tTo learn whether zinc helps ( a trial ) .
METHODS\tForty people took 5 mg , twice .
METHODS\tThe stay was measured .
RESULTS\tNothing changed ( p = 0.5 ) .

"""


def write(tmp_path: Path, text: str | bytes) -> Part:
    path = tmp_path / "train.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return Part(str(path))


def items(part: Part) -> list[Item]:
    return list(read(READERS["pubmed_rct"], [part]))


def test_sentences_become_sections(tmp_path: Path) -> None:
    part = write(tmp_path, GOOD)
    change, document = items(part)
    assert change == Change("101", "tokens_joined")
    assert isinstance(document, Document)
    assert document.ids == {"pmid": "101"}
    (abstract,) = ABSTRACT_READERS["pubmed_rct"](part)
    assert isinstance(abstract, Abstract)
    assert abstract.sections == (
        ("OBJECTIVE", "To learn whether zinc helps (a trial)."),
        ("METHODS", "Forty people took 5 mg, twice. The stay was measured."),
        ("RESULTS", "Nothing changed (p = 0.5)."),
    )


def test_masked_numbers_and_empty_abstracts_are_dropped(tmp_path: Path) -> None:
    found = items(write(tmp_path, "###7\nRESULTS\tIt fell by @.@ mg .\n\n###8\n\n"))
    assert found == [Drop("7", "numbers_replaced_by_@"), Drop("8", "no_abstract")]


def test_a_bad_line_is_the_fault_of_its_abstract_alone(tmp_path: Path) -> None:
    text = GOOD + "###102\nRESULTS no tab\n\n###103\nRESULT\tx\n\n###x\nRESULTS\tx\n\n"
    part = write(tmp_path, text.encode() + b"###104\nRESULTS\t\xff\n\n###101\nRESULTS\tx .\n")
    faults = [item for item in items(part) if isinstance(item, Fault)]
    assert [(fault.where.rpartition(":")[2], fault.what.split(";")[0]) for fault in faults] == [
        ("8", "a line LABEL<tab>sentence is expected"),
        ("10", "label 'RESULT'"),
        ("13", "PMID 'x' is no number"),
        ("17", "not UTF-8, or a line without end"),
        ("19", f"id '101' occurs twice (first at {part.path}:1)"),
    ]


@pytest.mark.parametrize("text", ["a,b\n" * 30, "RESULTS\tx\n###1\nRESULTS\tx\n", "\n"])
def test_another_format_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="this is no PubMed RCT file"):
        items(write(tmp_path, text))


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 3000), parts=st.integers(1, 4))
def test_parts_hold_every_abstract_once(tmp_path: Path, count: int, parts: int) -> None:
    path = write(tmp_path, "".join(f"###{i}\nRESULTS\tx\n\n" for i in range(count))).path
    found = [item for index in range(parts) for item in items(Part(path, index, parts))]
    assert sorted(int(item.id) for item in found if isinstance(item, Document)) == list(
        range(count)
    )
