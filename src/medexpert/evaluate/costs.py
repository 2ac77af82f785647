"""What an answer costs, beside how often it is right: one row a result, pure functions.

Everything is a mean over the questions. `prompt_tokens` is what the prompts hold, as if nothing
were shared; `prefilled_tokens` what the engine really encoded of it (its usage); `decoded_tokens`
what was generated. `seconds` is wall time on the machine of that result, so it compares only with
results of the same machine. What a result does not tell is None, never 0. Seeds stay apart: one row
each, and a strategy's cost is the mean over its seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medexpert.records import UserError

COLUMNS = (
    "model", "task", "strategy", "seed", "n", "accuracy", "95 % interval", "calls",
    "prompt tokens", "prefilled tokens", "decoded tokens", "seconds", "money",
)  # fmt: skip
_NUMBERS_FROM = 3


@dataclass(frozen=True)
class Row:
    """One result's accuracy and its cost a question."""

    model: str
    task: str
    split: str
    protocol: str
    strategy: str
    seed: int | None
    n: int
    accuracy: float
    low: float
    high: float
    calls: float | None
    prompt_tokens: float | None
    prefilled_tokens: float | None
    decoded_tokens: float | None
    seconds: float | None
    money: float | None

    @property
    def family(self) -> str:
        """The strategy without its options."""
        return self.strategy.partition(":")[0]

    @property
    def asked(self) -> tuple[str, str, str, str, int]:
        """What has to be equal for two rows to be compared; their seeds may differ."""
        return (self.model, self.task, self.split, self.protocol, self.n)


def cost_rows(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """A row for each content of a result.json, in order.

    Usage is of the questions that it counts (`questions`; where it does not say, those of the last
    session), and is divided by those alone. Where it does say, tokens are the usage's: those in the
    traces are of the questions' own prompts, without what was written on examples first (medprompt,
    worked items). Raises UserError for a result without a question or an accuracy.
    """
    return [_row(result) for result in results]


def _row(result: Mapping[str, Any]) -> Row:
    n = result.get("n")
    if not isinstance(n, int) or n < 1 or "accuracy" not in result:
        where = str(result.get("strategy", "a result"))
        raise UserError("a result without questions or accuracy", where=where)
    usage = result.get("usage") or {}
    whole = int(usage.get("questions") or 0)
    tokens = {} if whole else result.get("tokens") or {}
    asked = whole or n - int(result.get("resumed_at") or 0)
    interval = result.get("accuracy_interval") or {}
    per_question = {
        name: usage[name] / asked for name in usage if asked and usage[name] is not None
    }
    return Row(
        model=str(result.get("model", "")),
        task=str(result.get("task", "")),
        split=str(result.get("split", "")),
        protocol=str(result.get("protocol", "")),
        strategy=str(result.get("strategy", "")),
        seed=result.get("seed"),
        n=n,
        accuracy=float(result["accuracy"]),
        low=float(interval.get("low", math.nan)),
        high=float(interval.get("high", math.nan)),
        calls=per_question.get("calls"),
        prompt_tokens=_mean(tokens.get("prompt"), n, per_question.get("prompt_tokens")),
        prefilled_tokens=per_question.get("prefilled_tokens"),
        decoded_tokens=_mean(tokens.get("generated"), n, per_question.get("generated_tokens")),
        seconds=_mean(result.get("seconds"), n, None),
        money=per_question.get("cost") or None,
    )


def _mean(total: Any, n: int, other: float | None) -> float | None:
    """The sum over the questions as a mean, else what the engine's usage says."""
    return other if total is None else float(total) / n


def matched(rows: Sequence[Row], budget: float) -> list[Row]:
    """What each strategy makes of `budget` decoded tokens a question, model and task by task.

    Of every strategy the options that spend most without going over, and all their seeds: chosen by
    the mean cost of the seeds, never by accuracy, so that nothing is picked on the test items and
    no seed instead of another. Rows that do not tell their decoded tokens are left out. Raises
    UserError for a budget below 0, and for two rows of one strategy and seed.
    """
    if not budget >= 0:
        raise UserError(f"budget {budget}", where="matched", allowed="0 or more tokens a question")
    systems: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.decoded_tokens is not None:
            seeds = systems.setdefault((*row.asked, row.strategy), [])
            if any(row.seed == other.seed for other in seeds):
                raise UserError(
                    f"{row.strategy} with seed {row.seed} is there twice ({row.model}, {row.task})",
                    where="matched", allowed="one result of a strategy and seed",
                )  # fmt: skip
            seeds.append(row)
    best: dict[tuple[Any, ...], list[Row]] = {}
    for seeds in systems.values():
        key = (*seeds[0].asked, seeds[0].family)
        if _spent(seeds)[0] <= budget and (key not in best or _spent(seeds) > _spent(best[key])):
            best[key] = seeds
    chosen = {id(row) for seeds in best.values() for row in seeds}
    return [row for row in rows if id(row) in chosen]


def _spent(seeds: Sequence[Row]) -> tuple[float, float]:
    """Decoded and prompt tokens a question, the mean over a strategy's seeds."""
    decoded = sum(row.decoded_tokens or 0.0 for row in seeds) / len(seeds)
    return decoded, sum(row.prompt_tokens or 0.0 for row in seeds) / len(seeds)


def cost_table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table; costs are a question, "-" where they are not known."""
    marks = ["---" if at < _NUMBERS_FROM else "---:" for at in range(len(COLUMNS))]
    lines = [COLUMNS, marks, *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells(row: Row) -> list[str]:
    """A row's cells, in the order of `COLUMNS`."""
    return [
        row.model,
        f"{row.task} ({row.protocol})" if row.protocol else row.task,
        row.strategy,
        "-" if row.seed is None else str(row.seed),
        f"{row.n:,}",
        f"{100 * row.accuracy:.1f}",
        "-" if math.isnan(row.low) else f"{100 * row.low:.1f} to {100 * row.high:.1f}",
        _number(row.calls, 1),
        _number(row.prompt_tokens, 0),
        _number(row.prefilled_tokens, 0),
        _number(row.decoded_tokens, 0),
        _number(row.seconds, 2),
        _number(row.money, 5),
    ]


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
