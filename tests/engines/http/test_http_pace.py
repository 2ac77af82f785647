"""Rates, waits and what Retry-After says, by a clock that the test turns."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medexpert.engines.http import pace
from medexpert.engines.http.pace import Pace, back_off, retry_after


def sent_at(limits: tuple[int, int], sizes: list[int]) -> list[float]:
    """When each request is let through, sleeping being turning the clock."""
    now = [0.0]
    rate = Pace(*limits, clock=lambda: now[0])
    times = []
    for size in sizes:
        for _ in range(1000):
            wait = rate.wait_for(size)
            if wait <= 0:
                break
            now[0] += wait
        else:
            pytest.fail("it is never let through")
        asyncio.run(rate.enter(size))
        times.append(now[0])
    return times


def test_requests_a_minute() -> None:
    assert sent_at((2, 0), [1] * 5) == [0, 0, 60, 60, 120]


def test_tokens_a_minute() -> None:
    assert sent_at((0, 100), [60, 40, 1, 100]) == [0, 0, 60, 120]


def test_a_request_larger_than_the_rate_goes_alone() -> None:
    assert sent_at((0, 100), [10, 500, 10]) == [0, 60, 120]


def test_no_limits() -> None:
    assert sent_at((0, 0), [1000] * 3) == [0, 0, 0]


@given(st.integers(0, 4), st.integers(0, 50), st.lists(st.integers(1, 60), max_size=12))
def test_no_minute_holds_more_than_the_limits(requests: int, tokens: int, sizes: list[int]) -> None:
    times = sent_at((requests, tokens), sizes)
    assert all(a <= b for a, b in pairwise(times))
    for k, start in enumerate(times):
        inside = [
            size for time, size in zip(times[k:], sizes[k:], strict=True) if time < start + 60
        ]
        assert not requests or len(inside) <= requests
        assert not tokens or sum(inside) <= tokens or len(inside) == 1


def test_a_hold_stops_everything() -> None:
    now = [0.0]
    rate = Pace(0, 0, clock=lambda: now[0])
    rate.hold(5)
    rate.hold(2)
    assert rate.wait_for(1) == 5
    now[0] = 5
    assert rate.wait_for(1) == 0


def test_waits_double_with_jitter_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_WAIT", 0.5)
    for tries, full in ((1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (60, 30.0)):
        waits = {back_off(tries, None) for _ in range(50)}
        assert full / 2 <= min(waits) < max(waits) <= full
    assert back_off(1, 7.5) == 7.5
    assert back_off(7, 0.1) >= 15


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert retry_after("3") == 3
    assert retry_after("0.25") == 0.25
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert retry_after(later) == pytest.approx(90, abs=2)
    for nothing in (None, "", "soon", "-1", "inf", "nan", "Mon, 01 Jan 2001 00:00:00 GMT"):
        assert retry_after(nothing) is None
