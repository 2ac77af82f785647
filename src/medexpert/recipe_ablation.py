"""[ablation] of a recipe: named axes, each a list of named overrides; what they multiply to."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from medexpert.recipe_data import Count, Strict

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
Overrides = dict[str, Any]
OWN = ("name", "output", "seed", "ablation")
"""Keys that the ablation sets itself."""


class Ablation(Strict):
    """Variants of this recipe. The first value of every axis is the reference.

    `[ablation.axes.adapter] lora = {}` and `cpoly = { "adapt.method" = "cpoly" }` make an axis of
    two values. `grid` is every combination; `each` the reference and, axis by axis, one change.
    """

    design: Literal["grid", "each"] = Field(
        "grid", description="every combination, or the reference and one change at a time"
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field(
        (), description="seeds of every variant; empty = the recipe's own"
    )
    most: Count = Field(64, description="variants x seeds above which this is a mistake")
    axes: dict[Name, dict[Name, Overrides]] = Field(
        default={}, description="axis -> value -> {setting = value}"
    )

    def variants(self) -> dict[str, Overrides]:
        """{name: overrides}, the reference first; the name joins the axes' values by '+'."""
        values = [list(axis.items()) for axis in self.axes.values()]
        if not values or not all(values):
            return {}
        if self.design == "grid":
            combined = list(product(*values))
        else:
            first = tuple(axis[0] for axis in values)
            combined = [first] + [
                (*first[:k], other, *first[k + 1 :])
                for k, axis in enumerate(values)
                for other in axis[1:]
            ]
        return {
            "+".join(name for name, _ in chosen): _merged([o for _, o in chosen])
            for chosen in combined
        }

    def faults(self) -> list[str]:
        """What is wrong with the axes, as "key: what" lines."""
        wrong = []
        for axis, values in self.axes.items():
            if not values:
                wrong.append(f"ablation.axes.{axis}: an axis needs a value")
            for value, overrides in values.items():
                wrong += [
                    f"ablation.axes.{axis}.{value}: {key} is set by the ablation itself"
                    for key in overrides
                    if key.split(".")[0] in OWN
                ]
        keys = [
            (axis, {key for overrides in values.values() for key in overrides})
            for axis, values in self.axes.items()
        ]
        for k, (axis, mine) in enumerate(keys):
            for other, theirs in keys[k + 1 :]:
                wrong += [
                    f"ablation.axes.{other}: {key} is changed by axis {axis} too"
                    for key in sorted(theirs)
                    if any(
                        f"{key}.".startswith(f"{own}.") or f"{own}.".startswith(f"{key}.")
                        for own in mine
                    )
                ]
        if len(set(self.seeds)) < len(self.seeds):
            wrong.append("ablation.seeds: a seed is given twice")
        runs = len(self.variants()) * max(1, len(self.seeds))
        if self.most and runs > self.most:
            wrong.append(f"ablation.most: {runs} runs, and at most {self.most} are allowed")
        return wrong


def _merged(parts: list[Overrides]) -> Overrides:
    return {key: value for part in parts for key, value in part.items()}


def applied(values: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """Settings (as nested mappings) with dotted keys set. Raises ValueError for a key that is none.

    A path of an override may name a section or setting of the recipe only; the recipe's own check
    finds values that do not fit.
    """
    made: dict[str, Any] = {
        k: applied(v, {}) if isinstance(v, Mapping) else v for k, v in values.items()
    }
    for key, value in overrides.items():
        *parents, last = key.split(".")
        target = made
        for name in parents:
            target = target.setdefault(name, {})
            if not isinstance(target, dict):
                raise ValueError(f"{key}: {name} is not a section")
        target[last] = value
    return made
