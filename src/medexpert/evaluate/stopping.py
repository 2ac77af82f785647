"""Ctrl-C is answered at once, although the computation under way cannot be left at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from medexpert import signals


@contextmanager
def told_at_once(say: Callable[[str], None], line: str) -> Iterator[None]:
    """Say `line` as soon as SIGINT comes; what the signal does stays as it is.

    Outside the main thread, where signals are the caller's, nothing is said.
    """

    def listen(reader: int) -> None:
        told = False
        while number := os.read(reader, 1):
            if number[0] == signal.SIGINT and not told:
                told = True
                say(line)

    with signals.heard(listen):
        yield
