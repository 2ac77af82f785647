"""Tests of the imaginary-trial generator: exactness, statistics, and what words give away."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

from medexpert.data.construct.trialgen import (
    ANSWERS,
    TrialItem,
    decide,
    generate,
    label_counts,
    to_pubmedqa,
)
from medexpert.data.construct.trialgen_tables import SUFFIXES, Split
from medexpert.data.construct.trialgen_text import drug_stems

SPLITS: tuple[Split, ...] = ("train", "dev", "test")
NAME = re.compile(rf"\b([a-z]{{4}})(?:{'|'.join(SUFFIXES)})\b")
CLAUSES = {
    "subgroup_interaction": "maybe",
    "conflicting_endpoints": "maybe",
    "inconclusive": "maybe",
    "superiority_shown": "yes",
    "noninferiority_shown": "yes",
    "opposite_direction": "no",
    "inferiority_shown": "no",
    "relevant_effect_excluded": "no",
}


def prompt(item: TrialItem) -> str:
    return " ".join((*item.contexts, item.question))


@pytest.fixture(scope="module")
def train() -> list[TrialItem]:
    return list(generate(1500, seed=11, split="train"))


@pytest.fixture(scope="module")
def held_out() -> list[TrialItem]:
    return list(generate(500, seed=11, split="test"))


def test_same_arguments_give_identical_bytes() -> None:
    def dump(seed: int) -> str:
        items = [dataclasses.asdict(item) for item in generate(40, seed, "dev")]
        return json.dumps(items)

    assert dump(3) == dump(3)
    assert dump(3) != dump(4)


def test_words_of_an_item_do_not_depend_on_n_or_balance() -> None:
    few = list(generate(10, 5, "train"))
    many = list(generate(30, 5, "train", balance={"maybe": 1.0}))
    assert [a.question for a in few] == [b.question for b in many[:10]]
    assert [a.labels for a in few] == [b.labels for b in many[:10]]


def test_item_shape(train: list[TrialItem]) -> None:
    for index, item in enumerate(train):
        assert item.id == f"trialgen-train-11-{index}"
        assert item.question.endswith("?")
        assert len(item.contexts) == len(item.labels) == 3
        assert item.labels[0].isupper()
        assert item.long_answer.endswith(".")
        assert all(type(value) is float and math.isfinite(value) for value in item.numbers.values())
        assert 110 <= len(prompt(item).split()) <= 190
        assert prompt(item).isascii()
        assert "{" not in prompt(item) + item.long_answer
        assert "signific" not in prompt(item)


def test_published_schema(held_out: list[TrialItem]) -> None:
    records = to_pubmedqa(held_out[:5])
    assert list(records) == [item.id for item in held_out[:5]]
    record = json.loads(json.dumps(records))[held_out[0].id]
    assert record == {
        "QUESTION": held_out[0].question,
        "CONTEXTS": list(held_out[0].contexts),
        "LABELS": list(held_out[0].labels),
        "MESHES": [],
        "YEAR": None,
        "reasoning_required_pred": held_out[0].answer,
        "reasoning_free_pred": held_out[0].answer,
        "final_decision": held_out[0].answer,
        "LONG_ANSWER": held_out[0].long_answer,
    }
    with pytest.raises(ValueError, match="duplicate"):
        to_pubmedqa([held_out[0], held_out[0]])


def test_drug_names_are_disjoint_between_splits() -> None:
    stems = {split: drug_stems(split) for split in SPLITS}
    assert not stems["train"] & stems["dev"]
    assert not stems["train"] & stems["test"]
    assert not stems["dev"] & stems["test"]
    for split in SPLITS:
        for item in generate(60, 2, split):
            found = set(NAME.findall(prompt(item) + item.long_answer))
            assert found
            assert found <= stems[split]


def test_label_follows_from_the_numbers(train: list[TrialItem]) -> None:
    for item in train:
        assert decide(item.numbers) == (item.answer, item.rule)
    assert {item.rule for item in train} == set(CLAUSES)


@pytest.mark.parametrize(
    ("n", "balance", "expected"),
    [
        (20, None, (9, 7, 4)),
        (7, None, (3, 3, 1)),  # shares 3.15, 2.45, 1.40: the largest rest is that of "no"
        (3, {"yes": 1, "no": 1, "maybe": 1}, (1, 1, 1)),
        (4, {"yes": 1, "no": 1, "maybe": 1}, (2, 1, 1)),
        (5, {"no": 2.0}, (0, 5, 0)),
        (0, None, (0, 0, 0)),
    ],
)
def test_exact_label_counts(
    n: int, balance: Mapping[str, float] | None, expected: tuple[int, int, int]
) -> None:
    items = list(generate(n, 1, "dev", balance))
    counts = Counter(item.answer for item in items)
    assert tuple(counts[answer] for answer in ANSWERS) == expected
    assert tuple(label_counts(n, balance).values()) == expected


def test_labels_are_in_mixed_order(train: list[TrialItem]) -> None:
    assert set(label_counts(1500).values()) == {675, 525, 300}
    assert {item.answer for item in train[:30]} == set(ANSWERS)


def test_bad_arguments_fail_at_the_call() -> None:
    with pytest.raises(ValueError, match="split"):
        generate(1, 0, "valid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        generate(1, -1, "train")
    with pytest.raises(ValueError, match="n must"):
        generate(-1, 0, "train")
    for balance in ({"perhaps": 1.0}, {}, {"yes": 0.0}, {"yes": -1.0, "no": 2.0}):
        with pytest.raises(ValueError, match="balance"):
            generate(1, 0, "train", balance)


def _reference(kind: float, s: Mapping[str, float]) -> tuple[float, float, float]:
    """(p, lo, hi) by scipy.stats from the arm summaries alone."""
    if kind == 1:  # Welch: rebuild samples with the exact means and standard deviations
        arms = []
        for arm in "10":
            base = np.linspace(-1.0, 1.0, int(s["n" + arm]))
            arms.append(s["x" + arm] + s["y" + arm] * base / base.std(ddof=1))
        result = stats.ttest_ind(*arms, equal_var=False)
        interval = result.confidence_interval(0.95)
        return float(result.pvalue), float(interval.low), float(interval.high)
    if kind == 0:
        p1, p0 = s["x1"] / s["n1"], s["x0"] / s["n0"]
        value = 100 * (p1 - p0)
        se = 100 * math.sqrt(p1 * (1 - p1) / s["n1"] + p0 * (1 - p0) / s["n0"])
    else:
        value = math.log(s["x1"] * s["y0"] / (s["y1"] * s["x0"]))
        se = math.sqrt(1 / s["x1"] + 1 / s["x0"])
    law = stats.norm(value, se)
    p = float(2 * stats.norm.sf(abs(value) / se))
    return p, float(law.ppf(0.025)), float(law.ppf(0.975))


def test_statistics_agree_with_scipy(held_out: list[TrialItem]) -> None:
    seen: Counter[float] = Counter()
    for item in held_out[:150]:
        for prefix in ("primary", "secondary", "subgroup_a", "subgroup_b"):
            start = prefix + "_"
            s = {k.removeprefix(start): v for k, v in item.numbers.items() if k.startswith(start)}
            if not s:
                continue
            seen[s["kind"]] += 1
            expected = _reference(s["kind"], s)
            assert (s["p"], s["lo"], s["hi"]) == pytest.approx(expected, rel=1e-6, abs=1e-9)
            assert (s["p"] < 0.05) == (s["lo"] > 0 or s["hi"] < 0)
    assert set(seen) == {0.0, 1.0, 2.0}


def test_contexts_withhold_the_conclusion(train: list[TrialItem]) -> None:
    for item in train:
        # The part before the first colon states the finding; what follows repeats numbers.
        for part in (*re.split(r"(?<=\.) ", item.long_answer), item.long_answer.split(":")[0]):
            assert part.casefold() not in prompt(item).casefold()


_BOUND = st.floats(-50, 50, allow_nan=False)
_PREFIXES = ("primary", "secondary", "subgroup_a", "subgroup_b")


@st.composite
def statistics(draw: st.DrawFn) -> dict[str, float]:
    numbers = {
        "claim_sign": draw(st.sampled_from([-1.0, 1.0])),
        "secondary_sign": draw(st.sampled_from([-1.0, 1.0])),
        "noninferiority": draw(st.sampled_from([0.0, 1.0])),
        "margin": draw(st.floats(0.01, 50)),
    }
    for prefix in _PREFIXES[: draw(st.sampled_from([2, 4]))]:
        numbers[f"{prefix}_lo"], numbers[f"{prefix}_hi"] = sorted((draw(_BOUND), draw(_BOUND)))
    return numbers


@settings(max_examples=300, deadline=None)
@given(statistics())
def test_rule_is_total_and_mirror_symmetric(numbers: dict[str, float]) -> None:
    answer, clause = decide(numbers)
    assert CLAUSES[clause] == answer
    mirrored = dict(numbers)
    for sign in ("claim_sign", "secondary_sign"):
        mirrored[sign] = -numbers[sign]
    for prefix in _PREFIXES:
        if f"{prefix}_lo" in numbers:
            mirrored[f"{prefix}_lo"] = -numbers[f"{prefix}_hi"]
            mirrored[f"{prefix}_hi"] = -numbers[f"{prefix}_lo"]
    assert decide(mirrored) == (answer, clause)


@pytest.mark.parametrize(
    ("primary", "secondary", "noninferiority", "clause"),
    [
        ((1, 5), (-1, 1), 0, "superiority_shown"),
        ((-5, -1), (-1, 1), 0, "opposite_direction"),
        ((-1, 2), (-1, 1), 0, "relevant_effect_excluded"),
        ((-1, 4), (-1, 1), 0, "inconclusive"),
        ((1, 5), (-2, -1), 0, "conflicting_endpoints"),
        ((-5, -1), (1, 2), 0, "conflicting_endpoints"),
        ((-1, 2), (1, 2), 0, "relevant_effect_excluded"),
        ((-2, 2), (-1, 1), 1, "noninferiority_shown"),
        ((-2, -1), (-1, 1), 1, "noninferiority_shown"),
        ((-4, -1), (-1, 1), 1, "inferiority_shown"),
        ((-4, 1), (-1, 1), 1, "inconclusive"),
    ],
)
def test_rule_on_hand_made_intervals(
    primary: tuple[float, float], secondary: tuple[float, float], noninferiority: int, clause: str
) -> None:
    numbers = {
        "claim_sign": 1.0, "secondary_sign": 1.0, "noninferiority": float(noninferiority),
        "margin": 3.0, "primary_lo": primary[0], "primary_hi": primary[1],
        "secondary_lo": secondary[0], "secondary_hi": secondary[1],
    }  # fmt: skip
    assert decide(numbers) == (CLAUSES[clause], clause)
    split = {"subgroup_a_lo": 1, "subgroup_a_hi": 6, "subgroup_b_lo": -6, "subgroup_b_hi": -1}
    assert decide(numbers | split) == ("maybe", "subgroup_interaction")


# --- what the text gives away, and what it suffices for --------------------------------------

_NUMBER = r"(-?\d+(?:\.\d+)?)"
_EFFECT = re.compile(rf"(risk difference|mean difference|hazard ratio) [^(]*\(95 % CI {_NUMBER} to "
                     rf"{_NUMBER}")  # fmt: skip
_MARGIN = re.compile(rf"(?:relevant effect|margin) was (a hazard ratio of )?{_NUMBER}")
_NONINFERIORITY = re.compile(r"non-inferior|as acceptable|as safe|replace")
_DOWN = re.compile(r"reduce|lower|bring down|decrease")
_UP = re.compile(r"increase|higher|push up|a rise")
_BETTER = re.compile(r"superior|better")


def read_numbers(text: str, question: str) -> dict[str, float]:
    """Recover what `decide` needs from the printed text alone."""
    first, second = (
        1.0 if word == "higher" else -1.0
        for word in re.findall(r"\((higher|lower) is better\)", text)
    )
    noninferiority = bool(_NONINFERIORITY.search(question))
    if noninferiority or _BETTER.search(question):
        sign = first
    elif _DOWN.search(question) or _UP.search(question):
        sign = 1.0 if _UP.search(question) else -1.0
    else:
        sign = -first
    match = _MARGIN.search(text)
    assert match is not None
    margin = abs(math.log(float(match[2]))) if match[1] else float(match[2])
    numbers = {
        "claim_sign": sign, "secondary_sign": sign * first * second,
        "noninferiority": float(noninferiority), "margin": margin,
    }  # fmt: skip
    effects = _EFFECT.findall(text)
    assert len(effects) in (2, 4)
    for prefix, (kind, *bounds) in zip(_PREFIXES, effects, strict=False):
        for end, bound in zip(("lo", "hi"), bounds, strict=True):
            value = float(bound)
            numbers[f"{prefix}_{end}"] = math.log(value) if kind == "hazard ratio" else value
    return numbers


def test_printed_numbers_suffice(train: list[TrialItem], held_out: list[TrialItem]) -> None:
    items = train + held_out
    hits = sum(
        decide(read_numbers(" ".join(item.contexts), item.question))[0] == item.answer
        for item in items
    )
    print(f"numeric oracle: {hits / len(items):.3f}")
    assert hits / len(items) > 0.95


@pytest.mark.parametrize(
    "token_pattern", [r"(?u)\b\w+\b", r"[a-z]+|[<=]|-?\d+(?:\.\d+)?"], ids=["words", "numbers"]
)
def test_bag_of_words_stays_weak(
    train: list[TrialItem], held_out: list[TrialItem], token_pattern: str
) -> None:
    text = pytest.importorskip("sklearn.feature_extraction.text")
    linear = pytest.importorskip("sklearn.linear_model")
    vectors = text.CountVectorizer(ngram_range=(1, 2), min_df=2, token_pattern=token_pattern)
    features = vectors.fit_transform([prompt(item) for item in train])
    model = linear.LogisticRegression(C=0.1, max_iter=300)
    model.fit(features, [item.answer for item in train])
    labels = [item.answer for item in held_out]
    accuracy = model.score(vectors.transform([prompt(item) for item in held_out]), labels)
    majority = Counter(labels).most_common(1)[0][1] / len(labels)
    print(f"bag of words: {accuracy:.3f}; majority: {majority:.3f}")
    assert accuracy < 0.70
