"""Wording of the imaginary trials: names, questions, section texts and conclusions.

Words are drawn before any number and never redrawn, and only `conclusion` learns which clause of
the labelling rule fired. Words therefore say nothing about the label that the printed numbers do
not say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from medexpert.data.construct.trialgen_stats import Estimate
from medexpert.data.construct.trialgen_tables import (
    BASELINE,
    DESIGNS,
    DIRECTION_QUESTIONS,
    ENROLMENT,
    FIELDS,
    FIRST_LETTERS,
    MIDDLE,
    NONINFERIORITY_QUESTIONS,
    OPENINGS,
    SAFETY_QUESTION,
    SECTION_LABELS,
    SUBGROUPS,
    SUFFIXES,
    VALUE_QUESTIONS,
    VOWELS,
    Outcome,
    Split,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Wording:
    """The label-independent content of one item: names, endpoints, question type and sentences."""

    drug: str
    comparator: str
    population: str
    primary: Outcome
    secondary: Outcome
    noninferiority: bool
    claim_sign: int  # sign of the primary effect that would support the question
    subgroups: tuple[str, str] | None
    months: int
    question: str
    labels: tuple[str, ...]
    opening: str
    enrolment: str
    baseline: str

    @property
    def secondary_sign(self) -> int:
        """Sign of the secondary effect that would support the question (same clinical sense)."""
        return self.claim_sign * self.primary.good * self.secondary.good

    @property
    def margin_sign(self) -> int:
        """Side of the margin: against the claim for non-inferiority, else on the claim's side."""
        return -self.claim_sign if self.noninferiority else self.claim_sign


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Uniform choice that returns the very object (numpy's `choice` would convert it)."""
    return options[int(rng.integers(len(options)))]


def drug_stems(split: Split) -> frozenset[str]:
    """All four-letter stems (consonant, vowel, consonant, vowel) of the split's drug names."""
    return frozenset(
        a + v + m + w for a in FIRST_LETTERS[split] for v in VOWELS for m in MIDDLE
        for w in VOWELS
    )  # fmt: skip


def drug_name(rng: np.random.Generator, split: Split) -> str:
    """An imaginary name: a stem of the split plus a suffix shared by all splits."""
    letters = (FIRST_LETTERS[split], VOWELS, MIDDLE, VOWELS)
    return "".join(pick(rng, group) for group in letters) + pick(rng, SUFFIXES)


def measure(outcome: Outcome) -> str:
    """The quantity that is compared: a mean for measurements, a rate for events."""
    return f"mean {outcome.name}" if outcome.kind == "continuous" else f"the rate of {outcome.name}"


def draw_wording(rng: np.random.Generator, split: Split) -> Wording:
    """Draw everything that words can say about an item before any number is simulated."""
    field = pick(rng, FIELDS)
    first, second = (int(i) for i in rng.choice(len(field.outcomes), size=2, replace=False))
    primary, secondary = field.outcomes[first], field.outcomes[second]
    drug = drug_name(rng, split)
    noninferiority = bool(rng.random() < 0.35)
    other = drug_name(rng, split)
    while other == drug:
        other = drug_name(rng, split)
    # A margin against placebo makes no sense, so non-inferiority needs an active comparator.
    options = (other, "standard care") if noninferiority else (other, "standard care", "placebo")
    comparator = pick(rng, options)
    claim_sign = primary.good if noninferiority else pick(rng, (-1, 1))
    if noninferiority:
        adverse_event = primary.good < 0 and primary.kind != "continuous"
        forms = NONINFERIORITY_QUESTIONS + ((SAFETY_QUESTION,) if adverse_event else ())
    else:
        forms = DIRECTION_QUESTIONS[claim_sign] + VALUE_QUESTIONS[claim_sign * primary.good]
    population = pick(rng, field.populations)
    words = {
        "d": drug, "c": comparator, "pop": population, "o": primary.name, "m": measure(primary),
    }  # fmt: skip
    baseline = pick(rng, BASELINE).format(
        age=f"{rng.uniform(48, 71):.1f}", share=rng.integers(35, 62), done=rng.integers(84, 99)
    )
    designs = DESIGNS.get(comparator, DESIGNS["drug"])
    enrolment = pick(rng, ENROLMENT).replace("{design}", pick(rng, designs))
    return Wording(
        drug=drug, comparator=comparator, population=population, primary=primary,
        secondary=secondary, noninferiority=noninferiority, claim_sign=claim_sign,
        subgroups=pick(rng, SUBGROUPS) if rng.random() < 0.4 else None,
        months=int(pick(rng, (12, 18, 24, 30, 36))),
        question=_sentence(pick(rng, forms).format(**words)), labels=pick(rng, SECTION_LABELS),
        opening=_sentence(pick(rng, OPENINGS).format(**words)), enrolment=enrolment,
        baseline=baseline,
    )  # fmt: skip


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def number(value: float, decimals: int) -> str:
    """Fixed-point text with an ASCII minus and no negative zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def shown(outcome: Outcome, value: float) -> float:
    """A value of the analysis scale as a reader of the text recovers it (after rounding)."""
    if outcome.kind == "time":
        return math.log(max(0.01, round(math.exp(value), 2)))
    return round(value, outcome.decimals) + 0.0


def shown_p(p: float) -> float:
    """A p-value as a reader recovers it: three decimals, 0.0005 standing for '< 0.001'."""
    return 0.0005 if p < 0.001 else round(p, 3)


def effect_text(outcome: Outcome, est: Estimate, with_p: bool = True) -> str:
    """Effect, 95 % interval and p-value: 'risk difference -6.1 percentage points (95 % CI ...)'."""
    if outcome.kind == "time":
        value, lo, hi = (number(math.exp(v), 2) for v in (est.value, est.lo, est.hi))
        head = f"hazard ratio {value}"
    else:
        value, lo, hi = (number(v, outcome.decimals) for v in (est.value, est.lo, est.hi))
        noun = "risk difference" if outcome.kind == "binary" else "mean difference"
        head = f"{noun} {value} {outcome.unit}"
    p_text = "p < 0.001" if est.p < 0.001 else f"p = {est.p:.3f}"
    return f"{head} (95 % CI {lo} to {hi}{'; ' + p_text if with_p else ''})"


def margin_text(outcome: Outcome, margin: float, sign: int) -> str:
    """The margin as printed; a hazard ratio takes the side (`sign`) on which it lies."""
    if outcome.kind == "time":
        return f"a hazard ratio of {math.exp(sign * margin):.2f}"
    return f"{number(margin, outcome.decimals)} {outcome.unit}"


def _polarity(outcome: Outcome) -> str:
    return f"{outcome.name} ({'higher' if outcome.good > 0 else 'lower'} is better)"


def _arms_text(word: Wording, est: Estimate) -> str:
    name, drug, comp = word.primary.name, word.drug, word.comparator
    if est.kind == "continuous":
        digits = word.primary.decimals
        one, zero = number(est.x1, digits), number(est.x0, digits)
        return f"Mean {name} was {one} with {drug} and {zero} with {comp}"
    return (
        f"{_sentence(name)} was recorded in {est.x1:.0f} of {est.n1} patients on {drug} and "
        f"{est.x0:.0f} of {est.n0} on {comp}"
    )


def sections(
    word: Wording,
    margin: float,
    primary: Estimate,
    secondary: Estimate,
    strata: tuple[Estimate, Estimate] | None,
) -> tuple[str, ...]:
    """The three section texts: purpose, methods (with the margin) and results (numbers only)."""
    limit = margin_text(word.primary, margin, word.margin_sign)
    purpose = "non-inferiority margin" if word.noninferiority else "smallest relevant effect"
    methods = (
        word.enrolment.format(
            n=primary.n1 + primary.n0, pop=word.population, d=word.drug, c=word.comparator,
            n1=primary.n1, n0=primary.n0, months=word.months,
        )
        + f" The primary endpoint was {_polarity(word.primary)} and the key secondary endpoint "
        f"{_polarity(word.secondary)}. The {purpose} was {limit}. "
        f"Effects are {word.drug} versus {word.comparator}."
    )  # fmt: skip
    results = [
        f"{_arms_text(word, primary)}: {effect_text(word.primary, primary)}.",
        f"For {word.secondary.name}, the result was {effect_text(word.secondary, secondary)}.",
    ]
    if strata is not None and word.subgroups is not None:
        texts = [effect_text(word.primary, s, with_p=False) for s in strata]
        results.append(
            f"Primary endpoint by sub-group: {word.subgroups[0]}, {texts[0]}; "
            f"{word.subgroups[1]}, {texts[1]}."
        )
    else:
        # Only the shorter abstracts get the filler, which keeps all of them compact.
        results.insert(0, word.baseline)
    return (word.opening, methods, " ".join(results))


def conclusion(
    word: Wording,
    clause: str,
    margin: float,
    primary: Estimate,
    secondary: Estimate,
    strata: tuple[Estimate, Estimate] | None,
) -> str:
    """The long answer: what the firing clause of the rule means for the question, with numbers."""
    main = effect_text(word.primary, primary)
    limit = margin_text(word.primary, margin, word.margin_sign)
    what, drug, comp = measure(word.primary), word.drug, word.comparator
    asked, reverse = ("higher", "lower") if word.claim_sign > 0 else ("lower", "higher")
    name = word.primary.name
    claim = (
        f"{drug} is non-inferior to {comp} for {name}" if word.noninferiority
        else f"{what} is {asked} with {drug} than with {comp}"
    )  # fmt: skip
    if clause == "subgroup_interaction" and strata is not None and word.subgroups is not None:
        one, two = (effect_text(word.primary, s, with_p=False) for s in strata)
        return (
            f"Whether {claim} depends on the patient: the effect ran in opposite directions for "
            f"{word.subgroups[0]}, {one}, and {word.subgroups[1]}, {two}."
        )
    texts = {
        "conflicting_endpoints": f"It is unclear whether {claim}: the primary result, {main}, and "
        f"{word.secondary.name}, {effect_text(word.secondary, secondary)}, contradict each other.",
        "superiority_shown": f"In {word.population}, {claim}: {main}.",
        "noninferiority_shown": f"In {word.population}, {claim}: {main}, within the margin of "
        f"{limit}.",
        "opposite_direction": f"In {word.population}, {what} is not {asked} but {reverse} with "
        f"{drug} than with {comp}: {main}.",
        "inferiority_shown": f"In {word.population}, {drug} is worse than {comp} for {name}, and "
        f"a loss beyond {limit} is not ruled out: {main}.",
        "relevant_effect_excluded": f"In {word.population}, it is not the case that {claim} to a "
        f"relevant degree: {main} excludes {limit}.",
        "inconclusive": f"The data leave open whether {claim}: {main} is compatible both with no "
        f"difference and with {limit}.",
    }
    return _sentence(texts[clause])
