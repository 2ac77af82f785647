"""An event loop in a thread of its own, asked from ordinary code.

So the engine works in a script, in a thread and under another event loop (a notebook) alike, and an
interrupted call cancels its requests at once instead of waiting for their answers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, TypeVar

Value = TypeVar("Value")
_LAST = object()


class Loop:
    """`run` from any thread but its own. `close` ends the thread; a closed loop stays closed."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="http", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        """The coroutine's value or exception; Ctrl-C meanwhile cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # nothing, when it is done

    def iterate(self, source: AsyncIterator[Value]) -> Iterator[Value]:
        """The values of an asynchronous iterator, as they come."""

        async def following() -> Any:
            return await anext(source, _LAST)

        try:
            while (value := self.run(following())) is not _LAST:
                yield value
        finally:
            close = getattr(source, "aclose", None)
            if close is not None and self._thread.is_alive():
                self.run(close())

    def close(self, last: Callable[[], Awaitable[None]] | None = None) -> None:
        """Cancel what still runs, await `last()`, end the thread."""
        if not self._thread.is_alive():
            return
        if threading.current_thread() is self._thread:  # the collector of garbage runs anywhere
            self._loop.stop()
            return

        async def ending() -> None:
            others = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            if last is not None:
                await last()

        self.run(ending())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5)
        if not self._thread.is_alive():
            self._loop.close()


async def together(jobs: Sequence[Callable[[], Coroutine[Any, Any, Value]]]) -> list[Value]:
    """The values of all jobs, in order. The first failure cancels the others and is raised: of
    several at once, that of the first job."""
    tasks = [asyncio.ensure_future(job()) for job in jobs]
    if not tasks:
        return []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        failed = [t for t in tasks if t.done() and not t.cancelled() and t.exception()]
        return [task.result() for task in failed or tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
