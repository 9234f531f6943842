"""Worker threads, in each of which torch computes on as many threads as it is told, and no more."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from distill.errors import SystemLimitError
from distill.text import counted

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_TIP = "raise the limit on processes (ulimit -u), or end other programs"
# Held while threads are started, because a setting of the whole process is then changed for a moment.
_starting = threading.Lock()


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
