"""The connection to a Ray cluster, or a cluster on this machine that ends with this process. Imports no torch.

Whoever reaches a port of Ray runs code as the user who started it, and Ray listens on all interfaces. So a cluster that
is started here demands a token, which only the user can read, and has no dashboard.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distill.errors import ClusterError, ConfigError

LOCAL = "local"
"""The address of a cluster that is started here."""
AUTO = "auto"
"""The address of the cluster that this machine is a node of."""
# Of the object store: rows never go through it, only lists of files.
_STORE_BYTES = 80 << 20
_CONNECT_S = 10.0
_OLDEST = (2, 52)
_INSTALL = "pip install 'distill[ray]'"
_ADDRESS = re.compile(r"[^\s/:]+:\d{1,5}|\[[\w:.%]+\]:\d{1,5}")
# Ray gives its processes 30 s to start, which a busy machine may need.
_STARTS = 3


def check_ray(address: str) -> None:
    """Check that Ray is installed, and that `address` can be one of a cluster.

    Raises
    ------
    ConfigError
        If it cannot.
    ClusterError
        If Ray is not installed, or too old to demand a token.
    """
    if address not in (LOCAL, AUTO) and not _ADDRESS.fullmatch(address):
        raise ConfigError(
            [f"--ray {address}: not an address of a Ray cluster"],
            "give HOST:PORT, auto for the cluster of this machine, or put --ray last to start one here",
        )
    if importlib.util.find_spec("ray") is None:
        raise ClusterError("--ray needs Ray, which is not installed", _INSTALL)
    version = importlib.metadata.version("ray")
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) < _OLDEST:
        raise ClusterError(f"--ray needs Ray 2.52 or newer, and {version} is installed", f"{_INSTALL} --upgrade")


@contextmanager
def connected(address: str, workers: int | None, folder: Path) -> Iterator[None]:
    """Connect this process to a cluster; to be called before Ray is imported, which reads the environment.

    Parameters
    ----------
    address : str
        HOST:PORT, `AUTO` or `LOCAL`.
    workers : int or None
        Number of CPUs of a cluster that is started here. Default: all.
    folder : Path
        A folder that only this user can enter, for a cluster that is started here; removed when that ends.

    Raises
    ------
    ClusterError
        If there is no cluster, or it refuses.
    """
    # Otherwise Ray makes another environment on each node for a program that was started with `uv run`.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if address == LOCAL:
        try:
            _prepare_environment(folder)
            options = {"num_cpus": workers, "object_store_memory": _STORE_BYTES, "_temp_dir": str(folder / "ray")}
            yield from _connection(address, include_dashboard=False, **options)
        finally:
            # Also removed by the process that made it, unless that was killed.
            shutil.rmtree(folder, ignore_errors=True)
    else:
        if address != AUTO:
            _check_port(address)
        yield from _connection(address)


def _connection(address: str, **options: Any) -> Iterator[None]:
    import ray  # noqa: PLC0415 - an extra, and takes seconds

    tries = _STARTS if address == LOCAL else 1
    while True:
        tries -= 1
        try:
            ray.init(address, log_to_driver=False, configure_logging=False, **options)
            break
        except Exception as error:  # what Ray raises if a node does not start has no class of its own
            ray.shutdown()
            if not tries:
                raise _refused(address, error) from error
    try:
        yield
    finally:
        ray.shutdown()


def _refused(address: str, error: Exception) -> ClusterError:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    if address == LOCAL:
        return ClusterError(f"Ray does not start on this machine: {reason}", "leave out --ray to compute in threads")
    tip = "give the address that ray start --head printed; if the cluster has a token, set RAY_AUTH_MODE=token and "
    return ClusterError(f"Ray at {address} refuses: {reason}", tip + "RAY_AUTH_TOKEN_PATH to the file that holds it")


def _check_port(address: str) -> None:
    """Raise ClusterError if nothing listens at HOST:PORT: Ray would wait for it without end."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        reason = error.strerror or error
        tip = "give the address that ray start --head printed, such as 10.0.0.5:6379"
        raise ClusterError(f"no Ray cluster at {address}: {reason}", tip) from error


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder that only this user can enter, for the token and for Ray, which lets everybody write to its own."""
    # Not that of `tempfile`, because paths of Ray's sockets must be short.
    with tempfile.TemporaryDirectory(prefix="distill-ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _prepare_environment(folder: Path) -> None:
    """Set what Ray and its processes read: the token's file, and nothing is reported to its makers."""
    token = folder / "token"
    descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Ray ends workers when the machine is short of memory, whoever uses it; threads are not ended either.
        "RAY_memory_monitor_refresh_ms": "0",
    }
