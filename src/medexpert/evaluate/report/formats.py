"""How numbers are written in a report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def percent(share: float, digits: int = 1) -> str:
    """A share as percent, sign only when negative."""
    return f"{100 * share:.{digits}f}"


def signed(share: float, digits: int = 1) -> str:
    """A difference of shares in percentage points, always with its sign."""
    return f"{100 * share:+.{digits}f}".replace("-", "−")


def span(interval: Mapping[str, Any] | None) -> str:
    """An interval of shares in percent, '–' when there is none."""
    return f"{percent(interval['low'])}–{percent(interval['high'])}" if interval else "–"


def p_value(p: float) -> str:
    """Four decimals, or '< .0001'."""
    return "< .0001" if p < 0.0001 else f"{p:.4f}"


def signed_span(low: float, high: float) -> str:
    """An interval of differences of shares, in percentage points."""
    return f"{signed(low)} to {signed(high)}"


def number(value: object) -> str:
    """An integer with thin separators, a float with four digits, anything else as it is."""
    if isinstance(value, bool) or value is None:
        return "–" if value is None else str(value).lower()
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def duration(seconds: object) -> str:
    """'45 s', '12.5 min', '3.4 h'."""
    if not isinstance(seconds, int | float):
        return "–"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
