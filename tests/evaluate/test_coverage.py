from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate.coverage import auroc, risk_coverage, selective_risks

GOLDENS = json.loads(
    (Path(__file__).parents[1] / "reference" / "statistic_goldens.json").read_text()
)


@pytest.mark.parametrize("case", GOLDENS["auroc"])
def test_auroc_equals_scikit_learn(case: dict[str, list[float]]) -> None:
    found = auroc(np.array(case["score"]), np.array(case["positive"], dtype=float))
    assert found == pytest.approx(case["auroc"], rel=1e-12)


def test_auroc_needs_both_kinds() -> None:
    assert auroc(np.array([0.1, 0.2]), np.ones(2)) is None


def test_a_curve_by_hand() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    correct = np.array([1.0, 0.0, 1.0, 0.0])
    assert selective_risks(confidence, correct).tolist() == [0, 1 / 2, 1 / 3, 1 / 2]
    found = risk_coverage(confidence, correct)
    assert found["aurc"] == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    best = (0 + 0 + 1 / 3 + 1 / 2) / 4
    assert found["excess_aurc"] == pytest.approx(found["aurc"] - best)
    assert found["auroc"] == 0.75
    assert found["curve"][-1] == {"coverage": 1.0, "n": 4, "risk": 0.5}


@given(st.lists(st.tuples(st.sampled_from([0.4, 0.6, 0.8]), st.booleans()), min_size=1))
def test_the_order_of_questions_does_not_matter_and_all_coverage_is_the_error(
    pairs: list[tuple[float, bool]],
) -> None:
    def curve(given: list[tuple[float, bool]]) -> np.ndarray:
        confidence, correct = (np.array(column, dtype=float) for column in zip(*given, strict=True))
        return selective_risks(confidence, correct)

    one = curve(pairs)
    assert np.allclose(one, curve(pairs[::-1]))
    assert one[-1] == pytest.approx(sum(not right for _, right in pairs) / len(pairs))
