"""PubMed XML in its published shape, invented content."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from medexpert.data.readers import READERS
from medexpert.data.readers.abstracts import ABSTRACT_READERS, Abstract
from medexpert.data.readers.rows import Change, Drop, Fault, Item, Part, read
from medexpert.records import Document, UserError

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE PubmedArticleSet SYSTEM "http://dtd.nlm.nih.gov/ncbi/pubmed/out/pubmed_250101.dtd">
"""
ARTICLE = """<PubmedArticle>
  <MedlineCitation Status="MEDLINE" Owner="NLM">
    <PMID Version="{version}">{pmid}</PMID>
    <DateRevised><Year>2019</Year></DateRevised>
    <Article PubModel="Print">
      <Journal><JournalIssue CitedMedium="Print"><PubDate>{date}</PubDate></JournalIssue></Journal>
      <ArticleTitle>{title}</ArticleTitle>
      <ELocationID EIdType="doi" ValidYN="Y">10.1000/A.{pmid}</ELocationID>
      {abstract}
      <Language>{language}</Language>
      <PublicationTypeList><PublicationType UI="D1">{kind}</PublicationType></PublicationTypeList>
      <VernacularTitle>Zinkgabe bei Erkältung</VernacularTitle>
    </Article>
  </MedlineCitation>
  <PubmedData>
    <ArticleIdList>
      <ArticleId IdType="pubmed">{pmid}</ArticleId><ArticleId IdType="pmc">PMC77{pmid}</ArticleId>
    </ArticleIdList>
    <ReferenceList><Reference><ArticleIdList>
      <ArticleId IdType="pmc">PMC1</ArticleId><ArticleId IdType="doi">10.1/no</ArticleId>
    </ArticleIdList></Reference></ReferenceList>
  </PubmedData>
</PubmedArticle>
"""
ABSTRACT = """<Abstract>
  <AbstractText Label="METHODS" NlmCategory="METHODS">We gave 10<sup>6</sup> <i>zinc</i> grains
    to 40&#xa0;people.</AbstractText>
  <AbstractText Label="RESULTS" NlmCategory="RESULTS">p &lt; 0.05; H<sub>2</sub>O.</AbstractText>
  <CopyrightInformation>Copyright 2019.</CopyrightInformation></Abstract>"""


def article(pmid: str = "12", **change: str) -> str:
    fields = {
        "pmid": pmid, "version": "1", "title": "Zinc for colds.", "abstract": ABSTRACT,
        "language": "eng", "kind": "Journal Article", "date": "<Year>2018</Year>",
    }  # fmt: skip
    return ARTICLE.format(**(fields | change))


def write(tmp_path: Path, *inside: str, root: str = "PubmedArticleSet") -> Part:
    path = tmp_path / "pubmed25n0001.xml.gz"
    path.write_bytes(gzip.compress(f"{HEAD}<{root}>{''.join(inside)}</{root}>".encode()))
    return Part(str(path))


def items(part: Part) -> list[Item]:
    return list(read(READERS["medline"], [part]))


def test_a_structured_abstract_is_a_document_and_an_abstract(tmp_path: Path) -> None:
    part = write(tmp_path, article())
    (document,) = items(part)
    assert isinstance(document, Document)
    assert document.text == (
        "Zinc for colds.\nMETHODS: We gave 10^6 zinc grains to 40 people.\nRESULTS: p < 0.05; H2O."
    )
    ids = {"pmid": "12", "pmcid": "PMC7712", "doi": "10.1000/a.12"}
    assert (document.id, document.ids, document.lang) == ("12", ids, "en")
    (abstract,) = ABSTRACT_READERS["medline"](part)
    assert abstract == Abstract(
        id="12",
        ids=ids,
        title="Zinc for colds.",
        sections=(
            ("METHODS", "We gave 10^6 zinc grains to 40 people."),
            ("RESULTS", "p < 0.05; H2O."),
        ),
        lang="en",
        year="2018",
    )


def test_versions_deletions_retractions_and_titles_without_abstract(tmp_path: Path) -> None:
    part = write(
        tmp_path,
        article("12"),
        article("12", version="2"),
        article("13", abstract=""),
        article("14", kind="Retracted Publication"),
        "<DeleteCitation><PMID Version='1'>5</PMID><PMID Version='1'>6</PMID></DeleteCitation>",
    )
    first, second, *drops = items(part)
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert [first.id, second.id] == ["12", "12.2"]
    assert second.ids["pmid"] == "12"
    assert drops == [
        Drop("13", "no_abstract"),
        Drop("14", "retracted"),
        Drop("5", "deleted_citation"),
        Drop("6", "deleted_citation"),
    ]


def test_titles_of_articles_in_other_languages(tmp_path: Path) -> None:
    part = write(
        tmp_path,
        article("1", title="[Zinc for colds].", language="ger"),
        article("2", title="[Not Available].", language="ger"),
        article("3", title="[Zinc] and [iron]"),
    )
    change, first, vernacular, second, third = items(part)
    assert change == Change("1", "title_brackets_removed")
    assert vernacular == Change("2", "vernacular_title")
    for found, title in zip(
        (first, second, third),
        ("Zinc for colds.", "Zinkgabe bei Erkältung", "[Zinc] and [iron]"),
        strict=True,
    ):
        assert isinstance(found, Document)
        assert found.title == title
    assert isinstance(first, Document)
    assert first.ids["article_language"] == "de"


def test_dates_truncation_and_books(tmp_path: Path) -> None:
    text = "All of it(ABSTRACT TRUNCATED AT 250 WORDS)"
    cut = f"<Abstract><AbstractText>{text}</AbstractText></Abstract>"
    part = write(
        tmp_path,
        article("1", abstract=cut, date="<MedlineDate>1998 Dec-1999 Jan</MedlineDate>"),
        "<PubmedBookArticle><BookDocument><PMID Version='1'>9</PMID>"
        "<Book><PubDate><Year>2007</Year></PubDate></Book><ArticleTitle>Gout</ArticleTitle>"
        "<Abstract><AbstractText>Crystals.</AbstractText></Abstract></BookDocument>"
        "</PubmedBookArticle>",
    )
    first, second = ABSTRACT_READERS["medline"](part)
    assert isinstance(first, Abstract)
    assert (first.sections, first.year) == ((("", "All of it"),), "1998")
    assert isinstance(second, Abstract)
    assert (second.id, second.title, second.year) == ("9", "Gout", "2007")
    assert items(part)[0] == Change("1", "truncation_mark_removed")


def test_bad_records_are_faults_with_their_line(tmp_path: Path) -> None:
    part = write(
        tmp_path,
        article("12x"),
        "<PubmedArticle><MedlineCitation><PMID>3</PMID></MedlineCitation></PubmedArticle>",
        "<PubmedArticle/>",
        article("4"),
        article("4"),
    )
    faults = [item for item in items(part) if isinstance(item, Fault)]
    told = [fault.what for fault in faults]
    assert told[:3] == [
        "PMID '12x' is no number",
        "element Article is missing",
        "element MedlineCitation is missing",
    ]
    assert "id '4' occurs twice (first at" in told[3]
    assert faults[0].where == f"{part.path}:3"
    assert len(items(part)) == 5


def test_another_xml_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the root element is <html>; allowed: PubmedArticleSet"):
        items(write(tmp_path, root="html"))
    assert items(write(tmp_path)) == []
