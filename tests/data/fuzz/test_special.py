"""Bombs, endless lines, things that are no files: each with a bound on memory and time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openpyxl")
pytest.importorskip("docx")

import schemas
from probe import Told, probe

from medexpert.data.audit import audit
from medexpert.data.readers import READERS
from medexpert.data.readers.local_files import files
from medexpert.data.readers.rows import Drop, Fault, Part, read
from medexpert.data.show import show
from medexpert.data.stats import stats
from medexpert.records import UserError

SECONDS = 10.0
ROW = '{"id": "%s", "text": "Warm tea."}\n'
BILLION = schemas.MEDLINE.replace(
    '<!DOCTYPE PubmedArticleSet SYSTEM "http://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">',
    "<!DOCTYPE PubmedArticleSet [%s]>",
)


def items(name: str, *paths: Path | str) -> list[Any]:
    return list(read(READERS[name], [Part(str(path)) for path in paths]))


def faults(name: str, path: Path | str) -> list[Fault]:
    return [item for item in items(name, path) if isinstance(item, Fault)]


def calm(told: Told, kind: str) -> None:
    """The file was told as `kind`, within the bounds."""
    assert told.kind == kind, told
    assert told.seconds < SECONDS, told


# -- endless lines and bombs ---------------------------------------------------------------------


def sparse(path: Path, start: bytes, end: bytes) -> Path:
    """A file with a hole of zeros between two texts; it takes no room on the disk."""
    with path.open("wb") as handle:
        handle.write(start)
        handle.seek(1 << 30, os.SEEK_CUR)
        handle.write(end)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "name", "file", "start", "end", "kind"),
    [
        ("reader", "documents", "f.jsonl", '{"id": "a", "text": "', '"}\n' + ROW % "b", "faults"),
        ("reader", "alpaca", "f.json", '[{"instruction": "', '"}]', "refused"),
        ("reader", "cmmlu", "f.csv", ",Question,A,B,C,D,Answer\n0,", "\n1,q,a,b,c,d,A\n", "faults"),
        ("reader", "medline", "f.xml", "<PubmedArticleSet><PubmedArticle>", "", "refused"),
        ("reader", "pubmed_rct", "f.txt", "###1\nRESULTS\t", "\n###2\nRESULTS\tx .\n", "faults"),
        ("tool", "opened", "f.txt", "", "\nend\n", "faults"),
        ("tool", "stats", "f.jsonl", '{"id": "', '"}\n' + ROW % "b", "ok"),
    ],
)
def test_a_line_of_a_gibibyte(
    tmp_path: Path, family: str, name: str, file: str, start: str, end: str, kind: str
) -> None:
    path = sparse(tmp_path / file, start.encode(), end.encode())
    told = probe(family, name, path)
    calm(told, kind)
    assert told.grown_mib < 400
    if kind == "faults" and family == "reader":
        assert told.counts["faults"] == 1
        assert told.counts.get("records") or told.counts.get("drops")


@pytest.mark.slow
def test_a_users_text_of_a_gibibyte_is_cut_into_pieces(tmp_path: Path) -> None:
    path = tmp_path / "n.txt"
    with path.open("wb") as handle:
        for _ in range(1024):
            handle.write(b"warm tea " * 116_509)  # 1 MiB and a bit, no line end
    told = probe("reader", "local-text", path, timeout=120)
    assert told.kind == "ok", told
    assert told.counts["records"] > 200
    assert told.grown_mib < 400


@pytest.mark.parametrize(
    ("pack", "family", "name"),
    [
        (gzip.compress, "reader", "documents"), (bz2.compress, "reader", "local-text"),
        (lzma.compress, "tool", "stats"), (gzip.compress, "tool", "audit"),
    ],
)  # fmt: skip
def test_a_packed_bomb(
    tmp_path: Path, pack: Callable[[bytes], bytes], family: str, name: str
) -> None:
    piece = pack(b" " * (64 << 20))
    path = tmp_path / "bomb.jsonl.gz"
    path.write_bytes(piece * 16)  # members one after the other: a GiB
    told = probe(family, name, path)
    calm(told, "faults" if name == "local-text" else "refused")
    assert told.grown_mib < 400
    assert "inflates more than 200-fold" in told.messages[-1]


def zip_of(path: Path, members: dict[str, bytes], copies: int = 1) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            for copy in range(copies):
                archive.writestr(f"{copy}-{name}" if copy else name, data)
    return path


@pytest.mark.parametrize(
    ("name", "file", "member", "kind"),
    [
        ("medquad", "b.zip", "a.xml", "refused"),
        ("pmc_oa", "b.zip", "a.xml", "refused"),
        ("medicationqa", "b.xlsx", "xl/worksheets/sheet1.xml", "refused"),
        ("local-text", "b.docx", "word/document.xml", "faults"),
    ],
)
def test_a_zip_bomb(tmp_path: Path, name: str, file: str, member: str, kind: str) -> None:
    path = zip_of(tmp_path / file, {member: b" " * (60 << 20)}, 12)
    told = probe("reader", name, path)
    calm(told, kind)
    assert told.grown_mib < 400


def test_a_zip_that_lies_about_its_sizes(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "b.zip", {"a.xml": b" " * (80 << 20)})
    raw = bytearray(path.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    raw[at + 24 : at + 28] = (10).to_bytes(4, "little")  # the size unpacked, in the directory
    path.write_bytes(raw)
    told = probe("reader", "pmc_oa", path)
    assert told.kind in ("refused", "faults"), told
    assert told.grown_mib < 400


@pytest.mark.parametrize(
    "dtd",
    [
        '<!ENTITY a "ha">'
        + "".join(
            f'<!ENTITY {b} "{f"&{a};" * 10}">'
            for a, b in zip("abcdefghi", "bcdefghix", strict=True)
        ),
        '<!ENTITY x SYSTEM "file:///etc/passwd">',
        "<!ENTITY % p \"<!ENTITY x 'boom'>\"> %p;",
        '<!ENTITY % p SYSTEM "http://127.0.0.1:9/evil.dtd"> %p; <!ENTITY x "boom">',
        "".join(f'<!ENTITY % p{n} "{f"%p{n - 1};" * 10}">' for n in range(1, 9))
        + '<!ENTITY x "boom"> %p8;',
        '<!ENTITY x "&x;">',
    ],
    ids=["billion-laughs", "outside-file", "parameter", "outside-dtd", "parameter-bomb", "itself"],
)
def test_entities_are_not_expanded(tmp_path: Path, dtd: str) -> None:
    citation = schemas.CITATION.format(5).replace("The stay", "The &x; stay")
    path = tmp_path / "p.xml"
    path.write_text((BILLION % dtd).format(citation), encoding="utf-8")
    told = probe("reader", "medline", path)
    assert told.kind in ("ok", "faults", "refused"), told
    assert told.seconds < SECONDS
    assert told.grown_mib < 100
    try:
        found = items("medline", path)
    except UserError:
        return
    texts = "".join(getattr(item, "text", "") for item in found)
    assert "root:" not in texts
    assert "haha" not in texts
    assert "boom" not in texts


@pytest.mark.slow
@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize(
    ("family", "name", "file"),
    [
        ("reader", "documents", "f.jsonl"), ("reader", "alpaca", "f.json"),
        ("reader", "bioasq", "f.json"), ("reader", "local-text", "f.json"),
        ("benchmark", "pubmedqa", "f.json"), ("tool", "stats", "f.json"),
        ("tool", "opened", "f.json"),
    ],
)  # fmt: skip
def test_json_nested_ten_thousand_deep(
    tmp_path: Path, family: str, name: str, file: str, opening: str
) -> None:
    path = tmp_path / file
    closing = "]" if opening == "[" else "}"
    deep = opening * 10_000 + "1" + closing * 10_000
    inside = f'[{{"questions": {deep}, "id": "a"}}]'
    path.write_text(inside if file == "f.json" else deep + "\n")
    told = probe(family, name, path)
    assert told.kind in ("faults", "refused") or name == "stats", told
    assert told.kind != "failure", told
    assert told.grown_mib < 100


# -- names that lead elsewhere ---------------------------------------------------------------------


def tar_of(path: Path, *entries: tuple[str, bytes | None, str]) -> Path:
    """An archive of (name, bytes or None, target of a link)."""
    with tarfile.open(path, "w") as archive:
        for name, data, link in entries:
            info = tarfile.TarInfo(name)
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
                archive.addfile(info)
            else:
                info.size = len(data or b"")
                archive.addfile(info, io.BytesIO(data or b""))
    return path


@pytest.mark.parametrize(
    "name", ["../../x.xml", "/tmp/x.xml", "a/../../../x.xml", "..\\x.xml", "C:\\x.xml"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_no_member_leads_out_of_its_archive(tmp_path: Path, name: str, kind: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / f"a.{kind}"
    article = schemas.JATS.format(7).encode()
    if kind == "zip":
        zip_of(path, {name: article})
    else:
        tar_of(path, (name, article, ""))
    with pytest.raises(UserError, match="points outside the archive"):
        items("pmc_oa", path)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [path.name]


def test_links_in_a_tar_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.xml"
    secret.write_text(schemas.JATS.format(9), encoding="utf-8")
    article = schemas.JATS.format(7).encode()
    path = tar_of(tmp_path / "a.tar", ("l.xml", None, str(secret)), ("b.xml", article, ""))
    assert [item.id for item in items("pmc_oa", path) if hasattr(item, "text")] == ["PMC7"]


def test_links_in_a_folder_may_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "notes"
    folder.mkdir()
    (folder / "note.txt").write_text("Warm tea.")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match="leads out of the folder"):
        files(str(folder))
    (folder / "link.txt").unlink()
    (folder / "loop").symlink_to(folder)
    reasons = [getattr(item, "reason", "") for item in items("local-text", *files(str(folder)))]
    assert reasons == ["symbolic_link", ""]


# -- things that are no files ----------------------------------------------------------------------

READ = ("documents", "alpaca", "medline", "cmexam", "wikipedia", "pmc_oa", "medquad", "headqa")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_special_files_do_not_hang(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.jsonl"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        monkeypatch.chdir(tmp_path)  # the address of a socket is short
        with socket.socket(socket.AF_UNIX) as held:
            held.bind("f.jsonl")
    for name in READ:
        with pytest.raises(UserError, match=f"{path}: cannot be opened .not a regular file"):
            items(name, path)
    for run in (
        stats,
        lambda one: list(show(one)),
        lambda one: audit([one], [f"file:{one}"], "", say=print),
    ):
        with pytest.raises(UserError, match="not a regular file but a pipe, socket or device"):
            run(str(path))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_special_files_among_a_users_own_are_counted(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f.txt"
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert items("local-text", path) == [Drop("f.txt", "not_a_file")]


@pytest.mark.parametrize("name", sorted(set(READERS) - {"local-text"}))
def test_folders_missing_and_empty_files(tmp_path: Path, name: str) -> None:
    file = tmp_path / ("answer.csv" if name == "cmedqa2" else "f.json")
    with pytest.raises(UserError, match="no such file"):
        items(name, file)
    file.mkdir()
    with pytest.raises(UserError, match=str(tmp_path)):
        items(name, file)
    file.rmdir()
    file.write_bytes(b"")
    with pytest.raises(UserError, match=str(tmp_path)):
        items(name, file)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(ROW % "a")
    path.chmod(0)
    with pytest.raises(UserError, match="Permission denied"):
        items("documents", path)


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Warm tea.")
    (tmp_path / "b.txt").write_text("Cold tea.")
    found = files(str(tmp_path))
    (tmp_path / "b.txt").unlink()
    with pytest.raises(UserError, match=r"b\.txt: no such file"):
        items("local-text", *found)
