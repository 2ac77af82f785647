from __future__ import annotations

import pytest

from medexpert.data import quarantine
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
