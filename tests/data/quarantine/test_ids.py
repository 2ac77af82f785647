from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.data import quarantine
from medexpert.data.quarantine.ids import keys_of
from medexpert.data.readers.pubmedqa import official_split
from medexpert.records import Document, Example, UserError

TEST, DEV = official_split().test[0], official_split().folds[3][7]
LISTS = quarantine.load(["pubmedqa"])


def doc(identifier: str, **ids: str) -> Document:
    return Document(identifier, "t", "s", ids=ids)


def test_all_thousand_are_listed() -> None:
    assert len(LISTS["pubmedqa"]) == 1000
    assert {TEST, DEV} <= LISTS["pubmedqa"]


@pytest.mark.parametrize("pmid", [TEST, DEV])
def test_hit_by_any_way_of_writing_the_id(pmid: str) -> None:
    for record in (
        doc("x", pmid=pmid), doc("x", pmid=f" PMID: {pmid} "), doc("x", PMID=f"{pmid}.0"),
        doc(pmid), doc(f"pmid-{pmid}"), doc(f"###{pmid}"), doc(f"00{pmid}"),
        doc("x", url=f"https://pubmed.ncbi.nlm.nih.gov/{pmid}/"), doc("x", pubid=pmid),
        doc(f"pubmedqa-{pmid}"), doc(f"pqa_labeled/{pmid}"), doc(f"PubMedQA test {pmid}"),
        doc("x", pmid=f"1; {pmid}"), doc("x", pmid="1", pubid=pmid),
        Example("x", "s", "qa", "chat.qa", {}, ids={"pmid": pmid}),
    ):  # fmt: skip
        assert quarantine.hit(record, LISTS) == "pubmedqa", record


def test_no_hit() -> None:
    for record in (
        doc("x", pmid="1"), doc("x"), doc(f"PMC{TEST}"), doc("x", pmcid=f"PMC{TEST}"),
        doc("x", row=TEST), doc(f"drug-{TEST}"), doc("x", pmid=""),
    ):  # fmt: skip
        assert quarantine.hit(record, LISTS) is None, record
    assert quarantine.hit(doc(TEST), {}) is None


def test_unknown_benchmark() -> None:
    with pytest.raises(UserError, match=r"unknown quarantine list 'pubmed'.*mean 'pubmedqa'"):
        quarantine.load(["pubmed"])


@pytest.mark.parametrize(
    ("name", "ids", "key"),
    [
        ("PMC0123", {}, ("pmcid", "123")),
        ("x", {"pmcid": "123"}, ("pmcid", "123")),
        ("x", {"url": "https://www.ncbi.nlm.nih.gov/pmc/articles/PMC77/"}, ("pmcid", "77")),
        ("x", {"doi": "https://doi.org/10.1000/ABC.1"}, ("doi", "10.1000/abc.1")),
        ("B64A9CD7-D076", {}, ("qid", "b64a9cd7-d076")),
        ("x", {"question_id": " b64a9cd7-d076 "}, ("qid", "b64a9cd7-d076")),
        ("x", {"nct": "NCT01"}, ("nct", "nct01")),
    ],
)
def test_other_schemes(name: str, ids: dict[str, str], key: tuple[str, str]) -> None:
    assert key in keys_of(name, ids)


def test_a_bare_question_number_is_no_id() -> None:
    assert not keys_of("x", {"qid": "17"})
    assert not {scheme for scheme, _ in keys_of("1234567", {})} - {"pmid"}


@given(st.text(), st.dictionaries(st.sampled_from(["pmid", "pmcid", "doi", "qid"]), st.text()))
def test_any_string_may_be_an_id(name: str, ids: dict[str, str]) -> None:
    assert all(scheme and value for scheme, value in keys_of(name, ids) if scheme != "pmid")


def test_a_piece_of_a_document_keeps_its_identifier() -> None:
    assert ("pmid", TEST) in keys_of(f"{TEST}#2", {})
    assert ("pmid", TEST) in keys_of(f"pmid-{TEST}#11", {})
    assert ("pmcid", "77") in keys_of("PMC77#3", {})


@pytest.mark.parametrize("name", ["pqaa-PMC77", "pqau-PMC77", "PMC77", "pmcid: PMC77"])
def test_the_number_of_a_pmcid_is_no_pmid(name: str) -> None:
    assert {key for key in keys_of(name, {}) if key[0] != "qid"} == {("pmcid", "77")}
