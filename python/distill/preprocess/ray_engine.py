"""The engine that computes parts on a Ray cluster. It starts a process that talks to Ray; see `ray_driver`."""

from __future__ import annotations

import logging
import math
import os
import pickle
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

from distill.cache.parts import share
from distill.errors import ClusterError
from distill.preprocess.events import Source
from distill.preprocess.parts import Job, Part
from distill.preprocess.ray_cluster import LOCAL, check_ray, private_folder
from distill.preprocess.ray_driver import Parts, Request, Update
from distill.preprocess.ray_task import PackedJob
from distill.preprocess.recording import Extracted
from distill.storage import remove_leftovers
from distill.text import counted

logger = logging.getLogger(__name__)

# A cluster that starts on a busy machine may take minutes.
_START_S = 240.0
_STOP_S = 10.0
_POLL_S = 0.5
_REPORT_EVERY_S = 30.0
_TAIL_BYTES = 2000
# Number of files by which a node can tell that another folder is in the dataset's place.
_SAMPLE = 20
# The path of modules is passed on, without the current folder, which may hold modules of the same names.
_PROGRAM = (
    "import sys; sys.path[:] = sys.argv[2:]; from distill.preprocess.ray_driver import main; main(int(sys.argv[1]))"
)


@dataclass(frozen=True)
class RayEngine:
    """Computes parts on a Ray cluster.

    Parameters
    ----------
    address : str
        HOST:PORT, `AUTO` for the cluster that this machine is a node of, or `LOCAL` to start one here.
    workers : int, optional
        Number of CPUs of a cluster that is started here. Default: all.
    """

    address: str = LOCAL
    workers: int | None = None

    def __call__(self, job: Job, parts: Sequence[Part]) -> Generator[Extracted, None, None]:
        """Yield what each part has, in the order in which they are finished; an empty result twice a second or faster.

        Closing the iterator ends the work.

        Parameters
        ----------
        job : Job
            What to compute. Features are computed on CPUs, whatever its device is.
        parts : sequence of Part
            The parts.

        Raises
        ------
        ClusterError
            If the cluster cannot be reached, or one of its nodes cannot do the work.
        """
        check_ray(self.address)
        if not parts:
            return
        dataset_dir, cache_dir = job.dataset_dir.absolute(), job.cache_dir.absolute()
        config = replace(job.config, device="cpu")
        job = replace(job, config=config, root=None, dataset_dir=dataset_dir, cache_dir=cache_dir)
        place = "starts on this machine" if self.address == LOCAL else f"at {self.address}"
        logger.info("the Ray cluster %s; features are computed on the CPUs of its nodes", place)
        with _probe(job) as probe, private_folder() as folder, _driver() as (connection, process, output):
            packed = pack_job(job, parts, probe)
            connection.send(Request(self.address, self.workers, folder, packed))
            try:
                yield from _results(connection, parts)
            except (EOFError, BrokenPipeError, ConnectionResetError) as error:
                raise _ended(process, output) from error


def pack_job(job: Job, parts: Sequence[Part], probe: str) -> PackedJob:
    """Return a job as it is sent to the nodes.

    Parameters
    ----------
    job : Job
        The job.
    parts : sequence of Part
        All of its parts.
    probe : str
        A file in the cache that exists as long as the job runs.
    """
    step = math.ceil(sum(len(part.sources) for part in parts) / _SAMPLE)
    sources = islice(chain.from_iterable(part.sources for part in parts), 0, None, step)
    return PackedJob(pickle.dumps(job), str(job.dataset_dir), probe, tuple(_from_here(source) for source in sources))


def _results(connection: Connection, parts: Sequence[Part]) -> Iterator[Extracted]:
    """Answer the updates of the driver, and yield the results in them."""
    sent, nodes = 0, _Nodes()
    while nodes.finished < len(parts):
        update = yield from _received(connection)
        for line in update.warnings:
            logger.warning("%s", line)
        nodes.compare(update.nodes, update.cpus)
        wanted = range(sent, min(len(parts), sent + update.wanted))
        sent = wanted.stop
        # Before the results are used, so that the cluster is busy meanwhile.
        connection.send(Parts([(number, pack_part(parts[number])) for number in wanted], sent == len(parts)))
        for result in update.results:
            extracted = pickle.loads(result.extracted)  # noqa: S301 - from our own process on a node
            if isinstance(extracted, Exception):
                raise extracted
            nodes.add(result.node, extracted.ended)
            yield extracted
            nodes.finished += 1
    nodes.log()


def pack_part(part: Part) -> bytes:
    """Return a part, pickled, with paths that mean the same in every working directory."""
    sources = tuple(source._replace(path=_from_here(source)) for source in part.sources)
    return pickle.dumps(replace(part, sources=sources))


def _from_here(source: Source) -> str:
    """Return the path of a source, as it is in every working directory."""
    return os.path.join(Path.cwd(), source.path)


def _received(connection: Connection) -> Generator[Extracted, None, Update]:
    """Wait for an update, yielding empty results meanwhile, so that the caller can end it; return the update.

    Raises
    ------
    DistillError
        That the driver sent instead.
    """
    before = time.monotonic() + _START_S
    yield Extracted()
    while not connection.poll(_POLL_S):
        yield Extracted()
        if time.monotonic() > before:
            raise ClusterError(f"no sign of the Ray cluster for {_START_S:.0f} s", "see whether ray status answers")
    message = connection.recv()
    if isinstance(message, Exception):
        raise message
    update: Update = message
    return update


class _Nodes:
    """What the cluster has and what each of its nodes has done, for the log."""

    def __init__(self) -> None:
        self.finished = 0
        self._there = (0, 0)
        self._files: Counter[str] = Counter()
        self._next_report = 0.0

    def compare(self, nodes: int, cpus: int) -> None:
        """Log how many nodes and CPUs there are if that is not what it was."""
        if (nodes, cpus) == self._there:
            return
        self._there = nodes, cpus
        self._next_report = self._next_report or time.monotonic() + _REPORT_EVERY_S
        logger.info("the Ray cluster has %s, %s", counted(nodes, "node"), counted(cpus, "CPU"))
        if not cpus:
            logger.warning("waiting for a node with a CPU")

    def add(self, node: str, files: int) -> None:
        """Add files that a node has computed, and report now and then."""
        self._files[node] += files
        if time.monotonic() >= self._next_report:
            self.log()

    def log(self) -> None:
        """Log the number of files of each node."""
        done = ", ".join(f"{counted(files, 'file')} on {node}" for node, files in sorted(self._files.items()))
        logger.info("computed: %s", done)
        self._next_report = time.monotonic() + _REPORT_EVERY_S


@contextmanager
def _probe(job: Job) -> Iterator[str]:
    """Make a file in the cache, by which each node can tell that it sees the same cache. Its name was never used."""
    folder = share(job.slot_dir)
    remove_leftovers(folder)
    path = folder / f".distill-{secrets.token_hex(8)}.tmp"
    path.touch()
    try:
        yield str(path)
    finally:
        with suppress(OSError):
            path.unlink()


@contextmanager
def _driver() -> Iterator[tuple[Connection, subprocess.Popen[bytes], BinaryIO]]:
    """Start the process that talks to Ray. Afterwards it ends, and with it all that it started."""
    ours, theirs = Pipe()
    with tempfile.TemporaryFile() as output, ours:
        with theirs:
            os.set_inheritable(theirs.fileno(), True)
            process = subprocess.Popen(  # noqa: S603 - this very Python
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), *filter(None, sys.path)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for this process alone, which ends the other one.
                start_new_session=True,
            )
        try:
            yield ours, process, output
        finally:
            ours.close()
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process that is about to end; kill it, and all that it started, if it does not, or at Ctrl-C."""
    try:
        process.wait(_STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, KeyboardInterrupt):
            raise


def _ended(process: subprocess.Popen[bytes], output: BinaryIO) -> ClusterError:
    """Return the error for a driver that has ended: Ray ends the process if the cluster goes away."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
    lines = output.read().decode(errors="replace").strip().splitlines()
    last = lines[-1].strip() if lines else f"exit status {process.returncode}"
    return ClusterError(
        f"the connection to the Ray cluster was lost ({last}); what was finished is kept",
        "look whether the cluster is there (ray status), and run again",
    )
