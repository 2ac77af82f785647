"""Outcome sampling and two-arm estimates for the imaginary trials of `trialgen`.

Every estimate is treated minus control on its *analysis scale*:

* binary: risk difference in percentage points;
* continuous: difference of means in the unit of the outcome;
* time: natural logarithm of the hazard ratio (dimensionless).

In each case the interval and the p-value come from the same pivot, so that p < 0.05 holds exactly
when the 95 % interval excludes zero. That duality lets the labelling rule read intervals only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special  # type: ignore[import-untyped, unused-ignore]

Kind = Literal["binary", "continuous", "time"]
FloatArray = npt.NDArray[np.float64]

KIND_CODES: dict[Kind, float] = {"binary": 0.0, "continuous": 1.0, "time": 2.0}
"""Numeric codes, so that the statistics of an item are a plain mapping of names to floats."""


@dataclass(frozen=True)
class Estimate:
    """A two-arm comparison on the analysis scale, with the arm summaries it was computed from.

    `x` is the number of events (binary, time) or the mean (continuous); `y` is the patient-time in
    months (time), the sample standard deviation (continuous) or 0 (binary). Suffix 1 is the
    treated arm and suffix 0 the control arm.
    """

    kind: Kind
    value: float
    se: float
    lo: float
    hi: float
    p: float
    n1: int
    x1: float
    y1: float
    n0: int
    x0: float
    y0: float


def sample_arm(
    rng: np.random.Generator, kind: Kind, n: int, level: float, spread: float
) -> FloatArray:
    """Draw `n` patients; returns shape (n, 2) with columns (outcome or event flag, months).

    binary: event ~ Bernoulli(level), level a risk in (0, 1). continuous: Normal(level, spread) in
    the unit of the outcome. time: event time ~ Exponential(rate = level per month), censored
    at Uniform(0.6, 1) * spread months (staggered entry, `spread` being the planned follow-up).
    """
    patients = np.zeros((n, 2), dtype=np.float64)
    if kind == "binary":
        patients[:, 0] = rng.random(n) < level
    elif kind == "continuous":
        patients[:, 0] = rng.normal(level, spread, n)
    else:
        event_time = rng.exponential(1.0 / level, n)
        censoring = spread * rng.uniform(0.6, 1.0, n)
        patients[:, 0] = event_time <= censoring
        patients[:, 1] = np.minimum(event_time, censoring)
    return patients


def planned_se(kind: Kind, n: int, level: float, spread: float) -> float:
    """Standard error expected at the design stage with `n` patients in each arm, under no effect.

    binary: 100 sqrt(2 q (1 - q) / n), q = level. continuous: sd sqrt(2 / n). time: sqrt(2 / d),
    with d = n (1 - exp(-0.8 * rate * months)) expected events per arm (0.8 = mean share of the
    planned follow-up that is observed).
    """
    if kind == "binary":
        return 100.0 * math.sqrt(2.0 * level * (1.0 - level) / n)
    if kind == "continuous":
        return spread * math.sqrt(2.0 / n)
    return math.sqrt(2.0 / (n * -math.expm1(-0.8 * level * spread)))


def shift_level(kind: Kind, level: float, effect: float) -> float:
    """Level of the treated arm when the true effect is `effect` on the analysis scale.

    binary: level + effect / 100, kept within [0.02, 0.98]. continuous: level + effect.
    time: level * exp(effect).
    """
    if kind == "binary":
        return min(0.98, max(0.02, level + effect / 100.0))
    if kind == "continuous":
        return level + effect
    return level * math.exp(effect)


def estimate(kind: Kind, treated: FloatArray, control: FloatArray) -> Estimate | None:
    """Compare two arms; None when an arm is too sparse for the large-sample formulas.

    binary: d = 100 (p1 - p0), se = 100 sqrt(p1 q1 / n1 + p0 q0 / n0) (unpooled Wald), normal
    quantiles. continuous: Welch, se = sqrt(s1^2 / n1 + s0^2 / n0), Student t with Satterthwaite
    degrees of freedom. time: d = log((e1 / T1) / (e0 / T0)), se = sqrt(1 / e1 + 1 / e0) (constant
    hazards, T patient-months), normal quantiles. Interval: d -/+ q(0.975) se;
    p = 2 P(> |d| / se).
    """
    n1, n0 = len(treated), len(control)
    df = math.inf
    y1 = y0 = 0.0
    if kind == "continuous":
        x1, x0 = float(treated[:, 0].mean()), float(control[:, 0].mean())
        y1, y0 = float(treated[:, 0].std(ddof=1)), float(control[:, 0].std(ddof=1))
        v1, v0 = y1**2 / n1, y0**2 / n0
        df = (v1 + v0) ** 2 / (v1**2 / (n1 - 1) + v0**2 / (n0 - 1))
        value, se = x1 - x0, math.sqrt(v1 + v0)
    else:
        x1, x0 = float(treated[:, 0].sum()), float(control[:, 0].sum())
        # Fewer than five events or non-events make the Wald interval meaningless.
        if min(x1, x0, n1 - x1, n0 - x0) < 5:
            return None
        if kind == "binary":
            r1, r0 = x1 / n1, x0 / n0
            value = 100.0 * (r1 - r0)
            se = 100.0 * math.sqrt(r1 * (1 - r1) / n1 + r0 * (1 - r0) / n0)
        else:
            y1, y0 = float(treated[:, 1].sum()), float(control[:, 1].sum())
            value = math.log((x1 / y1) / (x0 / y0))
            se = math.sqrt(1.0 / x1 + 1.0 / x0)
    if math.isinf(df):
        quantile = float(special.ndtri(0.975))
        p = 2.0 * float(special.ndtr(-abs(value) / se))
    else:
        quantile = float(special.stdtrit(df, 0.975))
        p = 2.0 * float(special.stdtr(df, -abs(value) / se))
    half = quantile * se
    return Estimate(kind, value, se, value - half, value + half, p, n1, x1, y1, n0, x0, y0)
