"""Signals heard at once, also while Python cannot act on them.

Python acts on a signal between two of its own steps, and a product of large matrices, or the wait
for another process, is one step of seconds or hours. The signal's number, however, is written to a
pipe at once, and a thread can read it there.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def heard(listen: Callable[[int], None]) -> Iterator[None]:
    """Run `listen(reader)` in a thread while the block runs; what signals do stays as it is.

    From the descriptor `reader` come the numbers of signals, a byte each, and its end when the
    block is left, upon which `listen` must return. Outside the main thread, where signals are the
    caller's, nothing is heard.
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
    listener = threading.Thread(target=listen, args=(reader,), name="signals", daemon=True)
    listener.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)  # its end, to the thread
        listener.join()
        os.close(reader)
