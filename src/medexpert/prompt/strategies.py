"""The table of strategies. To add one: a file beside this, a line here, a transcript test."""

from __future__ import annotations

from medexpert.prompt.asking import Strategy
from medexpert.prompt.direct import Direct
from medexpert.prompt.voc import Voc
from medexpert.records import unknown_name

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy
    for strategy in (Direct(), Voc(), Voc(name="voc-likelihood", likelihood=True))
}


def get(name: str, *, where: str = "") -> Strategy:
    """The strategy of this name. Raises UserError listing the known ones."""
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES, where=where)
    return STRATEGIES[name]
