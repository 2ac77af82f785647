"""The data card: every number adds up, both forms say the same, and the page stands alone."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medexpert.data.card import (
    CardFacts,
    Sample,
    SourceFacts,
    length_bin,
    render_html,
    render_markdown,
    unaccounted,
)
from medexpert.data.card.facts import DEBITS, debits
from medexpert.data.card.flow import flows, reasons, totals
from medexpert.data.card.sankey import sankey
from medexpert.records import UserError


def source(read: int = 1000, **changes: object) -> SourceFacts:
    made: SourceFacts = {
        "role": "train",
        "lang": "en",
        "licence": "CC BY 4.0",
        "default_mix": True,
        "note": "invented | for <tests>",
        "url": "https://example.org/data",
        "citation": "Author 2020",
        "limit": 0,
        "read": read,
        "read_characters": read * 100,
        "faults": 3,
        "first_faults": [{"where": "a.jsonl:7", "what": "not a JSON line"}],
        "dropped": {"too_short": 10, "language_de": 2},
        "quarantined": {"pubmedqa": {"id": 4, "13gram": 1}},
        "duplicates": {"exact": 5, "near": 6},
        "refused": {"phi": 1},
        "heldout": 20,
        "kept": read - 52,
        "changed": {"normalised": 40},
        "redacted": {"PERSON": 9},
        "licences": {"CC BY 4.0": read - 40, "CC0": 8},
        "records": read - 50,
        "characters": (read - 50) * 100,
        "target": 0.5,
        "realised": 0.5,
        "epochs": 1.0,
        "inputs": [{"file": "a.jsonl.gz", "sha256": "ab" * 32, "bytes": 12345}],
        "lengths": {"64": read - 60, "1024": 10},
        "languages": {"en": read - 60, "zh": 10},
    }
    made.update(changes)  # type: ignore[typeddict-item]
    return made


@pytest.fixture
def facts() -> CardFacts:
    one, two = (
        source(),
        source(500, role="replay", default_mix=False, licences={"none stated": 468}),
    )
    three = source(200)
    return {
        "recipe": "demo <1>",
        "seed": 7,
        "quarantined": True,
        "quarantine": {
            "pubmedqa": {
                "listed": 1000,
                "items": 1000,
                "text": True,
                "guarded": {"ngrams": 17, "spared": 5},
            },
            "medqa": {"listed": 1273, "items": 0, "text": False},
        },
        "not_checked": ["No clinician has read it."],
        "stages": {
            "knowledge": {
                "records": one["records"] + two["records"],
                "characters": one["characters"] + two["characters"],
                "replay": {"target": 0.1, "realised": 0.099},
                "sources": {"pubmed": one, "general": two},
            },
            "instruct": {
                "records": three["records"],
                "characters": three["characters"],
                "sources": {"medquad": three},
            },
        },
        "settings": {"data": {"min_chars": 80, "languages": ["en", "zh"]}},
        "versions": {"medexpert": "0.1"},
    }


def test_the_flow_sums(facts: CardFacts) -> None:
    rows = flows(facts)
    for row in [*rows, totals(rows)]:
        assert row.read == sum(row.out.values()) + row.kept
    assert totals(rows).read == 1700
    for stage in facts["stages"].values():
        for one in stage["sources"].values():
            assert unaccounted(one) == 0
            assert reasons(one).total() == sum(debits(one).values()) - one["heldout"]


def test_facts_that_do_not_add_up_make_no_card(facts: CardFacts) -> None:
    wrong = copy.deepcopy(facts)
    wrong["stages"]["knowledge"]["sources"]["pubmed"]["kept"] -= 2
    with pytest.raises(UserError, match=r"knowledge/pubmed: 2 of 1,000 documents are unaccounted"):
        render_markdown(wrong)
    wrong = copy.deepcopy(facts)
    wrong["stages"]["instruct"]["records"] += 1
    with pytest.raises(UserError, match=r"records sum to 150, the stage has 151"):
        render_html(wrong)


def test_the_flow_table_of_the_markdown_sums(facts: CardFacts) -> None:
    text = render_markdown(facts)
    table = text.split("## From source to stage")[1].split("| source | documents kept")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    assert [row[0] for row in rows[2:]] == [
        "knowledge/pubmed",
        "knowledge/general",
        "instruct/medquad",
        "all",
    ]
    numbers = [[int(cell.replace(",", "")) for cell in row[1:]] for row in rows[2:]]
    for read, *rest in numbers:
        assert read == sum(rest)
    assert [sum(column) for column in zip(*numbers[:-1], strict=True)] == numbers[-1]


def test_bands_of_the_drawing_sum_to_what_was_read(facts: CardFacts) -> None:
    drawn = re.findall(r'data-documents="(\d+)"', render_html(facts))
    assert sum(map(int, drawn)) == 1700


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.integers(0, 10**7), min_size=len(DEBITS) + 1, max_size=len(DEBITS) + 1),
        max_size=6,
    )
)
def test_bands_stay_inside_their_bars(counts: list[list[int]]) -> None:
    from medexpert.data.card.flow import Flow

    rows = [
        Flow(
            "knowledge", f"s{i}", sum(each), dict(zip(DEBITS, each[1:], strict=True)), each[0], 1, 1
        )
        for i, each in enumerate(counts)
    ]
    drawing = sankey(rows)
    if not any(row.read for row in rows):
        assert drawing == ""
        return
    height = float(re.search(r'viewBox="0 0 960 (\d+)"', drawing)[1])  # type: ignore[index]
    bars = re.findall(r'y="([\d.]+)" width="12" height="([\d.]+)"', drawing)
    assert all(float(y) + float(h) <= height + 1 for y, h in bars)
    bands = re.findall(r'data-documents="(\d+)"', drawing)
    assert sum(map(int, bands)) == sum(row.read for row in rows)


def test_what_the_card_tells(facts: CardFacts) -> None:
    for text in (render_markdown(facts), render_html(facts)):
        for part in (
            "quarantine: pubmedqa",
            "13gram",
            "identifiers only",
            "1,273",
            "language_de",
            "duplicate: near",
            "CC0",
            "none stated",
            "Author 2020 https://example.org/data",
            "Replay: 9.9% realised, 10.0% wanted",
            "PERSON",
            "a.jsonl:7",
            "ab" * 32,
            "data.min_chars",
            "en, zh",
            "No clinician has read it.",
            "64 to 127",
        ):
            assert part in text, part
        assert "Samples" not in text


def test_missing_quarantine_is_the_first_thing_said(facts: CardFacts) -> None:
    facts["quarantined"], facts["quarantine"] = False, {}
    assert "Built without quarantine" in render_markdown(facts)[:120]
    page = render_html(facts)
    assert page.index("Built without quarantine") < page.index("From source to stage")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_fetches_nothing(facts: CardFacts) -> None:
    page = render_html(facts)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    names = {tag for tag, _ in tags.seen}
    assert not names & {"script", "link", "img", "iframe", "object", "image", "use"}
    assert not any({"src", "href", "onload"} & set(attrs) for _, attrs in tags.seen)
    assert "url(" not in page
    assert "@import" not in page
    assert "prefers-color-scheme: dark" in page


def test_text_of_others_breaks_neither_form(facts: CardFacts) -> None:
    samples: list[Sample] = [
        {
            "stage": "knowledge",
            "source": "a|b",
            "id": "<i>",
            "text": "```\n</pre><script>x</script>",
        }
    ]
    page, text = render_html(facts, samples), render_markdown(facts, samples)
    assert "<script>" not in page
    assert "invented \\| for &lt;tests&gt;" in text
    assert "````text\n```\n</pre>" in text
    assert "<tests>" not in page


def test_an_empty_build_has_a_card(facts: CardFacts) -> None:
    facts["stages"] = {"adapt": {"records": 0, "characters": 0, "sources": {}}}
    assert "Stage adapt: mix" in render_markdown(facts)
    assert "<svg" in render_html(facts)


@given(st.integers(0, 10**9))
def test_length_bins(size: int) -> None:
    low = length_bin(size)
    assert low <= size < max(1, 2 * low)
