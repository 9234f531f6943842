"""The process that talks to Ray: it sends parts to the cluster, and results to the process that started it.

A process of its own because Ray writes to the standard output of the process that uses it, changes its environment, and
waits without end, deaf to Ctrl-C, for a cluster that has gone. It imports no torch, and neither unpickles nor keeps
what it passes on. It ends when the process that started it does.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from distill.errors import ClusterError, DistillError
from distill.preprocess import ray_task
from distill.preprocess.ray_cluster import connected

_POLL_S = 0.5
# Parts that wait for a free CPU, so that none is idle while a result is on its way.
_QUEUED = 2
_MOST_LOSSES = 3
# A part that takes so many times as long as most is computed a second time once CPUs are idle.
_SLOW = 3
_SLOW_S = 5.0


class Request(NamedTuple):
    """The first message: what to compute, and where."""

    address: str
    workers: int | None
    folder: Path
    """A folder that only this user can enter, for a cluster that is started here."""
    job: ray_task.PackedJob


class Result(NamedTuple):
    """A part that is finished."""

    number: int
    node: str
    """The node that computed it, for people."""
    extracted: bytes
    """Pickled."""


class Update(NamedTuple):
    """A message to the process that started this one, which answers with parts. It is sent twice a second or faster."""

    results: list[Result]
    warnings: list[str]
    nodes: int
    cpus: int
    """What the cluster has."""
    wanted: int
    """How many parts it has room for."""


class Parts(NamedTuple):
    """The answer to an update."""

    parts: list[tuple[int, bytes]]
    """Numbers and pickled parts."""
    is_last: bool
    """Whether there are no more."""


def main(descriptor: int) -> None:
    """Run in a process whose connection to the one that started it is an open socket."""
    with Connection(descriptor) as caller:
        try:
            request = caller.recv()
            with connected(request.address, request.workers, request.folder):
                _Driver(caller, request.job).run()
        except DistillError as error:
            caller.send(error)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return  # the caller has gone, and with it the cluster that was started here, or the job on another's


@dataclass
class _Task:
    """A part that is not finished yet."""

    number: int
    part: bytes
    losses: int = 0
    copies: int = 0
    """Number of times that it is being computed."""
    started: float = field(default_factory=time.monotonic)


class _Driver:
    """Keeps the CPUs of a cluster busy with parts."""

    def __init__(self, caller: Connection, job: ray_task.PackedJob) -> None:
        import ray  # noqa: PLC0415 - an extra, and takes seconds

        self._ray, self._caller, self._job = ray, caller, job
        # Losses are counted here, where they can be told: a file may crash whatever decodes it.
        self._remote = ray.remote(num_cpus=1, max_retries=0)(ray_task.extract)
        self._running: dict[Any, _Task] = {}
        self._lost: deque[_Task] = deque()
        self._seconds: deque[float] = deque(maxlen=1000)
        self._warnings: list[str] = []
        self._nodes: dict[str, set[str]] = {}
        self._cpus = 0

    def run(self) -> None:
        """Compute all parts that the caller has."""
        is_last = False
        while self._running or self._lost or not is_last:
            results = self._finished()
            nodes = [node for node in self._ray.nodes() if node["Alive"]]
            self._cpus = int(sum(node["Resources"].get("CPU", 0) for node in nodes))
            while self._lost and self._free() > 0:
                self._submit(self._lost.popleft())
            self._caller.send(Update(results, self._warnings, len(nodes), self._cpus, 0 if is_last else self._free()))
            self._warnings = []
            parts, is_last = self._caller.recv()
            for number, part in parts:
                self._submit(_Task(number, part))
            if is_last and not self._lost:
                self._compute_slow_ones_again()

    def _free(self) -> int:
        """Return how many more parts can be submitted now."""
        return max(0, self._cpus + _QUEUED - len(self._running))

    def _submit(self, task: _Task) -> None:
        task.copies += 1
        task.started = time.monotonic()
        self._running[self._remote.remote(self._job, task.part)] = task

    def _finished(self) -> list[Result]:
        """Wait a little; return the results that are there."""
        if not self._running:
            return []
        refs = list(self._running)
        if not self._ray.wait(refs, timeout=_POLL_S)[0]:
            return []
        done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
        found = (self._result(ref, self._running.pop(ref)) for ref in done if ref in self._running)
        return [result for result in found if result is not None]

    def _result(self, ref: Any, task: _Task) -> Result | None:
        """Return the result of a task that ended; None if it was lost, and is computed again."""
        task.copies -= 1
        try:
            done = self._ray.get(ref)
        except self._ray.exceptions.RayTaskError as error:
            reason = str(error).strip().rpartition("\n")[2]
            tip = "install the same versions of distill and its dependencies on every node"
            raise ClusterError(f"a node of the Ray cluster cannot compute features: {reason}", tip) from error
        except self._ray.exceptions.RayError as error:
            self._lose(task, error)
            return None
        for other in [ref for ref, running in self._running.items() if running is task]:
            del self._running[other]
            self._ray.cancel(other, force=True)
        self._seconds.append(done.seconds)
        return Result(task.number, self._node(done), done.extracted)

    def _lose(self, task: _Task, error: Exception) -> None:
        task.losses += 1
        reason = " ".join(str(error).split()).partition(".")[0] or type(error).__name__
        if task.losses > _MOST_LOSSES:
            raise ClusterError(
                f"part {task.number + 1}: whatever computes it dies ({reason}); what was finished is kept",
                "look at the logs of Ray for what ends its workers; distill preprocess without --ray computes the rest",
            )
        self._warnings.append(f"a worker of the Ray cluster is lost ({reason}); its part is computed again")
        if not task.copies:
            self._lost.append(task)

    def _node(self, done: ray_task.Done) -> str:
        """Return a node's address, with a part of its number if there are several nodes at it."""
        ids = self._nodes.setdefault(done.address, set())
        ids.add(done.node_id)
        return done.address if len(ids) == 1 else f"{done.address} ({done.node_id[:6]})"

    def _compute_slow_ones_again(self) -> None:
        """Use idle CPUs for parts that take very long, perhaps on a node that is slow or has stopped."""
        if not self._seconds or self._free() <= _QUEUED:
            return
        limit = max(_SLOW_S, _SLOW * statistics.median(self._seconds))
        now = time.monotonic()
        slow = [task for task in self._running.values() if task.copies == 1 and now - task.started > limit]
        for task in slow[: self._free() - _QUEUED]:
            self._submit(task)
