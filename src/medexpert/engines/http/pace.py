"""How fast an endpoint may be asked, and how long to wait before asking again."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

WINDOW = 60.0
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0


class Pace:
    """At most so many requests and tokens in any 60 seconds; 0 = no limit.

    `clock` gives seconds. A single request of more tokens than the limit goes alone.
    """

    def __init__(
        self, requests: int, tokens: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.requests, self.tokens, self.clock = requests, tokens, clock
        self._sent: deque[tuple[float, int]] = deque()
        self._held_until = 0.0

    async def enter(self, tokens: int) -> None:
        """Wait until a request of about `tokens` tokens may be sent, and count it as sent."""
        while (wait := self.wait_for(tokens)) > 0:
            await asyncio.sleep(wait)
        self._sent.append((self.clock(), tokens))

    def hold(self, seconds: float) -> None:
        """Nothing is sent for so long: the endpoint asked for it."""
        self._held_until = max(self._held_until, self.clock() + seconds)

    def wait_for(self, tokens: int) -> float:
        """Seconds until such a request may be sent, 0 = now."""
        now = self.clock()
        while self._sent and self._sent[0][0] <= now - WINDOW:
            self._sent.popleft()
        wait = max(0.0, self._held_until - now)
        count, total = len(self._sent), sum(size for _, size in self._sent)
        for sent, size in self._sent:
            fits = not self.requests or count < self.requests
            if fits and (not self.tokens or total + tokens <= self.tokens):
                break
            wait = max(wait, sent + WINDOW - now)
            count, total = count - 1, total - size
        return wait


def back_off(tries: int, asked: float | None) -> float:
    """Seconds before try `tries` + 1: what the endpoint asked for, and at least a random share
    (half to all) of FIRST_WAIT x 2^(tries - 1), that being at most LONGEST_WAIT."""
    own = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (tries - 1)) * random.uniform(0.5, 1.0)
    return max(own, asked or 0.0)


def retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header (a number or an HTTP date); None where it says nothing."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = (until - datetime.now(UTC)).total_seconds()
    return seconds if 0 <= seconds < float("inf") else None
