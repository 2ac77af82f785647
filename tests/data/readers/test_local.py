# ruff: noqa: E501 (a pattern or a planted text reads best unbroken)
"""The reader of a user's own folder; every text is invented."""

from __future__ import annotations

import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medexpert.data.readers import local, local_text
from medexpert.data.readers.local import READERS, files
from medexpert.data.readers.rows import Change, Drop, Fault, Item, Part, read
from medexpert.records import Document, UserError

ENGLISH = "The patient took 12-15 mg of invented drug daily. The swelling went down within a week."
CHINESE = "患者服用虚构药物每日两次，一周后肿胀消退，疼痛减轻。医生建议继续治疗两周，并复查血常规与肝功能。"
TAIWAN = (
    "病患服用虛構藥物每日兩次，一週後腫脹消退，疼痛減輕。醫師建議繼續治療兩週，並複查血液與肝功能。"
)
FRENCH = "Le médicament inventé a été pris deux fois par jour ; l’œdème a cessé après une semaine à l’hôpital."
PUBMED = """<?xml version="1.0"?>
<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2024//EN" "x.dtd">
<PubmedArticleSet><PubmedArticle><MedlineCitation Status="MEDLINE"><PMID Version="1">99000001</PMID>
<Article><ArticleTitle>An invented trial.</ArticleTitle><Abstract>
<AbstractText Label="RESULTS">It helped &amp; did no harm.</AbstractText></Abstract>
<Language>eng</Language></Article></MedlineCitation></PubmedArticle></PubmedArticleSet>"""


def items(path: Path | str) -> list[Item]:
    return list(read(READERS["local-text"], [Part(name) for name in files(str(path))]))


def documents(path: Path | str) -> dict[str, Document]:
    return {item.id: item for item in items(path) if isinstance(item, Document)}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(**contents: bytes) -> Path:
        for name, data in contents.items():
            path = tmp_path / "notes" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path / "notes"

    return make


def test_a_folder_is_read_in_the_order_of_its_paths_with_paths_inside_it_as_ids(
    folder: Callable[..., Path],
) -> None:
    root = folder(
        b_dot_txt=b"second", a__z_dot_md=b"# Deep heading\n\nfirst", a_dot_txt=b"third\r\nline"
    )
    assert [name.removeprefix(f"{root}/./") for name in files(str(root))] == [
        "a.txt",
        "a/z.md",
        "b.txt",
    ]
    found = documents(root)
    assert list(found) == ["a.txt", "a/z.md", "b.txt"]
    assert found["a/z.md"].title == "Deep heading"
    assert found["a.txt"] == Document("a.txt", "third\nline", "", "")
    assert found["a.txt"].lang == ""  # found by the filter


def test_what_cannot_be_used_is_a_drop_with_its_reason(folder: Callable[..., Path]) -> None:
    root = folder(
        _dot_git__config=b"x", _dot_DS_Store=b"x", scan_dot_png=b"\x89PNG", old_dot_doc=b"\xd0\xcf",
        blank_dot_txt=b" \n ", nothing_dot_txt=b"", README=b"no ending", other_dot_xml=b"<html/>",
    )  # fmt: skip
    (root / "~$lock.docx").write_bytes(b"x")
    os.mkfifo(root / "pipe.txt")  # opening it would wait for ever
    (root / "same.txt").symlink_to(root / "blank.txt")
    drops = {item.id: item.reason for item in items(root) if isinstance(item, Drop)}
    assert drops == {
        ".git": "hidden", ".DS_Store": "hidden", "~$lock.docx": "hidden", "scan.png": "unknown_kind_png",
        "old.doc": "unknown_kind_doc", "blank.txt": "no_text", "nothing.txt": "empty",
        "README": "unknown_kind", "other.xml": "unknown_kind_of_xml", "pipe.txt": "not_a_file",
        "same.txt": "symbolic_link",
    }  # fmt: skip
    assert len(items(root)) == len(files(str(root)))


def test_a_link_that_leaves_the_folder_is_refused(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    root = folder(a_dot_txt=b"inside")
    (tmp_path / "secret.txt").write_text("outside")
    (root / "b.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match=r"b\.txt: leads out of the folder \(a symbolic link\)"):
        files(str(root))
    (root / "b.txt").unlink()
    (root / "up").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of the folder"):
        files(str(root))


def test_a_path_cannot_climb_out(folder: Callable[..., Path], tmp_path: Path) -> None:
    root = folder(a_dot_txt=b"inside")
    (tmp_path / "secret.txt").write_text("outside")
    (root / "up").symlink_to(tmp_path)
    for inner in ("../secret.txt", "up/secret.txt"):  # the list is checked, and each file again
        with pytest.raises(UserError, match="leads out of the folder"):
            list(read(READERS["local-text"], [Part(f"{root}/./{inner}")]))


def test_missing_and_empty_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        files(str(tmp_path / "none"))
    (tmp_path / "void").mkdir()
    with pytest.raises(UserError, match="the folder holds no file"):
        files(str(tmp_path / "void"))
    with pytest.raises(UserError, match="no such file"):
        list(read(READERS["local-text"], [Part(str(tmp_path / "gone.txt"))]))


def test_one_file_may_be_named_even_when_hidden(folder: Callable[..., Path]) -> None:
    root = folder(_dot_notes_dot_txt=b"kept")
    assert documents(root / ".notes.txt")[".notes.txt"].text == "kept"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (ENGLISH, "ascii"), (CHINESE, "utf-8"), (CHINESE, "utf-8-sig"), (CHINESE, "gb18030"),
        (CHINESE, "gbk"), (TAIWAN, "big5"), (CHINESE, "utf-16"), (ENGLISH, "utf-16-le"),
        (ENGLISH, "utf-16-be"), (CHINESE + "\n" + CHINESE, "utf-16-le"), (FRENCH, "cp1252"),
        (FRENCH.replace("’", "'").replace("œ", "oe"), "latin-1"), (ENGLISH, "utf-32"),
    ],
)  # fmt: skip
def test_encodings_are_found(folder: Callable[..., Path], text: str, encoding: str) -> None:
    root = folder(a_dot_txt=text.encode(encoding))
    assert documents(root)["a.txt"].text == text


def test_a_late_foreign_character_is_still_found(folder: Callable[..., Path]) -> None:
    text = ENGLISH * 30_000 + "\n" + CHINESE  # over two chunks of plain ASCII come first
    found = documents(folder(a_dot_txt=text.encode("gb18030")))
    assert found["a.txt"].text == text


def test_a_few_broken_bytes_leave_utf8_and_are_counted(folder: Callable[..., Path]) -> None:
    data = (CHINESE * 3).encode() + b"\xff\x00 end"
    found = items(folder(a_dot_txt=data))
    assert found[:-1] == [
        Change("a.txt", "broken_bytes_replaced"),
        Change("a.txt", "nul_bytes_removed"),
    ]
    assert isinstance(found[-1], Document)
    assert found[-1].text == CHINESE * 3 + "\ufffd end"


def test_binary_data_under_the_name_of_a_text_is_a_fault(folder: Callable[..., Path]) -> None:
    (found,) = items(folder(a_dot_txt=bytes(range(1, 32)) * 50))
    assert isinstance(found, Fault)
    assert "not a text" in found.what


def test_a_long_line_is_cut_near_the_bound_and_counted(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_text, "MAX_TEXT", 1000)
    monkeypatch.setattr(local_text, "_BACK", 200)
    root = folder(a_dot_txt=(ENGLISH + " ").encode() * 40)
    found = items(root)
    texts = [item.text for item in found if isinstance(item, Document)]
    assert len(texts) == 4
    assert all(text.endswith(("week.", "daily.")) for text in texts)
    assert " ".join(texts).split() == ((ENGLISH + " ") * 40).split()
    assert [item.id for item in found if isinstance(item, Document)] == [
        f"a.txt#{n}" for n in (1, 2, 3, 4)
    ]
    assert sum(item.what == "long_text_cut" for item in found if isinstance(item, Change)) == 3


@given(st.text(max_size=400), st.integers(1, 60), st.integers(1, 50))
def test_pieces_are_bounded_and_lose_nothing(text: str, limit: int, chunk: int) -> None:
    chunks = [text[i : i + chunk] for i in range(0, len(text), chunk)]
    found = list(local_text.pieces(chunks, limit))
    assert "".join(found) == text
    assert all(0 < len(piece) <= limit for piece in found)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz"])
def test_rows_of_json_find_their_text_field(tmp_path: Path, name: str) -> None:
    rows = [
        {"text": "first", "title": "T", "pmid": "99000001"},
        {"Content": "second", "id": "x"},
        {"body": None},
        {"note": 5},
        {"summary": "none of the names"},
    ]
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = items(tmp_path / name)
    assert found[0] == Document(f"{name}#1", "first", "", "", "T", ids={"pmid": "99000001"})
    assert isinstance(found[1], Document)
    assert found[1].text == "second"
    assert found[2] == Drop(f"{name}#3", "no_text")
    assert isinstance(found[3], Fault)
    assert "field 'note': a string is expected, not a number" in found[3].what
    assert isinstance(found[4], Fault)
    assert found[4].where.endswith(f"{name}:5")
    assert (
        "no field with text (this row has summary); allowed: text, content, body, note"
        in found[4].what
    )


def test_a_json_array_and_json_lines_in_gb18030(folder: Callable[..., Path]) -> None:
    lines = "".join(json.dumps({"text": CHINESE}, ensure_ascii=False) + "\n" for _ in range(3))
    root = folder(
        a_dot_json=json.dumps([{"text": "one"}, {"text": "two"}]).encode(),
        b_dot_jsonl=lines.encode("gb18030"),
        c_dot_jsonl=lines.encode("utf-16"),
    )
    found = documents(root)
    assert [found[name].text for name in ("a.json#1", "a.json#2")] == ["one", "two"]
    assert found["b.jsonl#3"].text == found["c.jsonl#1"].text == CHINESE


@pytest.mark.parametrize(
    ("name", "mark", "encoding"),
    [
        ("a.csv", ",", "utf-8-sig"),
        ("a.csv", ";", "gb18030"),
        ("a.tsv", "\t", "utf-16"),
        ("a.csv", "\t", "utf-8"),
    ],
)
def test_tables(tmp_path: Path, name: str, mark: str, encoding: str) -> None:
    text = f'title{mark}note\n甲{mark}"{CHINESE}\n第二行。"\nB{mark}\n'
    (tmp_path / name).write_bytes(text.encode(encoding))
    found = items(tmp_path / name)
    assert isinstance(found[0], Document)
    assert (found[0].title, found[0].text) == ("甲", f"{CHINESE}\n第二行。")
    assert found[1] == Drop(f"{name}#4", "no_text")


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    table = arrow.table({"text": ["one", None], "title": ["T", "U"], "n": [1, 2]})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert items(tmp_path / "a.parquet") == [
        Document("a.parquet#0", "one", "", "", "T"), Drop("a.parquet#1", "no_text"),
    ]  # fmt: skip
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not at all")
    (found,) = items(tmp_path / "b.parquet")
    assert isinstance(found, Fault)


def test_pubmed_xml(tmp_path: Path) -> None:
    (tmp_path / "a.xml.gz").write_bytes(gzip.compress(PUBMED.encode()))
    found = documents(tmp_path / "a.xml.gz")["a.xml.gz#99000001"]
    assert "It helped & did no harm." in found.text
    assert found.ids["pmid"] == "99000001"


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    bomb = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    text = PUBMED.replace(
        'PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2024//EN" "x.dtd"',
        f'[<!ENTITY l0 "lol">{bomb}]',
    ).replace("did no harm", "&l11;")
    (tmp_path / "a.xml").write_text(text)
    for item in items(tmp_path / "a.xml"):
        assert isinstance(item, Fault) or (isinstance(item, Document) and "lollol" not in item.text)
    stolen = PUBMED.replace('PUBLIC "-//NLM//DTD PubMedArticle, 1st January 2024//EN" "x.dtd"',
                            '[<!ENTITY x SYSTEM "file:///etc/passwd">]').replace("did no harm", "&x;")  # fmt: skip
    (tmp_path / "a.xml").write_text(stolen)
    for item in items(tmp_path / "a.xml"):
        assert isinstance(item, Fault) or (isinstance(item, Document) and "root:" not in item.text)


def test_slices_of_a_file_together_are_the_file(tmp_path: Path) -> None:
    lines = "".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(3500))
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.txt").write_text("whole")
    whole, sliced = documents(tmp_path), set()
    for path in files(str(tmp_path)):
        for index in range(3):
            sliced |= {item.id for item in read(READERS["local-text"], [Part(path, index, 3)])}  # type: ignore[union-attr]
    assert sliced == set(whole)


def test_a_url_is_listed_and_read() -> None:
    import fsspec

    system = fsspec.filesystem("memory")
    system.pipe("/room/b/two.txt", b"second")
    system.pipe("/room/one.md", b"# One\nfirst")
    try:
        found = documents("memory://room")
        assert list(found) == ["b/two.txt", "one.md"]
    finally:
        system.rm("/room", recursive=True)


def test_damaged_packed_files_are_faults_and_the_rest_is_read(folder: Callable[..., Path]) -> None:
    whole = gzip.compress(os.urandom(5000).hex().encode())
    root = folder(
        a_dot_txt_dot_gz=whole[:200], b_dot_txt=b"read all the same", c_dot_csv_dot_gz=whole[:300]
    )
    found = items(root)
    assert [type(item) for item in found] == [Fault, Document, Fault]
    assert "damaged or truncated gzip file" in found[0].what  # type: ignore[union-attr]


SUFFIXES = [
    ".txt",
    ".md",
    ".jsonl",
    ".json",
    ".csv",
    ".tsv",
    ".html",
    ".xml",
    ".pdf",
    ".docx",
    ".parquet",
]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    data=st.binary(max_size=300),
    suffix=st.sampled_from(SUFFIXES),
    head=st.sampled_from(
        [
            b"",
            b"\xff\xfe",
            b"PK\x03\x04",
            b"%PDF-1.4\n",
            b"<?xml version='1.0'?><article>",
            b'{"text": "',
            b"text\n",
            b"PAR1",
        ]
    ),
)
def test_no_bytes_make_a_traceback(tmp_path: Path, data: bytes, suffix: str, head: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(head + data)
    for item in items(path):
        assert isinstance(item, Document | Drop | Change | Fault)


def test_names_that_cannot_be_printed_become_escapes(tmp_path: Path) -> None:
    (tmp_path / "a\nb.txt").write_text("text")
    try:
        (tmp_path / os.fsdecode(b"bad\xff.txt")).write_text("text")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert set(documents(tmp_path)) == {"a\\nb.txt", "bad\\udcff.txt"}


def test_zip_is_no_text(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../evil.txt", "x")
    assert items(tmp_path / "a.zip") == [Drop("a.zip", "unknown_kind_zip")]
    assert local.KINDS.keys().isdisjoint({".zip", ".tar"})
