"""C-Poly: skills shared by all tasks and skills of each task's own (Customised Polytropon)."""

from __future__ import annotations

from medexpert.model.adapters.cpoly.config import CPolyConfig
from medexpert.model.adapters.cpoly.model import (
    CPolyModel,
    begin_step,
    find,
    routing_facts,
    tasks,
)

__all__ = ["CPolyConfig", "CPolyModel", "begin_step", "find", "routing_facts", "tasks"]
