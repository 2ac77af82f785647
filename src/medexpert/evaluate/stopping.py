"""Ctrl-C is answered at once, although the computation under way cannot be left at once.

Python acts on a signal between two of its own steps, and a product of large matrices is one step
of many seconds. The signal's number, however, is written to a pipe at once, and a thread reads it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def told_at_once(say: Callable[[str], None], line: str) -> Iterator[None]:
    """Say `line` as soon as SIGINT comes; what the signal does stays as it is.

    Outside the main thread, where signals are the caller's, nothing is said.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    except ValueError:  # not the main thread
        os.close(reader)
        os.close(writer)
        yield
        return

    def listen() -> None:
        told = False
        while number := os.read(reader, 1):
            if number[0] == signal.SIGINT and not told:
                told = True
                say(line)

    listener = threading.Thread(target=listen, name="stopping", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # ends the thread
        listener.join()
        os.close(reader)
