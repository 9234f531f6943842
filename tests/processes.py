"""Several processes that train together, as torchrun starts them. They are forked from one that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

_TIMEOUT_S = 240


def together(size: int, output: Path, work: Callable[..., int], *arguments: object) -> tuple[list[int | None], str]:
    """Run ``work(*arguments)`` in `size` processes; return their exit statuses and what they wrote.

    `work` is a function of a module; it returns its exit status. `output` is a file.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "distill.pipeline", "distill.cli.train", "processes"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    output.write_text("")
    started = [
        context.Process(target=_member, args=(rank, size, port, output, work, *arguments)) for rank in range(size)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(_TIMEOUT_S)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in started], output.read_text()


def _member(rank: int, size: int, port: int, output: Path, work: Callable[..., int], *arguments: object) -> None:
    import torch

    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    torch.set_num_threads(1)
    sys.exit(work(*arguments))


def train(*argv: object) -> int:
    """Run ``distill train``."""
    from distill import train as command

    return command.main([str(argument) for argument in argv])


def train_with_a_signal(rank: int, signal: int, step: int, *argv: object) -> int:
    """Run ``distill train``; process `rank` gets a signal when it begins this step, from 0."""
    from distill.training import trainer

    original, steps = trainer.train_step, 0

    def train_step(*arguments, **options):
        nonlocal steps
        if steps == step and os.environ["RANK"] == str(rank):
            os.kill(os.getpid(), signal)
        steps += 1
        return original(*arguments, **options)

    trainer.train_step = train_step
    return train(*argv)


def train_with_other_places(*argv: object) -> int:
    """Run ``distill train``; the second process finds rows stored in another order."""
    from distill.training import CachedSpectrogramDataset

    if os.environ["RANK"] == "1":
        stored = CachedSpectrogramDataset.stored_order
        CachedSpectrogramDataset.stored_order = lambda self: stored(self)[::-1].copy()
    return train(*argv)
