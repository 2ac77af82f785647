"""The limits that the filters read: `[data.filters]` of a recipe, and its defaults."""

from __future__ import annotations

from medexpert.recipe_data import Filters as Settings

DEFAULT = Settings()

__all__ = ["DEFAULT", "Settings"]
