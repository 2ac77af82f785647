"""PubMed/MEDLINE baseline and update files (PubmedArticleSet XML, usually gzip'd) -> Abstract.

https://www.nlm.nih.gov/bsd/licensee/elements_descriptions.html describes the elements. The abstract
of a citation is English whatever language the article has, and so is its title, in brackets then.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from medexpert.data.readers.abstracts import Abstract, AbstractItem, documents_from
from medexpert.data.readers.rows import Change, Drop, Reader
from medexpert.data.readers.xml_rows import text_in, xml_records
from medexpert.records import UserError

_LANGUAGES = {
    "eng": "en", "chi": "zh", "ger": "de", "fre": "fr", "spa": "es", "jpn": "ja", "rus": "ru",
    "ita": "it", "por": "pt", "pol": "pl", "kor": "ko", "dut": "nl", "dan": "da", "swe": "sv",
    "nor": "no", "fin": "fi", "hun": "hu", "cze": "cs", "tur": "tr", "ukr": "uk", "heb": "he",
}  # fmt: skip
_YEAR = re.compile(r"\d{4}")
_TRUNCATED = re.compile(r"\s*\(?ABSTRACT TRUNCATED(?: AT \d+ WORDS)?\)?\s*$")
_NO_TITLE = "[not available]"

rows = xml_records(
    "PubmedArticle",
    "PubmedBookArticle",
    "DeleteCitation",
    roots=("PubmedArticleSet", "PubmedBookArticleSet"),
)


def convert(where: str, row: Mapping[str, Any]) -> Iterator[AbstractItem]:
    """One citation -> Abstract, or a Drop: deleted, retracted, without an abstract."""
    element = row["xml"]
    if element.tag == "DeleteCitation":
        for pmid in element.iterfind("PMID"):
            yield Drop(_pmid(pmid, where), "deleted_citation")
        return
    book = element.tag == "PubmedBookArticle"
    citation = element.find("BookDocument" if book else "MedlineCitation")
    if citation is None:
        raise UserError("element MedlineCitation is missing", where=where)
    number = citation.find("PMID")
    pmid = _pmid(number, where)
    version = number.get("Version") or "1"
    identifier = pmid if version == "1" else f"{pmid}.{version}"
    article = citation if book else citation.find("Article")
    if article is None:
        raise UserError("element Article is missing", where=where)
    types = {text_in(kind) for kind in article.iterfind("PublicationTypeList/PublicationType")}
    if "Retracted Publication" in types:
        yield Drop(identifier, "retracted")
        return
    sections, truncated = _sections(article)
    if not sections:
        yield Drop(identifier, "no_abstract")
        return
    title, change = _title(article)
    if change:
        yield Change(identifier, change)
    if truncated:
        yield Change(identifier, "truncation_mark_removed")
    yield Abstract(
        id=identifier,
        ids=_ids(element, article, pmid),
        title=title,
        sections=tuple(sections),
        lang="en",
        year=_year(article),
    )


def _pmid(element: Any, where: str) -> str:
    pmid = text_in(element)
    if not (pmid.isascii() and pmid.isdigit()):
        raise UserError(f"PMID {pmid[:40]!r} is no number", where=where)
    return pmid


def _sections(article: Any) -> tuple[list[tuple[str, str]], bool]:
    """(label, text) of each AbstractText with text, and whether a truncation mark was cut off."""
    sections = []
    truncated = False
    for block in article.iterfind("Abstract/AbstractText"):
        text = text_in(block)
        if "ABSTRACT TRUNCATED" in text[-60:]:
            shorter = _TRUNCATED.sub("", text)
            truncated = truncated or shorter != text
            text = shorter
        if text:
            sections.append(((block.get("Label") or "").strip(), text))
    return sections, truncated


def _title(article: Any) -> tuple[str, str]:
    """(title, change): brackets say that a title is a translation."""
    title = text_in(article.find("ArticleTitle"))
    bare = title.rstrip(".").strip()
    if not title or bare.lower() == _NO_TITLE:
        vernacular = text_in(article.find("VernacularTitle"))
        return vernacular, "vernacular_title" if vernacular else ""
    if bare.startswith("[") and bare.endswith("]") and "[" not in bare[1:]:
        return f"{bare[1:-1].rstrip('.').strip()}.", "title_brackets_removed"
    return title, ""


def _ids(element: Any, article: Any, pmid: str) -> dict[str, str]:
    ids = {"pmid": pmid}
    # Only the article's own list: those of its references lie deeper.
    for place in ("PubmedData", "PubmedBookData"):
        for found in element.iterfind(f"{place}/ArticleIdList/ArticleId"):
            kind, value = found.get("IdType"), text_in(found)
            if kind == "doi" and value:
                ids.setdefault("doi", value.lower())
            elif kind == "pmc" and value:
                ids.setdefault("pmcid", value if value.startswith("PMC") else f"PMC{value}")
    for found in article.iterfind("ELocationID"):
        if found.get("EIdType") == "doi" and found.get("ValidYN") != "N":
            ids.setdefault("doi", text_in(found).lower())
    language = text_in(article.find("Language"))
    if language and language != "eng":
        ids["article_language"] = _LANGUAGES.get(language, language)
    return ids


def _year(article: Any) -> str:
    for place in ("Journal/JournalIssue/PubDate", "Book/PubDate", "ContributionDate"):
        date = article.find(place)
        if date is not None:
            found = _YEAR.search(text_in(date))
            if found:
                return found[0]
    return ""


READERS: dict[str, Reader] = {"medline": Reader(rows, documents_from(convert))}
