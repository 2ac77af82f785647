"""The table of strategies. To add one: a file beside this, a line here, a transcript test.

A strategy is a frozen dataclass; its fields other than `name` are its options. `voc:k=3:batch=4` is
`voc` with two options set, and that text is its name in recipes, results and reports.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from medexpert.prompt.asking import Strategy
from medexpert.prompt.cot import Cot
from medexpert.prompt.direct import Direct
from medexpert.prompt.ensemble_refinement import EnsembleRefinement
from medexpert.prompt.medprompt import Medprompt
from medexpert.prompt.self_consistency import SelfConsistency
from medexpert.prompt.self_verification import SelfVerification
from medexpert.prompt.voc import VARIANTS
from medexpert.records import UserError, unknown_name

_ALL: tuple[Strategy, ...] = (
    Direct(),
    Cot(),
    SelfConsistency(),
    Medprompt(),
    SelfVerification(),
    EnsembleRefinement(),
    *VARIANTS,
)
STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in _ALL}
BOOLEANS = {"true": True, "false": False, "yes": True, "no": False, "1": True, "0": False}


def get(name: str, *, where: str = "") -> Strategy:
    """The strategy of this name, with its options set.

    Raises UserError listing the known names or options, and for a value of another kind.
    """
    own, *options = name.split(":")
    if own not in STRATEGIES:
        raise unknown_name("strategy", own, STRATEGIES, where=where)
    strategy: Any = STRATEGIES[own]
    if not options:
        found: Strategy = strategy
        return found
    made: Strategy = dataclasses.replace(strategy, name=name, **_values(strategy, options, where))
    return made


def _values(strategy: Any, options: Sequence[str], where: str) -> dict[str, Any]:
    known = {part.name: getattr(strategy, part.name) for part in dataclasses.fields(strategy)}
    del known["name"]
    values: dict[str, Any] = {}
    for option in options:
        key, equals, text = option.partition("=")
        if key not in known:
            raise unknown_name(f"option of {strategy.name}", key, known, where=where)
        if not equals or key in values:
            raise UserError(
                f"option {option!r} of {strategy.name}",
                where=where, allowed=f"{key}=VALUE, once",
            )  # fmt: skip
        values[key] = _value(text, known[key], f"option {key} of {strategy.name}", where)
    return values


def _value(text: str, like: Any, what: str, where: str) -> Any:
    """The text as the kind of value the option has."""
    try:
        if isinstance(like, bool):
            return BOOLEANS[text.casefold()]
        return type(like)(text)
    except (KeyError, ValueError):
        allowed = {bool: "true or false", int: "a whole number", float: "a number"}
        raise UserError(
            f"{what}: {text!r}", where=where, allowed=allowed.get(type(like), type(like).__name__)
        ) from None
