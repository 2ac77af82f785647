"""A pool of processes on this machine that always ends with the process that started it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from medexpert.records import UserError

if TYPE_CHECKING:
    from concurrent.futures import ProcessPoolExecutor


class Workers:
    """Up to `count` processes, started when first needed and kept for the whole block.

    Left by an error (Ctrl-C too), it ends what is running instead of waiting for it. Should this
    process be killed, the workers see their end of its pipe close and end themselves.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        return self

    def run(
        self, call: Callable[[str, str, int], None], work: str, phase: str, tasks: Sequence[int]
    ) -> Iterator[int]:
        """Do `call(work, phase, task)` for each task; yields a task's number when it has ended.

        Raises UserError when a process was killed.
        """
        from concurrent.futures import as_completed
        from concurrent.futures.process import BrokenProcessPool

        if self._pool is None:
            self._pool = _started(self._count)
        try:
            waiting = {self._pool.submit(call, work, phase, task): task for task in tasks}
            for done in as_completed(waiting):
                done.result()
                yield waiting[done]
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed (out of memory?): use fewer data.workers; "
                "run the same command to continue",
                where=f"{work}/{phase}",
            ) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        # Asked for first: shutdown() forgets its processes.
        processes = list((getattr(self._pool, "_processes", None) or {}).values())
        if kind is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
        self._pool.shutdown(wait=True)


def _started(count: int) -> ProcessPoolExecutor:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medexpert.data.build.phases"])
    # Ctrl-C on a terminal reaches every process there; the workers inherit that it is blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent)


def _end_with_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the fork server may be older than our mask
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()  # not the fork server, which is the parent that getppid() tells
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
