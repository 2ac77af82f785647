"""Tables of the imaginary trials: drug-name parts, clinical fields, sentence templates.

In the templates {d} is the drug, {c} the comparator, {pop} the population, {o} the bare outcome
name and {m} the measured quantity ("the rate of relapse").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medexpert.data.construct.trialgen_stats import Kind

Split = Literal["train", "dev", "test"]

# The first letter alone separates the splits, so names are disjoint by construction.
FIRST_LETTERS: dict[Split, str] = {"train": "bdfgkl", "dev": "mnp", "test": "rtvz"}
VOWELS = "aeiou"
MIDDLE = "bdfgklmnprstvz"
SUFFIXES = (
    "trolane", "vexine", "modral", "sorbane", "plidex",
    "quorin", "netrune", "fadrine", "zorume", "merolan",
)  # fmt: skip
_first_letters = "".join(FIRST_LETTERS.values())
if len(set(_first_letters)) != len(_first_letters):
    raise AssertionError("the splits must not share a first letter of drug names")


@dataclass(frozen=True)
class Outcome:
    """An endpoint. `good` is +1 if more of it is better; `level`/`spread` feed the simulation.

    level: control risk (binary), mean (continuous) or events per month (time); spread: standard
    deviation (continuous), else unused. `decimals` applies to printed effects.
    """

    name: str
    kind: Kind
    good: int
    level: float
    spread: float = 0.0
    unit: str = "percentage points"
    decimals: int = 1


@dataclass(frozen=True)
class Field:
    """A clinical field: who was studied, what can be measured, how patients were sub-divided."""

    populations: tuple[str, ...]
    outcomes: tuple[Outcome, ...]


def _b(name: str, good: int, level: float) -> Outcome:
    return Outcome(name, "binary", good, level)


def _c(name: str, good: int, mean: float, sd: float, unit: str, decimals: int) -> Outcome:
    return Outcome(name, "continuous", good, mean, sd, unit, decimals)


def _t(name: str, good: int, monthly: float) -> Outcome:
    return Outcome(name, "time", good, monthly, unit="", decimals=2)


FIELDS: tuple[Field, ...] = (
    Field(
        ("adults with heart failure", "adults with atrial fibrillation", "heart attack survivors"),
        (
            _b("hospital readmission", -1, 0.28),
            _b("restored sinus rhythm", 1, 0.42),
            _c("six-minute walk distance", 1, 340.0, 90.0, "m", 0),
            _c("systolic blood pressure", -1, 138.0, 17.0, "mmHg", 1),
            _t("cardiovascular death", -1, 0.012),
            _t("return to work", 1, 0.06),
        ),
    ),
    Field(
        ("adults with type 2 diabetes", "adults with chronic kidney disease"),
        (
            _b("hypoglycaemic episodes", -1, 0.31),
            _b("good glucose control", 1, 0.46),
            _c("glycated haemoglobin", -1, 7.9, 1.1, "%", 2),
            _c("glomerular filtration rate", 1, 58.0, 14.0, "ml/min", 1),
            _t("first foot ulcer", -1, 0.014),
            _t("foot ulcer healing", 1, 0.05),
        ),
    ),
    Field(
        ("adults with asthma", "adults with chronic bronchitis", "adults with pneumonia"),
        (
            _b("rescue steroid use", -1, 0.33),
            _b("symptom-free status", 1, 0.38),
            _c("breathlessness score", -1, 42.0, 15.0, "points", 1),
            _c("forced expiratory volume", 1, 1900.0, 480.0, "ml", 0),
            _t("severe exacerbation", -1, 0.022),
            _t("weaning from oxygen", 1, 0.07),
        ),
    ),
    Field(
        ("adults with rheumatoid arthritis", "adults with knee osteoarthritis"),
        (
            _b("use of rescue painkillers", -1, 0.41),
            _b("joint response", 1, 0.36),
            _c("pain score", -1, 48.0, 21.0, "points", 1),
            _c("grip strength", 1, 24.0, 8.0, "kg", 1),
            _t("treatment failure", -1, 0.025),
            _t("end of morning stiffness", 1, 0.05),
        ),
    ),
    Field(
        ("patients after bowel surgery", "patients with sepsis", "patients after hip fracture"),
        (
            _b("wound infection", -1, 0.19),
            _b("discharge home", 1, 0.55),
            _c("length of stay", -1, 9.5, 3.8, "days", 2),
            _c("recovery score", 1, 112.0, 22.0, "points", 1),
            _t("recurrent infection", -1, 0.018),
            _t("independent walking", 1, 0.08),
        ),
    ),
    Field(
        ("patients with lung cancer", "patients with colon cancer", "patients with lymphoma"),
        (
            _b("severe neutropenia", -1, 0.24),
            _b("tumour response", 1, 0.37),
            _c("fatigue score", -1, 39.0, 18.0, "points", 1),
            _c("quality-of-life score", 1, 61.0, 19.0, "points", 1),
            _t("disease progression", -1, 0.045),
            _t("resumption of normal diet", 1, 0.06),
        ),
    ),
    Field(
        ("adults with depression", "adults with migraine", "stroke survivors"),
        (
            _b("relapse", -1, 0.34),
            _b("full remission", 1, 0.32),
            _c("symptom severity score", -1, 17.0, 6.0, "points", 2),
            _c("cognitive test score", 1, 24.5, 5.0, "points", 2),
            _t("emergency admission", -1, 0.02),
            _t("return to driving", 1, 0.05),
        ),
    ),
)

SUBGROUPS: tuple[tuple[str, str], ...] = (
    ("those under 65", "those aged 65 or over"), ("women", "men"),
    ("smokers", "non-smokers"), ("mild disease", "advanced disease"),
    ("recent diagnosis", "long-standing disease"),
)  # fmt: skip
SECTION_LABELS: tuple[tuple[str, ...], ...] = (
    ("OBJECTIVE", "METHODS", "RESULTS"),
    ("BACKGROUND", "METHODS", "RESULTS"),
    ("AIMS", "PATIENTS AND METHODS", "RESULTS"),
    ("PURPOSE", "DESIGN AND SETTING", "FINDINGS"),
)

# Keyed by the sign of the effect that is asked about.
DIRECTION_QUESTIONS: dict[int, tuple[str, ...]] = {
    -1: (
        "Does {d} reduce {m} in {pop}, compared with {c}?",
        "Is {m} lower with {d} than with {c} in {pop}?",
        "In {pop}, can {d} bring down {m} relative to {c}?",
        "Is use of {d} rather than {c} associated with a decrease in {m} in {pop}?",
    ),
    1: (
        "Does {d} increase {m} in {pop}, compared with {c}?",
        "Is {m} higher with {d} than with {c} in {pop}?",
        "In {pop}, can {d} push up {m} relative to {c}?",
        "Is use of {d} rather than {c} associated with a rise in {m} in {pop}?",
    ),
}
# Keyed by +1 (claims a benefit) and -1 (claims a harm).
VALUE_QUESTIONS: dict[int, tuple[str, ...]] = {
    1: (
        "Is {d} superior to {c} for {o} in {pop}?",
        "Does {d} give better results than {c} for {o} in {pop}?",
    ),
    -1: (
        "Is {d} inferior to {c} for {o} in {pop}?",
        "Does {d} give worse results than {c} for {o} in {pop}?",
    ),
}
NONINFERIORITY_QUESTIONS = (
    "Is {d} non-inferior to {c} for {o} in {pop}?",
    "Is {d} at least as acceptable as {c} for {o} in {pop}?",
    "Can {d} replace {c} in {pop} with no relevant loss for {o}?",
)
SAFETY_QUESTION = "Is {d} as safe as {c} with regard to {o} in {pop}?"

OPENINGS = (
    "The role of {d} against {c} for {o} in {pop} is unsettled.",
    "To compare {d} and {c} with respect to {o} in {pop}.",
    "Few data exist on {o} in {pop} under {d} and under {c}.",
)
DESIGNS: dict[str, tuple[str, ...]] = {
    # Standard care cannot be masked, and a placebo is pointless without masking.
    "standard care": ("In an open-label trial", "In a randomised trial with masked assessors"),
    "placebo": ("In a double-blind trial", "In a multicentre masked trial"),
    "drug": ("In a double-blind trial", "In an open-label trial", "In a multicentre trial"),
}
ENROLMENT = (
    "{design}, {n} {pop} received {d} (n = {n1}) or {c} (n = {n0}) for {months} months.",
    "{design}, {n1} of {n} {pop} were allocated to {d} and {n0} to {c} for {months} months.",
)
BASELINE = (
    "Mean age was {age} years; {share} % were women.",
    "Baseline features were similar; mean age was {age} years.",
    "Follow-up was complete in {done} % of participants.",
)
