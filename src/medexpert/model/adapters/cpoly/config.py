"""Settings that go with C-Poly weights: what `cpoly_config.json` holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from medexpert.manifest import disk_errors
from medexpert.model.folder import CPOLY_CONFIG
from medexpert.recipe_data import Count, Positive, Strict
from medexpert.recipe_train import CPoly
from medexpert.records import UserError, unknown_name


class CPolyConfig(Strict):
    """T = len(tasks), A = common, B = private, r = rank; a task uses A + B skills a layer.

    `norm`: "joint" makes the A + B weights of a task sum to 1; "separate" makes the A shared ones
    sum to 1 and leaves each private one free, starting at 1.
    """

    format: Literal[1] = 1
    tasks: tuple[str, ...]
    rank: Positive
    alpha: Positive
    common: Count
    private: Count
    target_modules: str | tuple[str, ...]
    norm: Literal["joint", "separate"] = "joint"
    gumbel: bool = True
    temperature: float = Field(1.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _usable(self) -> CPolyConfig:
        if not self.tasks:
            raise ValueError("C-Poly needs at least one task")
        if len(set(self.tasks)) < len(self.tasks) or "" in self.tasks:
            raise ValueError(f"task names must differ and not be empty: {', '.join(self.tasks)}")
        if self.common + self.private == 0:
            raise ValueError("common and private are both 0: there is no skill to learn")
        return self

    @property
    def scale(self) -> float:
        """alpha / r, as in LoRA."""
        return self.alpha / self.rank

    @property
    def skills(self) -> int:
        """Skills that one task uses in one layer."""
        return self.common + self.private

    def index(self, task: str) -> int:
        """The row of a task. Raises UserError listing the tasks."""
        if task not in self.tasks:
            raise unknown_name("task", task, self.tasks)
        return self.tasks.index(task)

    @classmethod
    def of(cls, settings: CPoly, tasks: Sequence[str]) -> CPolyConfig:
        """The settings of a recipe with the names of its tasks. Raises UserError."""
        same = settings.model_dump(include=set(cls.model_fields) - {"format", "tasks"})
        try:
            return cls(tasks=tuple(tasks), **same)
        except ValidationError as error:
            raise UserError(_first(error), where="cpoly") from None

    @classmethod
    def read(cls, folder: Path) -> CPolyConfig:
        """The configuration of a C-Poly folder. Raises UserError when it is none of ours."""
        path = folder / CPOLY_CONFIG
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror}", where=str(path)) from None
        except ValidationError as error:
            raise UserError(_first(error), where=str(path)) from None

    def write(self, folder: Path) -> None:
        """Write `cpoly_config.json` into `folder`."""
        path = folder / CPOLY_CONFIG
        with disk_errors(path):
            path.write_text(self.model_dump_json(indent=2) + "\n", "utf-8")


def _first(error: ValidationError) -> str:
    fault = error.errors()[0]
    name = ".".join(map(str, fault["loc"]))
    text = fault["msg"].removeprefix("Value error, ")
    return f"{name}: {text}" if name else text
