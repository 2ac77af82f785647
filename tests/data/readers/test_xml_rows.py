from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.data.readers import xml_rows
from medexpert.data.readers.rows import Part
from medexpert.data.readers.xml_rows import parse_xml, text_in, xml_records
from medexpert.records import UserError

ROWS = xml_records("r", roots=("set",))


def write(tmp_path: Path, raw: bytes) -> str:
    path = tmp_path / "f.xml"
    path.write_bytes(raw)
    return str(path)


def texts(path: str, index: int = 0, parts: int = 1) -> list[str]:
    return [text_in(row["xml"]) for _, row in ROWS(Part(path, index, parts))]  # type: ignore[misc]


def test_records_come_one_by_one_with_their_line(tmp_path: Path) -> None:
    path = write(tmp_path, gzip.compress(b"<set>\n<r>a</r>\n<other/><r>b <i>c</i></r></set>"))
    assert [where for where, _ in ROWS(Part(path))] == [f"{path}:2", f"{path}:3"]  # type: ignore[misc]
    assert texts(path) == ["a", "b c"]


def bomb(inside: bytes) -> bytes:
    names = [b"<!ENTITY a0 'lollollol'>"]
    names += [b"<!ENTITY a%d '%s'>" % (i, b"&a%d;" % (i - 1) * 10) for i in range(1, 12)]
    return b"<!DOCTYPE set [" + b"".join(names) + b"]><set><r" + inside + b"</r></set>"


@pytest.mark.parametrize("inside", [b">&a11;", b" x='&a11;'>", b">&secret;"])
def test_no_entity_is_expanded(tmp_path: Path, inside: bytes) -> None:
    (tmp_path / "secret.txt").write_text("hidden")
    entity = f"<!ENTITY secret SYSTEM '{tmp_path}/secret.txt'>".encode()
    path = write(tmp_path, bomb(inside).replace(b"<!ENTITY a0", entity + b"<!ENTITY a0"))
    try:
        (text,) = texts(path)
    except UserError as error:
        text = str(error)
        assert "not valid XML" in text
    assert "lol" not in text
    assert "hidden" not in text


def test_named_characters_of_html_are_read_without_their_dtd(tmp_path: Path) -> None:
    path = write(tmp_path, b"<!DOCTYPE set SYSTEM 'x.dtd'><set><r>5&nbsp;&mu;g &lt; 6</r></set>")
    assert texts(path) == ["5 μg < 6"]


@pytest.mark.parametrize(
    ("raw", "match"),
    [
        (b"", "the file is empty"),
        (b"plain text", r"f\.xml:1: not valid XML"),
        (b"<html><r/></html>", r"the root element is <html>; allowed: set"),
        (b"<set><r>a</r><r>", r"not valid XML"),
        (b"<set><r>\xff</r></set>", r"not valid XML"),
        (b"<set>" + b"<d>" * 300 + b"</d>" * 300 + b"</set>", r"not valid XML"),
        (b"   ", r"no XML element|not valid XML"),
    ],
)
def test_broken_files(tmp_path: Path, raw: bytes, match: str) -> None:
    with pytest.raises(UserError, match=match):
        texts(write(tmp_path, raw))


def test_a_record_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xml_rows, "MAX_RECORD", 1 << 20)
    path = write(tmp_path, b"<set>" + b"<x>y</x>" * (1 << 19) + b"<r/></set>")
    with pytest.raises(UserError, match="one record is larger than 1 MiB"):
        texts(path)


def test_superscripts_blocks_and_removals() -> None:
    def text(inside: str, removed: Counter[str] | None = None) -> str:
        return text_in(parse_xml(f"<p>{inside}</p>".encode(), "here"), removed)

    assert text("10<sup>6</sup> cells, Ca<sup>2+</sup>, CO<sub>2</sub>") == "10^6 cells, Ca2+, CO2"
    assert text("one<list><list-item><p>two</p></list-item></list>three") == "onetwo three"
    removed: Counter[str] = Counter()
    assert text("a<xref ref-type='bibr'>1</xref> b<xref>Fig 1</xref>", removed) == "a bFig 1"
    assert removed == {"citation_removed": 1}
    with pytest.raises(UserError, match="here:1: not valid XML"):
        parse_xml(b"<p>", "here")


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(count=st.integers(1, 3200), parts=st.integers(1, 4))
def test_parts_hold_every_record_once(tmp_path: Path, count: int, parts: int) -> None:
    inside = b"".join(b"<r>%d</r>" % i for i in range(count))
    path = write(tmp_path, b"<set>" + inside + b"</set>")
    found = [text for index in range(parts) for text in texts(path, index, parts)]
    assert sorted(map(int, found)) == list(range(count))


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(raw=st.binary(max_size=40), at=st.integers(0, 60), cut=st.integers(0, 30))
def test_no_bytes_bring_a_traceback(tmp_path: Path, raw: bytes, at: int, cut: int) -> None:
    text = b"<?xml version='1.0'?><set><r>a &amp; <b>c</b></r><!-- x --><r/></set>"
    told = "f.xml"
    try:
        texts(write(tmp_path, text[:at] + raw + text[at + cut :]))
    except UserError as error:
        told = str(error)
    assert "f.xml" in told
