from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.evaluate import metrics
from medexpert.records import UserError

GOLDENS = json.loads(
    (Path(__file__).parents[1] / "reference" / "metric_goldens.json").read_text(encoding="utf-8")
)
EXACT: dict[str, Any] = {"rel": 0, "abs": 1e-12}
LABELS = st.sampled_from(["yes", "no", "maybe", "NO_ANSWER"])


@pytest.mark.parametrize("case", GOLDENS["labels"].values(), ids=list(GOLDENS["labels"]))
def test_label_metrics_equal_scikit_learn(case: dict[str, Any]) -> None:
    truth, preds = case["truth"], case["preds"]
    assert metrics.labels_of(truth, preds) == case["labels"]
    assert metrics.accuracy(truth, preds) == pytest.approx(case["accuracy"], **EXACT)
    assert metrics.macro_f1(truth, preds) == pytest.approx(case["macro_f1"], **EXACT)
    classes = metrics.per_class(truth, preds)
    for name in ("precision", "recall", "f1", "support"):
        values = [classes[label][name] for label in case["labels"]]
        assert values == pytest.approx(case[name], **EXACT)
    table = metrics.confusion(truth, preds)
    assert [[table[t][p] for p in case["labels"]] for t in case["labels"]] == case["confusion"]


def test_probability_metrics_equal_scikit_learn() -> None:
    case = GOLDENS["probabilities"]
    probabilities, gold = np.array(case["probabilities"]), np.array(case["gold"])
    assert metrics.brier(probabilities, gold) == pytest.approx(case["brier"], **EXACT)
    assert metrics.negative_log_likelihood(probabilities, gold) == pytest.approx(
        case["nll"], **EXACT
    )


def test_no_answer_is_a_class_of_its_own_under_the_official_rule() -> None:
    truth, preds = ["yes", "no", "maybe"], ["yes", "no", "NO_ANSWER"]
    assert metrics.macro_f1(truth, preds) == pytest.approx(2 / 4)
    choices = ["yes", "no", "maybe"]
    assert metrics.macro_f1_over(choices, truth, preds) == pytest.approx(2 / 3)
    assert metrics.histogram(preds, choices) == {"yes": 1, "no": 1, "maybe": 0, "NO_ANSWER": 1}


def test_majority_baseline_of_the_official_test_counts() -> None:
    truth = ["yes"] * 276 + ["no"] * 169 + ["maybe"] * 55
    base = metrics.majority_baseline(truth)
    assert (base["label"], base["accuracy"]) == ("yes", 0.552)
    assert base["macro_f1"] == pytest.approx(0.237, abs=5e-4)


def test_ece_by_hand() -> None:
    confidence, correct = np.array([0.55, 0.65, 0.95, 1.0]), np.array([0.0, 1.0, 1.0, 1.0])
    mass = metrics.reliability_equal_mass(confidence, correct, 2)
    assert [(b["n"], b["accuracy"]) for b in mass] == [(2, 0.5), (2, 1.0)]
    assert metrics.expected_calibration_error(mass) == pytest.approx(0.5 * 0.1 + 0.5 * 0.025)
    width = metrics.reliability_equal_width(confidence, correct, 2)
    assert [b["n"] for b in width] == [4]
    assert metrics.expected_calibration_error(width) == pytest.approx(abs(0.75 - 0.7875))


def test_equal_width_bins_are_closed_above() -> None:
    bins = metrics.reliability_equal_width(np.array([0.0, 0.2, 0.2001]), np.ones(3), 5)
    assert [b["n"] for b in bins] == [2, 1]


def test_perfect_and_worst_probabilities() -> None:
    certain = np.eye(3)
    good = metrics.calibration(certain, np.array([0, 1, 2]))
    assert (good["ece_10_equal_mass"], good["brier"], good["nll"]) == (0, 0, 0)
    bad = metrics.calibration(certain, np.array([1, 2, 0]))
    assert (bad["ece_15_equal_width"], bad["brier"]) == (1, 2)
    assert bad["nll"] == pytest.approx(-math.log(metrics.SMALLEST))
    assert bad["classwise_ece_15"] == pytest.approx(2 / 3)


@given(st.lists(st.tuples(LABELS, LABELS), min_size=1, max_size=60))
def test_label_metrics_stay_in_range_and_agree(pairs: list[tuple[str, str]]) -> None:
    truth, preds = [t for t, _ in pairs], [p for _, p in pairs]
    table = metrics.confusion(truth, preds)
    hits = sum(table[label][label] for label in table)
    assert metrics.accuracy(truth, preds) == hits / len(pairs)
    assert 0 <= metrics.macro_f1(truth, preds) <= 1
    assert sum(v["support"] for v in metrics.per_class(truth, preds).values()) == len(pairs)
    assert (metrics.macro_f1(truth, preds) == 1) == (truth == preds)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 15),
)
def test_bins_hold_every_item_once(rows: list[tuple[float, bool]], bins: int) -> None:
    confidence = np.array([c for c, _ in rows])
    correct = np.array([float(b) for _, b in rows])
    for made in (
        metrics.reliability_equal_mass(confidence, correct, bins),
        metrics.reliability_equal_width(confidence, correct, bins),
    ):
        assert sum(b["n"] for b in made) == len(rows)
        assert 0 <= metrics.expected_calibration_error(made) <= 1


def test_official_score() -> None:
    truth = {"1": "yes", "2": "no", "3": "maybe"}
    assert metrics.official_score(dict(reversed(truth.items())), truth) == {
        "accuracy": 1.0,
        "macro_f1": 1.0,
    }


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({"1": "yes"}, r"1 predictions for 3 test items: 2 missing \(first: 2\); allowed: all and"),
        (
            {"1": "yes", "2": "no", "9": "no"},
            r"1 missing \(first: 3\), 1 not in the test set \(first: 9\)",
        ),
    ],
)
def test_official_score_wants_all_and_only_the_test_ids(
    predictions: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        metrics.official_score(predictions, {"1": "yes", "2": "no", "3": "maybe"})


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="2 gold labels and 1 predictions"):
        metrics.accuracy(["yes", "no"], ["yes"])
