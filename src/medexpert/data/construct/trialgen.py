"""`trialgen`: seeded PubMedQA-shaped items about imaginary trials, for the demo and for tests.

Patients are simulated, the statistics are computed from them, and the label follows from the
statistics by `decide`. Drugs and results are invented: never report them as medical findings.

Item i of `generate(n, seed, split)` draws its words (drug, endpoints, question type) from a random
stream that depends on (seed, split, i) only. Its label comes from a shuffle of exact label counts
and therefore depends on n and `balance` too; its numbers follow from the words and the label.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medexpert.data.construct import trialgen_text as text
from medexpert.data.construct.trialgen_stats import (
    KIND_CODES,
    Estimate,
    estimate,
    planned_se,
    sample_arm,
    shift_level,
)
from medexpert.data.construct.trialgen_tables import Outcome, Split
from medexpert.data.construct.trialgen_text import Wording

Answer = Literal["yes", "no", "maybe"]
ANSWERS: tuple[Answer, ...] = ("yes", "no", "maybe")
DEFAULT_BALANCE: Mapping[str, float] = {"yes": 0.45, "no": 0.35, "maybe": 0.20}
MAX_ATTEMPTS = 20_000

_SPLIT_CODES: dict[Split, int] = {"train": 0, "dev": 1, "test": 2}
# Random streams of a split: words, then numbers (both per item), then the order of the labels.
_WORDS, _NUMBERS, _ORDER = 0, 1, 2


@dataclass(frozen=True)
class TrialItem:
    """One imaginary trial as a question with context, conclusion and label.

    `numbers` holds the unrounded statistics that decide the label (keys: see `decide`), with the
    arm summaries behind them; the contexts print the same statistics rounded, and items on which
    rounding would change the outcome of the rule are never produced.
    """

    id: str
    question: str
    contexts: tuple[str, ...]
    labels: tuple[str, ...]
    long_answer: str
    answer: Answer
    numbers: dict[str, float]
    rule: str


def _oriented(numbers: Mapping[str, float], prefix: str, sign: float) -> tuple[float, float]:
    """Interval of an effect turned so that positive values support the question."""
    lo, hi = numbers[f"{prefix}_lo"], numbers[f"{prefix}_hi"]
    return (lo, hi) if sign > 0 else (-hi, -lo)


def decide(numbers: Mapping[str, float]) -> tuple[Answer, str]:
    """The labelling rule: (label, name of the clause that fired). Total on finite numbers.

    Reads 95 % intervals [lo, hi], turned so that positive supports the question; m = margin > 0.
    'Supports' means lo > 0 (equivalently p < 0.05 in the asked direction) or, for a
    non-inferiority question, lo > -m. 'Opposes' means hi < 0 and not 'supports'.
    The first clause that applies decides:

    1. subgroup_interaction, maybe: one sub-group has lo > 0 and the other hi < 0;
    2. conflicting_endpoints, maybe: the primary supports and the secondary has hi < 0, or the
       primary opposes and the secondary has lo > 0;
    3. superiority_shown / noninferiority_shown, yes: the primary supports;
    4. opposite_direction / inferiority_shown, no: the primary opposes;
    5. relevant_effect_excluded, no (not for non-inferiority): hi < m, so the interval has zero in
       it but no relevant effect;
    6. inconclusive, maybe: the interval holds both zero and the margin.

    Keys: claim_sign, secondary_sign (-1 or 1), noninferiority (0 or 1), margin, primary_lo,
    primary_hi, secondary_lo, secondary_hi and, with sub-groups, subgroup_{a,b}_{lo,hi}.
    """
    sign, margin = numbers["claim_sign"], numbers["margin"]
    noninferiority = numbers["noninferiority"] > 0
    lo, hi = _oriented(numbers, "primary", sign)
    lo2, hi2 = _oriented(numbers, "secondary", numbers["secondary_sign"])
    if "subgroup_a_lo" in numbers:
        lo_a, hi_a = _oriented(numbers, "subgroup_a", sign)
        lo_b, hi_b = _oriented(numbers, "subgroup_b", sign)
        if (lo_a > 0 and hi_b < 0) or (hi_a < 0 and lo_b > 0):
            return "maybe", "subgroup_interaction"
    supports = lo > -margin if noninferiority else lo > 0
    opposes = hi < 0 and not supports
    if (supports and hi2 < 0) or (opposes and lo2 > 0):
        return "maybe", "conflicting_endpoints"
    if supports:
        return "yes", "noninferiority_shown" if noninferiority else "superiority_shown"
    if opposes:
        return "no", "inferiority_shown" if noninferiority else "opposite_direction"
    if not noninferiority and hi < margin:
        return "no", "relevant_effect_excluded"
    return "maybe", "inconclusive"


@dataclass(frozen=True)
class _Plan:
    """What a trial fixes in advance: patients per arm, control levels, margin (analysis scale)."""

    n: int
    primary_level: float
    secondary_level: float
    margin: float
    primary_se: float
    secondary_se: float
    first_share: float  # share of patients in the first sub-group


def _spread(outcome: Outcome, months: int) -> float:
    """Second parameter of the outcome: follow-up in months (time) or standard deviation."""
    return float(months) if outcome.kind == "time" else outcome.spread


def _draw_plan(rng: np.random.Generator, word: Wording) -> _Plan:
    """Draw the plan; margin = k * planned standard error, k in [2.6, 3.4], as printed.

    Between 1.96 and 3.92 standard errors an interval can exclude the margin, hold it together
    with zero, or lie beyond zero: every clause is within reach, so sample size and margin do not
    give the label away.
    """
    first, second = word.primary, word.secondary
    n = round(math.exp(rng.uniform(math.log(130), math.log(700))))
    level = first.level * rng.uniform(0.85, 1.15)
    level2 = second.level * rng.uniform(0.85, 1.15)
    se = planned_se(first.kind, n, level, _spread(first, word.months))
    se2 = planned_se(second.kind, n, level2, _spread(second, word.months))
    margin = abs(text.shown(first, word.margin_sign * rng.uniform(2.6, 3.4) * se))
    return _Plan(n, level, level2, margin, se, se2, rng.uniform(0.42, 0.58))


def _draw_clause(rng: np.random.Generator, word: Wording, answer: Answer) -> str:
    """Draw the clause by which the wanted label shall come about."""
    if answer == "yes":
        return "noninferiority_shown" if word.noninferiority else "superiority_shown"
    if answer == "no":
        if word.noninferiority:
            return "inferiority_shown"
        return "opposite_direction" if rng.random() < 0.55 else "relevant_effect_excluded"
    if word.subgroups is not None and rng.random() < 0.5:
        return "subgroup_interaction"
    return "conflicting_endpoints" if rng.random() < 0.5 else "inconclusive"


def _draw_effects(
    rng: np.random.Generator, clause: str, noninferiority: bool, k: float
) -> tuple[float, float, float]:
    """True effects (first stratum, second stratum, secondary), in planned standard errors.

    Positive supports the question; k is the margin on the same scale. These are proposals near
    the wanted clause: chance in the simulated patients and `decide` have the last word.
    """
    strong, weak = rng.uniform(1.8, 4.6), rng.uniform(-1.5, 1.5)
    flip = 1.0 if rng.random() < 0.5 else -1.0
    # Half of the secondary endpoints differ clearly whatever the label, so that a small second
    # p-value tells nothing by itself.
    second = rng.uniform(2.2, 4.6) if rng.random() < 0.5 else weak
    if clause == "subgroup_interaction":
        # A stratum of half the size has a standard error larger by sqrt(2).
        one, two = rng.uniform(2.8, 6.5, size=2)
        return flip * one, -flip * two, second * (1.0 if rng.random() < 0.5 else -1.0)
    if clause == "conflicting_endpoints":
        benefit = rng.uniform(2.2 - k, 3.0) if noninferiority else strong
        main = benefit if flip > 0 else -strong
        second = -flip * rng.uniform(2.2, 4.6)
    elif clause == "noninferiority_shown":
        main = rng.uniform(1.6 - k, 3.0)
    elif clause == "superiority_shown":
        main = strong
    elif clause in ("opposite_direction", "inferiority_shown"):
        main, second = -strong, -second
    elif clause == "relevant_effect_excluded":
        main, second = rng.uniform(-2.2, k - 1.6), flip * second
    else:
        main = rng.uniform(-2.2, 2.2 - k) if noninferiority else rng.uniform(k - 2.2, 2.2)
        second = flip * second
    jitter = rng.normal(0.0, 0.8)
    return main + jitter, main - jitter, second


@dataclass(frozen=True)
class _Trial:
    """The estimates of one simulated trial."""

    primary: Estimate
    secondary: Estimate
    strata: tuple[Estimate, Estimate] | None


def _simulate(
    rng: np.random.Generator, word: Wording, plan: _Plan, effects: tuple[float, float, float]
) -> _Trial | None:
    """Enrol 2n patients in two strata, allocate at random, draw outcomes, estimate effects.

    The primary estimate pools the strata without adjustment. None if an arm is too sparse.
    """
    in_first = int(rng.binomial(2 * plan.n, plan.first_share))
    treated, control, strata = [], [], []
    spread = _spread(word.primary, word.months)
    kind = word.primary.kind
    for size, effect in zip((in_first, 2 * plan.n - in_first), effects[:2], strict=True):
        n1 = int(rng.binomial(size, 0.5))
        level = shift_level(kind, plan.primary_level, word.claim_sign * effect * plan.primary_se)
        treated.append(sample_arm(rng, kind, n1, level, spread))
        control.append(sample_arm(rng, kind, size - n1, plan.primary_level, spread))
        strata.append(estimate(kind, treated[-1], control[-1]))
    primary = estimate(kind, np.concatenate(treated), np.concatenate(control))
    if primary is None:
        return None
    kind, spread = word.secondary.kind, _spread(word.secondary, word.months)
    shift = word.secondary_sign * effects[2] * plan.secondary_se
    secondary = estimate(
        kind,
        sample_arm(rng, kind, primary.n1, shift_level(kind, plan.secondary_level, shift), spread),
        sample_arm(rng, kind, primary.n0, plan.secondary_level, spread),
    )
    first, second = strata
    if secondary is None or first is None or second is None:
        return None
    return _Trial(primary, secondary, (first, second) if word.subgroups else None)


def _statistics(word: Wording, margin: float, trial: _Trial, printed: bool) -> dict[str, float]:
    """The mapping that `decide` reads; `printed` rounds the bounds as the text shows them."""
    numbers = {
        "claim_sign": float(word.claim_sign),
        "secondary_sign": float(word.secondary_sign),
        "noninferiority": float(word.noninferiority),
        "margin": margin,
    }
    parts = [
        ("primary", word.primary, trial.primary),
        ("secondary", word.secondary, trial.secondary),
    ]
    if trial.strata is not None:
        parts += [
            (f"subgroup_{letter}", word.primary, stratum)
            for letter, stratum in zip("ab", trial.strata, strict=True)
        ]
    for prefix, outcome, est in parts:
        for name in ("value", "se", "lo", "hi", "p", "n1", "x1", "y1", "n0", "x0", "y0"):
            value = float(getattr(est, name))
            if printed and name in ("lo", "hi"):
                value = text.shown(outcome, value)
            numbers[f"{prefix}_{name}"] = value
        numbers[f"{prefix}_kind"] = KIND_CODES[est.kind]
    return numbers


def _reads_alike(word: Wording, margin: float, trial: _Trial, clause: str) -> bool:
    """Whether the printed bounds and p-values lead to `clause` and agree with each other.

    Bounds that print as exactly zero or as the margin are refused: they read as ties.
    """
    printed = _statistics(word, margin, trial, printed=True)
    bounds = {name: value for name, value in printed.items() if name.endswith(("_lo", "_hi"))}
    if decide(printed)[1] != clause or 0.0 in bounds.values():
        return False
    if any(math.isclose(abs(bounds[f"primary_{end}"]), margin) for end in ("lo", "hi")):
        return False
    return all(
        (text.shown_p(est.p) < 0.05) == (printed[f"{prefix}_lo"] > 0 or printed[f"{prefix}_hi"] < 0)
        for prefix, est in (("primary", trial.primary), ("secondary", trial.secondary))
    )


def _build(seed: int, split: Split, index: int, answer: Answer) -> TrialItem:
    """Draw the words of item `index`, then simulate trials until one yields `answer`.

    Words are never redrawn: rejecting numbers only keeps wording independent of the label.
    """
    code = _SPLIT_CODES[split]
    words, draws = (
        np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(code, stream, index)))
        for stream in (_WORDS, _NUMBERS)
    )
    word = text.draw_wording(words, split)
    clause = _draw_clause(draws, word, answer)
    for _ in range(MAX_ATTEMPTS):
        plan = _draw_plan(draws, word)
        k = plan.margin / plan.primary_se
        trial = _simulate(draws, word, plan, _draw_effects(draws, clause, word.noninferiority, k))
        if trial is None:
            continue
        numbers = _statistics(word, plan.margin, trial, printed=False)
        if decide(numbers) != (answer, clause):
            continue
        if not _reads_alike(word, plan.margin, trial, clause):
            continue
        results = (trial.primary, trial.secondary, trial.strata)
        return TrialItem(
            id=f"trialgen-{split}-{seed}-{index}",
            question=word.question,
            contexts=text.sections(word, plan.margin, *results),
            labels=word.labels,
            long_answer=text.conclusion(word, clause, plan.margin, *results),
            answer=answer,
            numbers=numbers,
            rule=clause,
        )
    raise RuntimeError(f"no trial with clause {clause} in {MAX_ATTEMPTS} attempts")


def label_counts(n: int, balance: Mapping[str, float] | None = None) -> dict[Answer, int]:
    """Exact counts per label by largest remainder: floor(n w), then one more to the largest rests.

    `balance` maps labels to non-negative weights, normalised to sum to one (missing means zero);
    None takes `DEFAULT_BALANCE`. Ties go to the earlier label of yes, no, maybe.
    """
    weights = DEFAULT_BALANCE if balance is None else balance
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    if set(weights) - set(ANSWERS):
        raise ValueError(f"unknown labels in balance: {sorted(set(weights) - set(ANSWERS))}")
    total = math.fsum(weights.values())
    if not (math.isfinite(total) and total > 0 and min(weights.values()) >= 0):
        raise ValueError("balance needs finite, non-negative weights with a positive sum")
    shares = {answer: n * weights.get(answer, 0.0) / total for answer in ANSWERS}
    counts = {answer: math.floor(share) for answer, share in shares.items()}
    # Rounding the rests keeps ties ties in spite of floating-point noise.
    by_rest = sorted(ANSWERS, key=lambda a: -round(shares[a] - counts[a], 9))
    for answer in by_rest[: n - sum(counts.values())]:
        counts[answer] += 1
    return counts


def generate(
    n: int, seed: int, split: Split, balance: Mapping[str, float] | None = None
) -> Iterator[TrialItem]:
    """Yield `n` items of `split`, the same for the same arguments, with exact label counts.

    Arguments are checked at the call; items are simulated lazily. See the module docstring for
    what of item i depends on `n`.
    """
    if split not in _SPLIT_CODES:
        raise ValueError(f"unknown split {split!r}; expected one of {sorted(_SPLIT_CODES)}")
    if seed < 0:
        raise ValueError(f"seed must not be negative, got {seed}")
    answers = [a for a, count in label_counts(n, balance).items() for _ in range(count)]
    key = (_SPLIT_CODES[split], _ORDER)
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key)).permutation(n)
    return (_build(seed, split, i, answers[int(j)]) for i, j in enumerate(order))


def to_pubmedqa(items: Iterable[TrialItem]) -> dict[str, dict[str, object]]:
    """Items in the published PubMedQA JSON layout, keyed by id.

    MESHES is empty and YEAR is None because the trials never took place. Both *_pred fields hold
    the label: they are annotators' answers in the published files and there is no annotator here.
    """
    records: dict[str, dict[str, object]] = {}
    for item in items:
        if item.id in records:
            raise ValueError(f"duplicate item id {item.id}")
        records[item.id] = {
            "QUESTION": item.question,
            "CONTEXTS": list(item.contexts),
            "LABELS": list(item.labels),
            "MESHES": [],
            "YEAR": None,
            "reasoning_required_pred": item.answer,
            "reasoning_free_pred": item.answer,
            "final_decision": item.answer,
            "LONG_ANSWER": item.long_answer,
        }
    return records
