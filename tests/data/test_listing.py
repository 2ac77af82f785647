from __future__ import annotations

import json

import pytest

from medexpert.data.catalogue import BENCHMARKS, SOURCES
from medexpert.data.listing import COLUMNS, listing, rows
from medexpert.records import UserError


def test_the_whole_catalogue_is_a_table() -> None:
    head, *lines, count = listing().splitlines()
    assert head.split("  ")[0] == "name"
    assert all(column in head for column in COLUMNS)
    assert [line.split()[0] for line in lines] == [*SOURCES, *BENCHMARKS]
    assert count == f"{len(SOURCES)} sources, {len(BENCHMARKS)} benchmarks"
    assert max(map(len, lines)) < 220


def test_a_search_needs_every_word_and_reads_the_note() -> None:
    found = rows("zh Apache-2.0 mcq")
    assert {row["name"] for row in found} == {"cmexam-val-mcq"}
    assert {row["name"] for row in rows("replay")} >= {"wikipedia-zh", "fineweb-edu", "alpaca"}
    assert {row["stage"] for row in rows("benchmark")} >= {"benchmark"}
    assert all(row["stage"] == "adapt" for row in rows("simulated"))


def test_an_exact_name_is_shown_in_full() -> None:
    text = listing("medquad")
    assert text.startswith("medquad\n  stage       instruct\n")
    assert "  default mix yes\n" in text
    assert "577bd37b96c02d1833b2c9eed2de9f96964e96cb; checksum: unknown" in text
    both = listing("pubmedqa")
    assert both.count("\npubmedqa\n") + both.startswith("pubmedqa\n") == 2
    assert "stage       benchmark" in both
    assert "and 21 more" in listing("wikipedia-en")
    assert "fetched     by hand" in listing("meddialog-zh")
    assert "files       path in the recipe" in listing("local-text")
    assert "checksum: md5" in listing("medline-baseline")


def test_rows_are_json() -> None:
    (row,) = rows("cmedqa2")
    assert json.loads(json.dumps(row)) == json.loads(json.dumps(row))
    assert row["default_mix"] is False
    assert row["origin"][0]["known"] == "git blob id"
    assert {row["default_mix"] for row in rows("benchmark") if row["stage"] == "benchmark"} <= {
        False
    }


def test_nothing_found_tells_the_nearest() -> None:
    with pytest.raises(UserError, match=r"unknown source 'pubmedqaa'.*did you mean 'pubmedqa'"):
        listing("pubmedqaa")
