"""Mounting of file systems, where this user may."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
REMOUNT = 32


def mount(kind: str, at: Path, options: str = "", flags: int = 0) -> int:
    """Mount a file system; return 0 or the error number."""
    ctypes.set_errno(0)
    libc.mount(b"distill-test", os.fsencode(at), kind.encode(), ctypes.c_ulong(flags), options.encode())
    return ctypes.get_errno()


@contextmanager
def mounted(kind: str, at: Path, options: str = "") -> Iterator[Path]:
    at.mkdir(exist_ok=True)
    assert mount(kind, at, options) == 0
    try:
        yield at
    finally:
        assert libc.umount(os.fsencode(at)) == 0


def may_mount() -> bool:
    """Whether this user may mount; any error that is not about permission fails."""
    with tempfile.TemporaryDirectory() as folder:
        error = mount("tmpfs", Path(folder))
        if error == 0:
            assert libc.umount(os.fsencode(folder)) == 0
        assert error in (0, errno.EPERM, errno.EACCES), os.strerror(error)
        return error == 0


MAY_MOUNT = may_mount()
MAY_USE_FUSE = MAY_MOUNT and os.access("/dev/fuse", os.R_OK | os.W_OK)
DETACH = 2


@contextmanager
def shown(folder: Path, at: Path) -> Iterator[subprocess.Popen]:
    """Show `folder` at `at` through FUSE; yield the process that serves it."""
    at.mkdir(exist_ok=True)
    descriptor = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={descriptor},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    assert mount("fuse", at, options) == 0
    script = Path(__file__).parent / "fuse.py"
    server = subprocess.Popen([sys.executable, script, str(descriptor), folder], pass_fds=[descriptor])
    os.close(descriptor)
    try:
        yield server
    finally:
        server.kill()
        server.wait()
        libc.umount2(os.fsencode(at), DETACH)
