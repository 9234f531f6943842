"""Worker threads, in each of which torch computes on as many threads as it is told, and no more.

Their results come to the caller through a bounded queue.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from distill.errors import SystemLimitError
from distill.text import counted

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_TIP = "raise the limit on processes (ulimit -u), or end other programs"
# Held while threads are started, because a setting of the whole process is then changed for a moment.
_starting = threading.Lock()

Item = TypeVar("Item")
Result = TypeVar("Result")
CheckStop = Callable[[], None]
"""Called often by worker threads; raises StoppedError once the caller has stopped reading results."""


class StoppedError(Exception):
    """Ends a worker thread once the caller has stopped reading results."""


def start_workers(
    work: Callable[[], None], count: int, started: list[threading.Thread], torch_threads: int = 1
) -> None:
    """Start threads that run `work`; fewer, with a warning, if the system does not start as many.

    torch.set_num_threads applies to the thread that calls it, and to every thread that uses torch for the first time
    afterwards. The latter is undone before `work` begins, so that all other threads compute as they did before,
    whatever runs at the same time.

    Parameters
    ----------
    work : callable
        Run in each thread.
    count : int
        Number of threads.
    started : list of Thread
        The threads are appended as they start, so that the caller knows them even after Ctrl-C.
    torch_threads : int
        Number of threads that torch computes on in each of them. Default: 1.

    Raises
    ------
    SystemLimitError
        If not a single thread can be started.
    """
    import torch  # noqa: PLC0415 - a run that has nothing to compute does without it

    may_begin, is_set = threading.Event(), threading.Semaphore(0)
    numbers: list[int] = []

    def run() -> None:
        # Asked first: at its first use of torch, a thread takes the number of the process, whatever was set before.
        numbers.append(torch.get_num_threads())
        torch.set_num_threads(torch_threads)
        is_set.release()
        may_begin.wait()
        work()

    try:
        with _starting, _setting_back(numbers):
            for number in range(count):
                thread = threading.Thread(target=run, name=f"distill-{number}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # Python has no class of its own for a thread that cannot be started
                    if not started:
                        raise SystemLimitError(f"no thread can be started: {error}", _TIP) from error
                    logger.warning("only %s of %d: %s; %s", counted(len(started), "thread"), count, error, _TIP)
                    break
                started.append(thread)
                while not is_set.acquire(timeout=_POLL_S) and thread.is_alive():
                    pass
    finally:
        may_begin.set()


@contextmanager
def _setting_back(numbers: list[int]) -> Iterator[None]:
    """Set the number of threads of threads that are new to torch back to the first of `numbers`."""
    import torch  # noqa: PLC0415

    try:
        yield
    finally:
        if numbers:
            # In another thread, because the calling one may have a number of its own.
            thread = threading.Thread(target=torch.set_num_threads, args=(numbers[0],), daemon=True)
            try:
                thread.start()
                thread.join()
            except RuntimeError:
                torch.set_num_threads(numbers[0])


def in_threads(
    work: Callable[[Item, CheckStop], Iterable[Result]], items: Sequence[Item], workers: int, most_waiting: int = 0
) -> Generator[Result, None, None]:
    """Call `work` for all items, in worker threads. Closing the iterator stops the threads within 200 ms.

    Parameters
    ----------
    work : callable
        Called with an item, and a callable that it calls often.
    items : sequence
        The items.
    workers : int
        Number of threads. If there are fewer items, torch computes on several threads in each.
    most_waiting : int
        Number of results that may wait for the caller. Default: two for each thread.

    Yields
    ------
    Result
        The results of an item are in order; those of different items are interleaved.

    Raises
    ------
    SystemLimitError
        If the system starts no thread. If it starts fewer than `workers`, these do all of the work.
    BaseException
        What ended a thread and is not about a file, such as MemoryError or KeyboardInterrupt.
    """
    if not items:
        return
    threads_each = max(1, workers // len(items))
    workers = min(workers, len(items))
    results: _ResultQueue[Result] = _ResultQueue(max(2 * workers, most_waiting))
    remaining = iter(items)
    lock = threading.Lock()

    def run() -> None:
        try:
            while True:
                with lock:
                    item = next(remaining, None)
                if item is None:
                    break
                for result in work(item, results.check_stop):
                    results.put(result)
            results.put(None)
        except StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            with suppress(StoppedError):
                results.put(error)

    threads: list[threading.Thread] = []
    try:
        start_workers(run, workers, threads, threads_each)
        yield from results.until_all_end(threads)
    finally:
        results.close()
        for thread in threads:
            thread.join()


class _ResultQueue(Generic[Result]):
    """A bounded queue that can be closed. Each thread puts None when it ends, or what ended it."""

    def __init__(self, size: int) -> None:
        self._results: queue.Queue[Result | BaseException | None] = queue.Queue(size)
        self._closed = threading.Event()

    def check_stop(self) -> None:
        """Raise StoppedError if the queue is closed."""
        if self._closed.is_set():
            raise StoppedError

    def put(self, result: Result | BaseException | None) -> None:
        """Wait until there is space, and add a result; raise StoppedError if the queue is closed."""
        while True:
            self.check_stop()
            with suppress(queue.Full):
                return self._results.put(result, timeout=_POLL_S)

    def close(self) -> None:
        """Let all further calls from threads raise StoppedError."""
        self._closed.set()

    def until_all_end(self, threads: Sequence[threading.Thread]) -> Iterator[Result]:
        """Yield results until all threads have ended; raise an exception that one of them put."""
        ended = 0
        while ended < len(threads):
            dead = sum(not thread.is_alive() for thread in threads)
            try:
                result = self._results.get(timeout=_POLL_S)
            except queue.Empty:
                if dead > ended:
                    # Other code can raise an exception in a thread at any time, even in its last instruction.
                    raise RuntimeError("a worker thread ended before its work was done") from None
                continue
            if isinstance(result, BaseException):
                raise result
            if result is None:
                ended += 1
            else:
                yield result
