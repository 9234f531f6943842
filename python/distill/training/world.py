"""The processes that train one model together, such as those that torchrun starts. With one process it does nothing."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distill.device import resolve_device
from distill.errors import ConfigError, DeviceError, DistillError, ProcessLostError
from distill.models.part import Part, part_bounds
from distill.models.vae import ConvVAE
from distill.text import counted

logger = logging.getLogger(__name__)

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# The first process measures, draws and saves while the others wait in a reduction.
_TIMEOUT = timedelta(minutes=30)
_POLL_S = 0.1
# How long a process that was told to stop waits for the first one to say so. torchrun kills after 30 s.
_PATIENCE_S = 20.0
_ENDED = "ended"
_worlds = itertools.count()


class World:
    """The processes that train one model. Each has the same weights and computes a part of each batch.

    The first one preprocesses, owns the run folder, and tells the others what they need. With one process, every method
    is a no-op.

    Parameters
    ----------
    cancel : threading.Event
        If it is set in any process, all of them stop after the same step.
    rank : int
        Number of this process, from 0. Default: 0.
    size : int
        Number of processes. Default: 1.
    store : torch.distributed.Store, optional
        Where processes find what others have set; required if there are several.
    """

    def __init__(self, cancel: threading.Event, rank: int = 0, size: int = 1, store: Any = None) -> None:
        self.rank, self.size = rank, size
        self._cancel, self._store = cancel, store
        self._messages = itertools.count()
        self._stopping: Tensor | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process preprocesses, writes and reports."""
        return self.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """Which part of each batch this process computes, as `EpochBatchSampler.share`."""
        return self.rank, self.size

    @property
    def is_told_to_stop(self) -> bool:
        """Whether this process is to stop. Before the first step, the first process decides for all."""
        return self._cancel.is_set()

    @property
    def is_cancelled(self) -> bool:
        """Whether training is to stop: the same answer in all processes after the same reduction."""
        if self.size == 1:
            return self._cancel.is_set()
        return self._stopping is not None and bool(self._stopping)

    def parts(self, rows: int, batch_size: int, first_step: int = 0) -> Iterator[Part | None]:
        """Yield the part of each batch of an epoch that this process computes, from `first_step` on; None for all."""
        if self.size == 1:
            yield from itertools.repeat(None)
        for first in range(first_step * batch_size, rows, batch_size):
            total = min(batch_size, rows - first)
            yield Part(*part_bounds(total, self.rank, self.size), total, self.add_up)

    def add_up(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes; it also carries whether one of them is to stop."""
        if self.size == 1:
            return values
        flag = values.new_full((1,), float(self._cancel.is_set()))
        total = torch.cat([values.flatten(), flag])
        dist.all_reduce(total)
        self._stopping = total[-1] > 0
        return total[:-1].view_as(values)

    def wrap(self, model: ConvVAE, batch_size: int) -> nn.Module:
        """Return the model with gradients that are summed over all processes by DistributedDataParallel."""
        if self.size == 1:
            return model
        if self.is_first and self.size > batch_size:
            logger.warning(
                "%d processes train on batches of %s: some have nothing to do; a larger --batch-size gives each a part",
                self.size,
                counted(batch_size, "row"),
            )
        # No broadcast of buffers, which never change: it would send the PCA in each step.
        wrapped = nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        wrapped.register_comm_hook(None, _sum_of_gradients)
        # The first backward pass fixes how gradients are grouped for their reduction, which changes the last bits of
        # a sum of three or more. It is done here, so that a resumed run groups them as one that was not interrupted.
        nothing = torch.zeros(0, *model.row_shape, device=next(model.parameters()).device)
        sum(output.sum() for output in wrapped.eval()(nothing)).backward()
        wrapped.zero_grad(set_to_none=True)
        return wrapped

    def tell(self, value: Callable[[], Any]) -> None:
        """Send what `value` returns from the first process to the others, which call `hear`."""
        if self.size > 1:
            told = [value()]
            # Only now, because the others may wait for hours, longer than a collective call may take.
            self._store.set(f"message-{next(self._messages)}", "ready")
            dist.broadcast_object_list(told, device=torch.device("cpu"))

    def hear(self) -> Any:
        """Return what the first process tells; None if it ends instead.

        Raises
        ------
        ProcessLostError
            If this process was told to stop, and the first one says nothing.
        """
        key, deadline = f"message-{next(self._messages)}", None
        while not self._store.check([key]):
            if self._store.check([_ENDED]):
                return None
            if self._cancel.is_set():
                deadline = deadline or time.monotonic() + _PATIENCE_S
                if time.monotonic() > deadline:
                    raise ProcessLostError(
                        f"the first process of this training has not answered for {_PATIENCE_S:.0f} s",
                        "see what it shows: it may have ended, hang, or be busy before the first step",
                    )
            time.sleep(_POLL_S)
        told: list[Any] = [None]
        dist.broadcast_object_list(told, device=torch.device("cpu"))
        return told[0]

    def end(self) -> None:
        """Leave the others. Those that still wait for the first process to tell something end, too."""
        if self._store is None:
            return
        store, self._store = self._store, None
        if self.is_first:
            with suppress(RuntimeError):  # the connection may be what has failed
                store.set(_ENDED, "")
                # The store may end with this process; the others are to see this before.
                time.sleep(3 * _POLL_S)
        dist.destroy_process_group()


@contextmanager
def joined(device: str, cancel: threading.Event) -> Iterator[World]:
    """Join the processes that environment variables name, as torchrun sets them; without them, be the only one.

    Parameters
    ----------
    device : str
        Name of the device of the run. With CUDA, each process takes the GPU of its number on its machine.
    cancel : threading.Event

    Raises
    ------
    DeviceError
        If processes cannot have a device each.
    ProcessLostError
        If another process ends or does not answer.
    """
    rank, size = processes_from_environment()
    if size == 1:
        yield World(cancel)
        return
    _take_device(device)
    world = None
    try:
        store, *_ = next(dist.rendezvous("env://", timeout=_TIMEOUT))  # type: ignore[attr-defined]
        # A process may train several runs, one after the other, with the same store.
        store = dist.PrefixStore(f"distill-{next(_worlds)}", store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
        world = World(cancel, rank, size, store)
        yield world
    except DistillError:
        raise
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        raise ProcessLostError(
            f"another process of this training has ended or does not answer ({str(error).strip().splitlines()[0]})",
            "its own message says why; continue the run with --resume, at most the last five minutes are lost",
        ) from error
    finally:
        if world is not None:
            world.end()


def processes_from_environment() -> tuple[int, int]:
    """Return the number of this process, from 0, and how many train together; (0, 1) if it was started alone.

    Raises
    ------
    ConfigError
        If there are several, and the variables do not say which this is and where they meet.
    """
    values = {name: os.environ.get(name, "") for name in _VARIABLES}
    if values["WORLD_SIZE"] in ("", "1"):
        return 0, 1
    if missing := [name for name, value in values.items() if not value]:
        raise ConfigError(
            [f"WORLD_SIZE={values['WORLD_SIZE']} is set without {', '.join(missing)}"],
            "start several processes with torchrun, which sets all of them, or unset WORLD_SIZE to train with one",
        )
    rank, size, port = (_number(values[name]) for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    if not 0 <= rank < size:
        raise ConfigError(
            [f"RANK={values['RANK']} and WORLD_SIZE={values['WORLD_SIZE']} must be a process and their number"]
        )
    if not 0 < port < 1 << 16:
        raise ConfigError([f"MASTER_PORT={values['MASTER_PORT']} must be a port, from 1 to 65535"])
    return rank, size


def _number(value: str) -> int:
    return int(value) if value.isdecimal() else -1


def _take_device(name: str) -> None:
    """Make the GPU of this process the current one; raise DeviceError if processes would share a device."""
    device = resolve_device(name)
    if device.type == "cpu":
        return
    tip = "use --device cuda, with no more processes on a machine than it has GPUs, or --device cpu"
    if device.type != "cuda" or device.index is not None:
        raise DeviceError(f"device {name!r}: several processes cannot share it", tip)
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise DeviceError(f"process {number} on this machine has no GPU: there are only {count}", tip)
    torch.cuda.set_device(number)


# Without annotations, which DistributedDataParallel compares with types, not with their names.
def _sum_of_gradients(state, bucket):  # type: ignore[no-untyped-def]
    """Sum gradients; DistributedDataParallel would take their mean."""
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def _is_of_connection(error: RuntimeError) -> bool:
    """Whether an error comes from the connection to another process, not from computing."""
    return isinstance(error, dist.DistError) or any(name in str(error) for name in ("gloo", "NCCL", "onnection"))
