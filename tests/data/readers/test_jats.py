"""PMC open access articles in JATS, invented content."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from medexpert.data.readers import READERS
from medexpert.data.readers.abstracts import ABSTRACT_READERS, Abstract
from medexpert.data.readers.rows import Change, Drop, Fault, Item, Part, read
from medexpert.records import Document, UserError

LICENCE = (
    '<permissions><license license-type="open-access" '
    'xlink:href="http://creativecommons.org/licenses/by-nc/4.0/">'
    "<license-p>Free to share.</license-p></license></permissions>"
)
ABSTRACT = """<abstract abstract-type="graphical"><p>No.</p></abstract>
<abstract><title>Abstract</title>
 <sec><title>Background</title><p>Colds are common.</p></sec>
 <sec><title>Methods</title><sec><title>Design</title><p>Two arms.</p></sec></sec></abstract>"""
BODY = """<body>
 <p>Before any heading <xref ref-type="bibr" rid="b1">[1]</xref>.</p>
 <sec><title>1. Methods</title>
  <p>We gave zinc [<xref ref-type="bibr" rid="b1">1</xref>, <xref ref-type="bibr" rid="b2">2</xref>]
   (see <xref ref-type="fig" rid="f1">Fig. 1</xref>) to 10<sup>6</sup> cells
   <inline-formula><mml:math xmlns:mml="m"><mml:mi>x</mml:mi></mml:math></inline-formula>.</p>
  <fig id="f1"><caption><p>A figure.</p></caption></fig>
  <sec><title>Doses</title><list><list-item><p>5 mg</p></list-item>
   <list-item><p>10 mg</p></list-item></list></sec>
  <sec><title>Only a table</title><table-wrap><table><tr><td>1</td></tr></table></table-wrap></sec>
 </sec></body>"""


def article(pmc: str = "77", *, kind: str = "research-article", ids: str = "", **part: str) -> str:
    ids = ids or (
        f'<article-id pub-id-type="pmc">{pmc}</article-id>'
        '<article-id pub-id-type="pmid">12</article-id>'
        '<article-id pub-id-type="doi">10.1000/A.1</article-id>'
    )
    return (
        f'<article article-type="{kind}" xml:lang="en" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f"<front><article-meta>{ids}<title-group><article-title>Zinc <italic>or</italic> not"
        "</article-title></title-group><pub-date><year>2019</year></pub-date>"
        f"{part.get('licence', LICENCE)}{part.get('abstract', ABSTRACT)}</article-meta></front>"
        f"{part.get('body', BODY)}<back><ref-list><ref>Old paper.</ref></ref-list></back></article>"
    )


def write(tmp_path: Path, raw: str | bytes, name: str = "a.nxml") -> Part:
    path = tmp_path / name
    path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return Part(str(path))


def items(part: Part) -> list[Item]:
    return list(read(READERS["pmc_oa"], [part]))


def test_an_article_is_title_abstract_and_body(tmp_path: Path) -> None:
    *changes, document = items(write(tmp_path, article()))
    assert isinstance(document, Document)
    assert document.text == (
        "Zinc or not\nBACKGROUND: Colds are common.\nMETHODS > DESIGN: Two arms.\n\n"
        "Before any heading.\n\n## 1. Methods\n\n"
        "We gave zinc (see Fig. 1) to 10^6 cells.\n\n### Doses\n\n- 5 mg\n\n- 10 mg"
    )
    assert document.ids == {"pmcid": "PMC77", "pmid": "12", "doi": "10.1000/a.1"}
    assert (document.id, document.licence, document.lang) == ("PMC77", "CC-BY-NC-4.0", "en")
    kinds = Counter(change.what for change in changes if isinstance(change, Change))
    assert kinds == {
        "citation_removed": 3, "figure_removed": 1, "table_removed": 1, "formula_removed": 1,
    }  # fmt: skip


def test_the_abstract_alone(tmp_path: Path) -> None:
    (abstract,) = ABSTRACT_READERS["pmc_oa"](write(tmp_path, article()))
    assert isinstance(abstract, Abstract)
    assert abstract.sections == (
        ("Background", "Colds are common."),
        ("Methods > Design", "Two arms."),
    )
    assert (abstract.year, abstract.title) == ("2019", "Zinc or not")
    (drop,) = ABSTRACT_READERS["pmc_oa"](write(tmp_path, article(abstract="")))
    assert drop == Drop("PMC77", "no_abstract")


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("", ""),
        ("<permissions><license><p>Ask us.</p></license></permissions>", "open-access-other"),
        ('<permissions><license license-type="CC BY-ND"/></permissions>', "CC-BY-ND"),
        (
            "<permissions><license><ext-link>https://creativecommons.org/publicdomain/zero/1.0/"
            "</ext-link></license></permissions>",
            "CC0-1.0",
        ),
    ],
)
def test_licences(tmp_path: Path, licence: str, expected: str) -> None:
    document = items(write(tmp_path, article(licence=licence)))[-1]
    assert isinstance(document, Document)
    assert document.licence == expected


def test_notices_and_empty_articles_are_dropped(tmp_path: Path) -> None:
    assert items(write(tmp_path, article(kind="retraction"))) == [
        Drop("PMC77", "article_type_retraction")
    ]
    assert items(write(tmp_path, article(abstract="", body=""))) == [Drop("PMC77", "no_text")]


def test_archives_are_read_in_memory(tmp_path: Path) -> None:
    files = {
        "c/PMC1.nxml": article("1"), "c/readme.txt": "no", "c/PMC2.nxml": "<article>",
        "c/PMC3.xml": article("3", ids="<article-id pub-id-type='publisher-id'>x</article-id>"),
        "c/PMC4.xml": article("4"), "c/PMC5.xml": "<html/>",
    }  # fmt: skip
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    for data, name in ((raw.getvalue(), "oa.tar.gz"), (packed.getvalue(), "oa.zip")):
        part = write(tmp_path, data, name)
        found = items(part)
        assert [item.id for item in found if isinstance(item, Document)] == ["PMC1", "PMC4"]
        faults = [item for item in found if isinstance(item, Fault)]
        assert [fault.where.split("[")[1].split("]")[0] for fault in faults] == [
            "c/PMC2.nxml", "c/PMC3.xml", "c/PMC5.xml",
        ]  # fmt: skip
        assert "not valid XML" in faults[0].what
        assert faults[1].what == "no pmc, pmid or doi among its article-id elements"
        assert faults[2].what == "element <article> is expected, not <html>"
        assert [path.name for path in tmp_path.iterdir() if path.suffix == ".nxml"] == []
        (tmp_path / name).unlink()


def test_a_set_of_articles_and_foreign_files(tmp_path: Path) -> None:
    both = f"<pmc-articleset>{article('1')}{article('2')}</pmc-articleset>"
    found = items(write(tmp_path, gzip.compress(both.encode()), "set.xml.gz"))
    assert [item.id for item in found if isinstance(item, Document)] == ["PMC1", "PMC2"]
    with pytest.raises(UserError, match=r"the root element is <html>; allowed: article"):
        items(write(tmp_path, "<html/>"))
    with pytest.raises(UserError, match=r"not valid XML"):
        items(write(tmp_path, article()[:-60]))


def test_parts_hold_every_member_once(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        for number in range(2100):
            archive.writestr(f"{number}.xml", article(str(number), body="", abstract="<abstract/>"))
    path = write(tmp_path, raw.getvalue(), "oa.zip").path
    found = [item for index in range(2) for item in read(READERS["pmc_oa"], [Part(path, index, 2)])]
    assert sorted(int(item.id[3:]) for item in found if isinstance(item, Drop)) == list(range(2100))
