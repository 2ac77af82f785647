from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medexpert.evaluate import against, grid, seeds
from medexpert.evaluate.compare import comparison
from medexpert.evaluate.statistics import holm

MODEL = ("float32", "weights")


def made(
    fakes: SimpleNamespace, tmp_path: Path, seed_list: list[int], *names: str
) -> list[grid.Outcome]:
    chosen = grid.Settings(Path(), tmp_path)
    tasks = [fakes.task(40, name="one"), fakes.task(25, name="two")]
    cells = grid.plan(tasks, names, seed_list, chosen)
    engine: Any = fakes.engine()
    return grid.evaluate_cells(engine, cells, chosen, model=MODEL, say=lambda line: None)


def test_one_seed_is_exact_mcnemar_and_the_whole_table_is_one_family(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    strategies["direct"], strategies["voc"] = fakes.strategy(0.4), fakes.strategy(0.9)
    outcomes = made(fakes, tmp_path, [0], "direct", "voc")
    rows = against.against_first(outcomes)
    assert [(row.task, row.strategy) for row in rows] == [
        ("one", "voc"), ("two", "voc"), ("all tasks", "voc"),
    ]  # fmt: skip
    for row, first, second in zip(rows[:2], outcomes[::2], outcomes[1::2], strict=True):
        known = comparison(first.cell.folder, second.cell.folder)
        assert row.found.p == pytest.approx(known.mcnemar.p, abs=1e-12)
        assert row.found.difference == pytest.approx(known.accuracy_difference)
    assert rows[2].found.n == 65
    assert rows[2].found.gained == rows[0].found.gained + rows[1].found.gained
    assert [row.holm for row in rows] == holm([row.found.p for row in rows])
    text = against.plain(rows, "direct")
    assert "Holm over the 3 rows" in text
    assert against.markdown(rows, "direct").count("\n| ") == 4


def test_seeds_are_compared_together_and_what_failed_is_left_out(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    strategies["direct"], strategies["voc"] = fakes.strategy(0.4), fakes.strategy(0.6)
    outcomes = made(fakes, tmp_path, [0, 1], "direct", "voc")
    (one, *_) = against.against_first(outcomes)
    tables = [
        seeds.correctness([against.read_predictions(o.cell.folder) for o in outcomes[at : at + 2]])
        for at in (0, 2)
    ]
    assert one.found.seeds_first == one.found.seeds_second == 2
    assert one.found.difference == pytest.approx(float(np.mean(tables[1]) - np.mean(tables[0])))
    outcomes[2] = grid.Outcome(outcomes[2].cell, None, "it broke")
    assert [row.task for row in against.against_first(outcomes)] == ["two"]


def test_one_strategy_has_nothing_to_be_compared_with(
    strategies: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    found = against.against_first(made(fakes, tmp_path, [0], "direct"))
    assert found == []
    assert against.plain(found, "direct") == against.markdown(found, "direct") == ""
