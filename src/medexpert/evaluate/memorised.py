"""Min-K% probability of benchmark texts: evidence, not proof, that a model has read them before.

A text that was read in training tends to have no very unlikely tokens. Min-K% (Shi et al. 2023,
arXiv 2310.16789) is the mean of the lowest k % of a text's token log-probabilities; here the items
of one set (test) are compared with those of another (a dev fold, or newer texts) by AUROC.

Limits, told with every number: texts of unlike length, age, or style differ without having been
read; on large models trained for one epoch the method is close to chance (Duan et al. 2024); an
AUROC near 0.5 does not show that nothing was read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from medexpert.evaluate.coverage import auroc
from medexpert.evaluate.metrics import Floats
from medexpert.evaluate.statistics import Interval
from medexpert.records import Question, UserError

if TYPE_CHECKING:
    from medexpert.engines.base import TokenScorer

LIMITS = (
    "Evidence, not proof: texts that differ in length, age or style differ in Min-K% without "
    "having been read, and on large models trained once over their data the method is near chance. "
    "An AUROC near 0.5 does not show that nothing was read."
)
SHARE = 0.2
RESAMPLES = 2_000


def min_k(logprobs: Sequence[float], share: float = SHARE) -> float:
    """Mean of the lowest `share` of the log-probabilities (nats), at least one of them.

    Raises ValueError for no token or a share outside (0, 1].
    """
    if not logprobs or not 0 < share <= 1:
        raise ValueError(f"{len(logprobs)} tokens, share {share}")
    taken = max(1, math.floor(len(logprobs) * share))
    return math.fsum(sorted(logprobs)[:taken]) / taken


def item_text(question: Question) -> str:
    """What of an item could have been read: the question, and its context when it has one."""
    return "\n".join([*question.contexts, question.question])


def memorisation(
    scorer: TokenScorer,
    items: Sequence[Question],
    others: Sequence[Question],
    *,
    share: float = SHARE,
    seed: int = 0,
) -> dict[str, Any]:
    """Min-K% of both sets, and the AUROC of telling `items` from `others` by it, with interval.

    AUROC above 0.5: the items' texts are likelier under the model than the others'. The interval
    resamples each set on its own. Raises UserError for an empty set.
    """
    if not items or not others:
        raise UserError("two sets of questions are needed", allowed="one or more in each")
    scores = [_scores(scorer, group, share) for group in (items, others)]
    value = _auroc(*scores)
    generator = np.random.default_rng(seed)
    drawn = [
        _auroc(*(generator.choice(part, size=len(part)) for part in scores))
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = Interval(float(low), float(high), f"bootstrap percentile, {RESAMPLES} resamples")
    return {
        "share": share,
        "items": _summary(scores[0]),
        "others": _summary(scores[1]),
        "auroc": value,
        "interval": asdict(interval),
        "limits": LIMITS,
    }


def _scores(scorer: TokenScorer, group: Sequence[Question], share: float) -> Floats:
    rows = scorer.token_logprobs([item_text(question) for question in group])
    for question, row in zip(group, rows, strict=True):
        if not row or not all(map(math.isfinite, row)):
            raise UserError(
                "the model gives its text no token or no usable probability",
                where=f"question {question.id}",
            )
    return np.array([min_k(row, share) for row in rows])


def _auroc(items: Floats, others: Floats) -> float:
    kind = np.concatenate([np.ones(len(items)), np.zeros(len(others))])
    value = auroc(np.concatenate([items, others]), kind)
    assert value is not None  # both sets hold something
    return value


def _summary(scores: Floats) -> dict[str, float]:
    return {"n": len(scores), "mean": float(scores.mean()), "median": float(np.median(scores))}
