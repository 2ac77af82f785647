"""What a running phase says: tasks done, rows and tasks a second, when the rest will be done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medexpert.data.build.store import Store

Say = Callable[[str], None]
REPORT_SECONDS = 10.0


class Meter:
    """Counts what the tasks of a phase have left since it was made."""

    def __init__(self, store: Store, phase: str, total: int) -> None:
        self._store, self._phase, self._total = store, phase, total
        self._started = time.monotonic()
        self._seen = self._finished()
        self._before = len(self._seen)
        self._rows = 0

    def _finished(self) -> set[str]:
        return set(self._store.names(self._phase, ".json"))

    def line(self) -> str:
        """One line of progress. Rows are those that the tasks finished since the start read."""
        now = self._finished()
        for name in sorted(now - self._seen):
            facts = self._store.read_json(f"{self._phase}/{name}")
            self._rows += facts.get("read", 0) if isinstance(facts, dict) else 0
        self._seen |= now
        done, seconds = len(self._seen), time.monotonic() - self._started
        told = f"data {self._phase}: {done:,} of {self._total:,} tasks"
        rate = (done - self._before) / seconds
        if not rate:
            return f"{told} after {seconds:,.0f} s"
        if self._rows:
            told += f", {self._rows:,} rows ({self._rows / seconds:,.0f} rows/s)"
        return f"{told}, {rate:.2f} tasks/s, {(self._total - done) / rate:,.0f} s left"


@contextmanager
def progress(store: Store, phase: str, total: int, say: Say) -> Iterator[None]:
    """Says a `Meter`'s line every few seconds while the block runs."""
    meter, stop = Meter(store, phase, total), threading.Event()

    def watch() -> None:
        while not stop.wait(REPORT_SECONDS):
            say(meter.line())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
