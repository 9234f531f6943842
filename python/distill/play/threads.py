"""Threads for the work of the server, which answers others meanwhile."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar, TypeVar

T = TypeVar("T")


class Threads:
    """Threads that do one piece of work after another.

    They are daemons, unlike those of the standard library's pools: the end of the program need not wait for what they
    are doing.

    Parameters
    ----------
    count : int
        Number of threads.
    """

    _all: ClassVar[list[Threads]] = []

    def __init__(self, count: int) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        self._is_over = False
        for thread in self._threads:
            thread.start()
        self._all.append(self)

    @classmethod
    def end_all(cls, within_s: float) -> bool:
        """End the threads of this process once they have done what they are doing, and nothing that waits.

        Returns
        -------
        bool
            Whether all have ended in that time. If not, Python's end would abort the process: torch is still at work.
        """
        ends_at = time.monotonic() + within_s
        for threads in cls._all:
            threads._is_over = True
            for _ in threads._threads:
                threads._work.put((lambda: None, Future()))
        for thread in [thread for threads in cls._all for thread in threads._threads]:
            thread.join(max(0.0, ends_at - time.monotonic()))
        return not any(thread.is_alive() for threads in cls._all for thread in threads._threads)

    async def do(self, work: Callable[[], T]) -> T:
        """Do the work in a thread, when its turn has come; return its result, or raise its exception."""
        future: Future[T] = Future()
        self._work.put((work, future))
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        while True:
            work, future = self._work.get()
            if self._is_over:
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whoever waits for the result is told
                future.set_exception(error)
            else:
                future.set_result(result)
            # Not until the next piece of work comes.
            del work, future
