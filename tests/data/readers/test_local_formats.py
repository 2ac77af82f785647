# ruff: noqa: E501 (a pattern or a planted text reads best unbroken)
"""HTML, PDF and docx of a user's folder: small files written here, invented content."""

from __future__ import annotations

import io
import logging
import sys
import zipfile
from pathlib import Path

import pytest

from medexpert.data.readers import local_formats, local_text
from medexpert.data.readers.local import READERS, files
from medexpert.data.readers.local_formats import joined_lines
from medexpert.data.readers.rows import Drop, Fault, Item, Part, read
from medexpert.records import Document, UserError

PAGE = """<!DOCTYPE html><html><head>{meta}<title>{title}</title><script>var x = "tracker";</script></head>
<body><nav><a href="/">Start</a> <a href="/c">Contact</a></nav><div class="cookie">Accept cookies</div>
<main><article><h1>{title}</h1><p>{one}</p><p>{two}</p>
<table><tr><th>Dose</th><th>Weight</th></tr><tr><td>5 mg</td><td>under 40 kg</td></tr></table>
</article></main><footer>All rights reserved</footer></body></html>"""
ONE = (
    "Adults with the invented fever take five milligrams in the morning for seven days, and children "
    "take half of it, as the table below shows, while they drink enough water each day."
)
TWO = (
    "Stop the medicine when a rash appears, and see a doctor on the same day. Nobody should take more "
    "than ten milligrams a day, whatever the weight, and nobody should take it in pregnancy."
)
CHINESE = (
    "成人虚构热患者每日早晨服用五毫克，连续服用七天；儿童减半，如下表所示，同时注意每天饮用足够的水，并观察体温变化。"
    * 2
)


def items(path: Path) -> list[Item]:
    return list(read(READERS["local-text"], [Part(name) for name in files(str(path))]))


def pdf(*pages: list[str], encrypt: str = "") -> bytes:
    """A PDF 1.4 with one text column of Helvetica a page, its cross-reference table in order."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        shown = " ".join(f"({line}) Tj 0 -14 Td" for line in lines)
        stream = f"BT /F1 11 Tf 60 720 Td {shown} ET"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] "
            f"/Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append("<< /Title (Invented guideline) >>")
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{body}\nendobj\n".encode()
    start = len(data)
    data += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    data += b"".join(f"{place:010d} 00000 n \n".encode() for place in places)
    trailer = f"/Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R {encrypt}"
    return data + f"trailer\n<< {trailer} >>\nstartxref\n{start}\n%%EOF\n".encode()


def docx_bytes() -> bytes:
    import docx

    document = docx.Document()
    document.core_properties.title = "Invented ward rules"
    document.add_heading("Ward rules", 1)
    document.add_paragraph("Wash your hands before the round.")
    table = document.add_table(2, 2)
    for cell, text in zip(
        (c for row in table.rows for c in row.cells), ("Drug", "Dose", "A", "5 mg"), strict=True
    ):
        cell.text = text
    document.add_paragraph("After the table.")
    handle = io.BytesIO()
    document.save(handle)
    return handle.getvalue()


def changed(data: bytes, name: str, content: bytes) -> bytes:
    """The zip file with one member replaced."""
    handle = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as old,
        zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            new.writestr(member.filename, content if member.filename == name else old.read(member))
    return handle.getvalue()


@pytest.mark.parametrize(
    ("meta", "encoding", "one"),
    [
        ('<meta charset="utf-8">', "utf-8", ONE),
        ('<meta charset="gb2312">', "gb18030", CHINESE),
        ('<meta http-equiv="Content-Type" content="text/html; charset=big5">', "big5",
         "成人患者每日早晨服用五毫克，連續服用七天；兒童減半，同時注意每天飲用足夠的水，並觀察體溫變化。" * 2),
        ('<meta charset="no-such-thing">', "utf-8", CHINESE),
        ("", "utf-16", ONE),
        ("", "cp1252", ONE + " “Naïve” café."),
    ],
)  # fmt: skip
def test_a_page_gives_its_main_text(tmp_path: Path, meta: str, encoding: str, one: str) -> None:
    page = PAGE.format(meta=meta, title="Fever guide", one=one, two=TWO)
    (tmp_path / "a.html").write_bytes(page.encode(encoding))
    (found,) = items(tmp_path / "a.html")
    assert isinstance(found, Document)
    assert one in found.text
    assert TWO in found.text
    assert "5 mg" in found.text
    assert found.title == "Fever guide"
    for noise in ("Accept cookies", "tracker", "Contact"):
        assert noise not in found.text


def test_pages_without_text_deep_pages_and_addresses(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<html><body></body></html>")
    (tmp_path / "b.html").write_text("<div>" * 10_000 + "x")
    (tmp_path / "c.html").write_text("http://localhost:9/page")  # a text, never fetched
    first, second, third = items(tmp_path)
    assert first == Drop("a.html", "no_text")
    assert isinstance(second, Fault)
    assert "nested more than 2000 deep" in second.what
    assert isinstance(third, Drop | Fault)


def test_a_page_over_the_bound_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_formats, "MAX_HTML", 100)
    (tmp_path / "a.html").write_text("<p>" + "x" * 200)
    (found,) = items(tmp_path / "a.html")
    assert isinstance(found, Fault)
    assert "larger than" in found.what


def test_a_pdf_is_read_page_by_page(tmp_path: Path) -> None:
    first = [
        "The invented fever is treated with five",
        "milligrams in the morning for seven days.",
        "Dose: 5 mg",
    ]
    (tmp_path / "a.pdf").write_bytes(pdf(first, ["Second page."]))
    (found,) = items(tmp_path / "a.pdf")
    assert isinstance(found, Document)
    assert found.title == "Invented guideline"
    assert found.text == (
        "The invented fever is treated with five milligrams in the morning for seven days.\nDose: 5 mg"
        "\n\nSecond page."
    )


def test_a_pdf_of_many_pages_is_cut_at_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_text, "MAX_TEXT", 5000)
    monkeypatch.setattr(local_text, "_BACK", 500)
    (tmp_path / "a.pdf").write_bytes(
        pdf(*([f"Page {n} of a long invented book."] for n in range(3000)))
    )
    found = [item for item in items(tmp_path / "a.pdf") if isinstance(item, Document)]
    assert len(found) > 10
    text = "\n\n".join(item.text for item in found)
    assert [f"Page {n} of" in text for n in range(3000)] == [True] * 3000


def test_pdfs_that_cannot_be_used(tmp_path: Path) -> None:
    good = pdf(["One page."])
    locked = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{'41' * 32}> /U <{'42' * 32}> /P -4 >> /ID [<00> <00>]"
    (tmp_path / "a.pdf").write_bytes(pdf(["One page."], encrypt=locked))
    (tmp_path / "b.pdf").write_bytes(good[:60])
    (tmp_path / "c.pdf").write_bytes(pdf([]))
    (tmp_path / "d.pdf").write_bytes(b"no pdf at all")
    encrypted, cut, blank, other = items(tmp_path)
    assert isinstance(encrypted, Fault)
    assert encrypted.where.endswith("a.pdf")
    assert "encrypted" in encrypted.what
    assert isinstance(cut, Fault)
    assert "not a readable PDF" in cut.what
    assert blank == Drop("c.pdf", "no_text")
    assert isinstance(other, Fault)


def test_lines_broken_by_width_are_joined_and_others_stay() -> None:
    text = (
        "A line that is about as wide as its column goes\r\non in the next one, also a word that is hyphen\ufffe\r\n"
        "ated at the end of it. This one ends a sentence here.\r\n- item one\r\n- item two\r\n"
        "这一行几乎与栏目同宽因此下一行与它相接这一行几乎与栏目同宽因此\r\n下一行没有空格。"
    )
    assert joined_lines(text) == (
        "A line that is about as wide as its column goes on in the next one, also a word that is hyphenated at the "
        "end of it. This one ends a sentence here.\n- item one\n- item two\n"
        "这一行几乎与栏目同宽因此下一行与它相接这一行几乎与栏目同宽因此\n下一行没有空格。"
    )


def test_docx(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(docx_bytes())
    assert items(tmp_path / "a.docx") == [
        Document(
            "a.docx",
            "Ward rules\nWash your hands before the round.\nDrug | Dose\nA | 5 mg\nAfter the table.",
            "",
            "",
            "Invented ward rules",
        )
    ]


def test_docx_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_formats, "MAX_DOCX_XML", 1 << 20)
    good = docx_bytes()
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        body = archive.read("word/document.xml")
    start = body.index(b"<w:document")
    entity = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    contents = {
        "a": b"\xd0\xcf\x11\xe0" + bytes(600),
        "b": changed(good, "word/document.xml", body[:start] + entity + body[start:]),
        "c": changed(good, "word/document.xml", body + b" " * (2 << 20)),
        "d": good[:-200],
        "e": changed(good, "word/document.xml", b"<w:document"),
        "f": b"no zip",
    }
    for name, data in contents.items():
        (tmp_path / f"{name}.docx").write_bytes(data)
    found = items(tmp_path)
    assert all(isinstance(item, Fault) for item in found)
    told = [item.what for item in found if isinstance(item, Fault)]
    assert "encrypted, or a .doc" in told[0]
    assert "declares a DTD" in told[1]
    assert "larger than 1 MiB" in told[2]
    assert "not a readable" in told[3]
    assert "not a readable docx" in told[4]
    assert "not a readable" in told[5]


def test_a_docx_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    handle = io.BytesIO()
    with zipfile.ZipFile(handle, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(9):
            with archive.open(f"word/{number}.bin", "w") as member:
                for _ in range(64):
                    member.write(bytes(1 << 20))
    (tmp_path / "a.docx").write_bytes(handle.getvalue())
    (found,) = items(tmp_path / "a.docx")
    assert isinstance(found, Fault)
    assert "unpacks to more than 512 MiB" in found.what


@pytest.mark.parametrize(
    ("suffix", "module"), [("pdf", "pypdfium2"), ("html", "trafilatura"), ("docx", "docx")]
)
def test_an_absent_library_is_told_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, module: str
) -> None:
    (tmp_path / f"a.{suffix}").write_text("x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"reading .* needs .*: pip install 'medexpert\[docs\]'"):
        items(tmp_path)


def test_an_absent_encoding_library_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_bytes("déjà vu à l'hôpital".encode("cp1252"))
    monkeypatch.setitem(sys.modules, "charset_normalizer", None)
    with pytest.raises(UserError, match="its encoding is not UTF-8; to find it out: pip install"):
        items(tmp_path)


def test_nothing_that_is_read_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    page = PAGE.format(meta="", title="Zyxwv", one=ONE, two="Zyxwv was here, " + TWO)
    (tmp_path / "a.html").write_text(page)
    (tmp_path / "b.docx").write_bytes(docx_bytes())
    (tmp_path / "c.pdf").write_bytes(pdf(["Zyxwv"]))
    (tmp_path / "d.txt").write_bytes("Zyxwv déjà".encode("cp1252"))
    items(tmp_path)
    assert "Zyxwv" not in caplog.text
    assert "Wash your hands" not in caplog.text
