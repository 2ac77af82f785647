"""Broken files through every reader: a few hundred here, ten thousand when asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("openpyxl")
pytest.importorskip("docx")

import campaign
import formats
from mutate import mutated

from medexpert.data.readers import READERS
from medexpert.data.readers.benchmarks import BENCHMARK_READERS

DATA = Path(os.environ.get("MEDEXPERT_DATA", Path(__file__).resolve().parents[4] / "shared/data"))
PUBLISHED = str(DATA) if (DATA / "stage3").is_dir() else ""


def test_there_is_a_file_for_every_reader() -> None:
    held = {(seed.family, seed.format) for seed in formats.own()}
    assert {name for family, name in held if family == "reader"} == set(READERS)
    assert {name for family, name in held if family == "benchmark"} == set(BENCHMARK_READERS)


def test_a_mutation_is_the_same_every_time() -> None:
    files = formats.own()
    for number in range(60):
        first, second = mutated(files, 1, number), mutated(files, 1, number)
        assert (first[0].data, first[0].beside, first[1]) == (
            second[0].data, second[0].beside, second[1],
        )  # fmt: skip
    assert mutated(files, 2, 0)[0].data != mutated(files, 1, 0)[0].data


def test_a_few_hundred_broken_files() -> None:
    summary = campaign.campaign(range(300), seed=11)
    assert summary["failures"] == []
    assert sum(summary["outcomes"].values()) == 300
    assert min(summary["outcomes"][kind] for kind in ("ok", "faults", "refused")) > 20
    assert summary["rows"]["builds_refused"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_broken_files() -> None:
    summary = campaign.campaign(range(10_000), seed=12, data=PUBLISHED)
    assert summary["failures"] == []
    assert sum(summary["outcomes"].values()) == 10_000


def test_a_hang_and_too_much_memory_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "TIMEOUT", 0.0)
    summary = campaign.campaign(range(2), seed=11)
    assert [one["error"] for one in summary["failures"]] == ["hang", "hang"]
    assert summary["children_restarted"] == 2
