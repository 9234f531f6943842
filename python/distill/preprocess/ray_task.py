"""What runs on a node of a Ray cluster: one part. Imports torch only there."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distill import __version__
from distill.errors import ClusterError, DistillError

if TYPE_CHECKING:
    from distill.preprocess.parts import Job

_OTHER_NODE_TIP = "or let the node compute nothing: start Ray there with --num-cpus 0"


class PackedJob(NamedTuple):
    """A job as it is sent to the nodes."""

    job: bytes
    """Pickled."""
    dataset_dir: str
    probe: str
    """A file in the cache that exists as long as the job runs."""
    sample: tuple[str, ...]
    """Paths of some files, of all parts."""
    version: str = __version__
    """The version of distill that planned it."""


class Done(NamedTuple):
    """What a task returns."""

    extracted: bytes
    """Pickled: an `Extracted`, or the error that ended the part."""
    address: str
    node_id: str
    seconds: float


def extract(job: PackedJob, part: bytes) -> Done:
    """Compute a part on this node."""
    import ray  # noqa: PLC0415 - an extra

    start = time.monotonic()
    address = ray.util.get_node_ip_address()
    try:
        result = _extracted(job, part)
    except DistillError as error:
        result = ClusterError(f"node {address}: {error}", error.tip)
    node_id = ray.get_runtime_context().get_node_id()
    return Done(pickle.dumps(result), address, node_id, time.monotonic() - start)


def _extracted(job: PackedJob, part: bytes) -> object:
    if job.version != __version__:
        raise ClusterError(
            f"has distill {__version__}, and the work was planned by {job.version}",
            "install the same version of distill on every node",
        )
    _check_folders(job)
    from distill.cache.disk import cache_write_error  # noqa: PLC0415
    from distill.preprocess.parts import extract_part  # noqa: PLC0415

    unpacked = pickle.loads(part)  # noqa: S301 - from our own driver
    _check_files(job, [source.path for source in unpacked.sources])
    try:
        return extract_part(_unpacked(job.job), unpacked, _never)
    except OSError as error:
        raise cache_write_error(Path(job.probe).parent, error) from error


def _check_folders(job: PackedJob) -> None:
    """Check that this node sees the dataset and the cache under the same paths."""
    if not Path(job.probe).exists():
        raise ClusterError(
            f"does not see the cache, {Path(job.probe).parent}: it must be shared storage, at the same path everywhere",
            f"mount it there, {_OTHER_NODE_TIP}, or choose a shared --cache-dir",
        )
    if not Path(job.dataset_dir).is_dir():
        raise ClusterError(
            f"does not see the dataset, {job.dataset_dir}: it must be shared storage, at the same path everywhere",
            f"mount it there, {_OTHER_NODE_TIP}",
        )


def _check_files(job: PackedJob, paths: Sequence[str]) -> None:
    """Check that another folder is not in the dataset's place: then none of its files are there.

    The files of one part do not tell: it may have a single one, which was removed since the work was planned.
    """
    if not any(os.path.lexists(path) for path in (*paths, *job.sample)):
        raise ClusterError(
            f"another folder than the dataset is at {job.dataset_dir}: none of its files is there, such as {paths[0]}",
            f"mount the dataset there, {_OTHER_NODE_TIP}",
        )


def _never() -> None:
    """Never stop: Ray ends the worker."""


_jobs: dict[bytes, Job] = {}


def _unpacked(job: bytes) -> Job:
    """Return a job, the same object for each of its parts: what computes the rows is made once."""
    if job not in _jobs:
        _jobs.clear()
        _jobs[job] = pickle.loads(job)  # noqa: S301 - from our own driver
    return _jobs[job]
