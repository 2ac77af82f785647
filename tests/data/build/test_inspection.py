from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from invented import prose
from medexpert.data.build import build, inspect_sources
from medexpert.recipe import Run


def test_estimate_is_near_what_a_build_writes(
    tmp_path: Path, make_recipe: Callable[..., Run], write_rows: Callable[..., Path], pqal: Path
) -> None:
    # Rows grow along the file, so the mean of the first ones would mislead.
    rows = [
        {"id": f"q{i}", "question": f"Is {i} odd?", "answer": prose(i, 3 + i // 200)}
        for i in range(1000)
    ]
    path = write_rows("q.jsonl.gz", rows)
    recipe = make_recipe(
        root=str(pqal),
        instruct=[
            {"source": "starter-qa-zh"},
            {"source": "medquad-qa", "path": str(path), "limit": 900},
        ],
        adapt=[{"source": "pubmedqa"}, {"source": "trialgen", "limit": 30}],
    )
    problems, estimate, _ = inspect_sources(recipe)
    assert problems == []
    facts = build(recipe, tmp_path / "out", key="k", progress=lambda line: None)
    for stage in ("instruct", "adapt"):
        written = facts["stages"][stage]["characters"]
        assert sum(estimate[stage].values()) == pytest.approx(written, rel=0.25)
    assert set(estimate["instruct"]) == {"en", "zh"}


def test_replay_is_capped_in_the_estimate(make_recipe: Callable[..., Run]) -> None:
    recipe = make_recipe(
        replay_share=0.05,
        knowledge=[
            {"source": "starter-passages-zh"}, {"source": "starter-general-en", "role": "replay"},
        ],
    )  # fmt: skip
    _, estimate, _ = inspect_sources(recipe)
    found = estimate["knowledge"]
    assert found["en"] / (found["en"] + found["zh"]) == pytest.approx(0.05, abs=0.01)


def test_all_problems_at_once(tmp_path: Path, make_recipe: Callable[..., Run]) -> None:
    torn = tmp_path / "torn.jsonl.gz"
    lines = "".join(json.dumps({"id": str(i), "question": str(i), "answer": "x"}) + "\n"
                    for i in range(9000))  # fmt: skip
    torn.write_bytes(gzip.compress(lines.encode())[:-100])
    recipe = make_recipe(
        root=str(tmp_path),
        quarantine=["pubmdqa"],
        knowledge=[
            {"source": "pubmed-abstracts", "weight": 1.0}, {"source": "starter-passages-en"},
        ],
        instruct=[{"source": "medquad-qa", "path": str(torn)}, {"source": "medqa"}],
        adapt=[{"source": "pubmedqa"}, {"source": "trialgen"}],
    )  # fmt: skip
    problems, _, _ = inspect_sources(recipe)
    text = "\n".join(problems)
    for part in (
        "did you mean 'pubmedqa'", "'pubmed-abstracts': file not found", "unknown source 'medqa'",
        "truncated gzip", "no PubMedQA here", "limit = number of items", "the weights sum to 1",
    ):  # fmt: skip
        assert part in text
    assert len(problems) == 7


def test_stage_without_sources() -> None:
    problems, estimate, _ = inspect_sources(Run.model_validate({"name": "t", "data": {}}))
    assert len(problems) == 3
    assert estimate == {"knowledge": {}, "instruct": {}, "adapt": {}}


def test_passes_over_a_small_source_are_estimated(
    tmp_path: Path, make_recipe: Callable[..., Run], write_rows: Callable[..., Path]
) -> None:
    small = write_rows("s.jsonl", [{"id": f"s{i}", "text": prose(i, 4)} for i in range(10)])
    large = write_rows("l.jsonl", [{"id": f"l{i}", "text": prose(99 + i, 4)} for i in range(90)])
    sources = [
        {"source": "pubmed-abstracts", "path": str(small), "weight": 0.4},
        {"source": "general-en", "path": str(large), "weight": 0.6},
    ]
    once = make_recipe(knowledge=sources)
    often = make_recipe(knowledge=sources, max_epochs=3.0)
    sizes = [sum(inspect_sources(recipe)[1]["knowledge"].values()) for recipe in (once, often)]
    assert sizes[1] / sizes[0] == pytest.approx(1.2, abs=0.02)
    facts = build(often, tmp_path / "out", key="k", progress=lambda line: None)
    assert sizes[1] == pytest.approx(facts["stages"]["knowledge"]["characters"], rel=0.05)
