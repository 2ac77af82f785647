"""Bombs are refused before they fill the memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from medexpert.data.readers import streams
from medexpert.data.readers.rows import Part, jsonl
from medexpert.records import UserError


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_bomb_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "bomb.jsonl"
    path.write_bytes(pack(b" " * (100 << 20)))
    tracemalloc.start()
    with pytest.raises(
        UserError, match=r"bomb\.jsonl:1: this \w+ file inflates more than 200-fold"
    ):
        list(jsonl(Part(str(path))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 160 << 20


def test_well_packed_text_is_no_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RATIO_FROM", 1 << 20)
    path = tmp_path / "t.jsonl"
    path.write_bytes(gzip.compress(b"".join(b'{"id": "%d"}\n' % i for i in range(200_000))))
    assert sum(1 for _ in jsonl(Part(str(path)))) == 200_000


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    path = tmp_path / "two.gz"
    path.write_bytes(gzip.compress(b"one\ntw") + gzip.compress(b"o\nthree"))
    assert [line for _, line in streams.lines(path)] == [b"one", b"two", b"three"]


def test_lines_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHUNK", 4)
    path = tmp_path / "t"
    path.write_bytes(b"\n\nabcdefghij\nk\n\nlm")
    expected = [b"", b"", b"abcdefghij", b"k", b"", b"lm"]
    assert [line for _, line in streams.lines(path)] == expected
    monkeypatch.setattr(streams, "MAX_LINE", 9)
    expected = [b"", b"", None, b"k", b"", b"lm"]  # type: ignore[list-item]
    assert [line for _, line in streams.lines(path)] == expected


def test_a_stream_is_read_in_pieces_and_tells_a_large_record(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_bytes(b"x" * 100)
    with streams.open_stream(path) as stream:
        with pytest.raises(ValueError, match="in pieces of bounded size"):
            stream.read()
        stream.mark(10)
        with pytest.raises(UserError, match="one record is larger than 0 MiB"):
            stream.read(11)


def test_urls_of_every_kind_of_file(tmp_path: Path) -> None:
    import fsspec

    from medexpert.data.readers.archives import members
    from medexpert.data.readers.tables import parquet_rows
    from medexpert.data.readers.xml_rows import xml_records

    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"a": [1]}), tmp_path / "f.parquet")
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("x.xml", "<set><r/></set>")
    for name in ("f.parquet", "f.zip"):
        with fsspec.open(f"memory://kinds/{name}", "wb") as handle:
            handle.write((tmp_path / name).read_bytes())
    assert len(list(parquet_rows(("a",))(Part("memory://kinds/f.parquet")))) == 1
    assert list(members("memory://kinds/f.zip", (".xml",))) == [("x.xml", b"<set><r/></set>")]
    inside = Part(f"zip://x.xml::{tmp_path}/f.zip")
    assert len(list(xml_records("r", roots=("set",))(inside))) == 1
    with pytest.raises(UserError, match=r"no such file|cannot be opened"):
        list(jsonl(Part(f"zip://absent::{tmp_path}/f.zip")))
