"""Threads for the work of the server, which answers others meanwhile."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """Threads that do one piece of work after another.

    They are daemons, unlike those of the standard library's pools: the end of the program does not wait for what they
    are doing.

    Parameters
    ----------
    count : int
        Number of threads.
    """

    def __init__(self, count: int) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        for _ in range(count):
            threading.Thread(target=self._run, daemon=True).start()

    async def do(self, work: Callable[[], T]) -> T:
        """Do the work in a thread, when its turn has come; return its result, or raise its exception."""
        future: Future[T] = Future()
        self._work.put((work, future))
        return await asyncio.wrap_future(future)

    def _run(self) -> None:
        while True:
            work, future = self._work.get()
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
