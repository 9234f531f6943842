"""Files that are dropped on the page: received piece by piece, checked, and kept in the run."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from starlette.requests import ClientDisconnect, Request

from distill.audio.windows import WindowedFile
from distill.errors import AudioFileError, DistillError, StorageError
from distill.play.threads import Threads
from distill.play.view import DROPPED_NAME
from distill.storage import remove_leftovers, storage_error, temporary_file

LARGEST = 256_000_000
"""Bytes of the largest file that is taken."""
_LONGEST_STEM = 80
# Any that shows how long a sound is.
_RATE = 48_000


class TooLargeError(DistillError):
    """A request that is larger than what is taken."""


async def receive_drop(request: Request, run_dir: Path, threads: Threads) -> dict[str, Any]:
    """Receive a file in the body of a request, and keep it in the run if it is a sound.

    Returns
    -------
    dict
        Its source, and its duration in seconds.

    Raises
    ------
    TooLargeError
        If it has more than `LARGEST` bytes; no more is read.
    AudioFileError
        If it cannot be decoded, or is silent.
    StorageError
        If it cannot be written.
    """
    promised = request.headers.get("content-length", "")
    if promised.isdecimal() and int(promised) > LARGEST:
        raise _too_large()
    name = PurePath(request.query_params.get("name", "").replace("\\", "/")).name
    folder = run_dir / DROPPED_NAME
    try:
        _make(folder)
        hashed, size = hashlib.blake2b(), 0
        # Locked until it has its final name, which holds a part of the hash.
        with temporary_file(folder) as (path, file):
            async for piece in request.stream():
                size += len(piece)
                if size > LARGEST:
                    raise _too_large()
                hashed.update(piece)
                file.write(piece)
            duration_s = await threads.do(lambda: _duration_s(path, file))
            kept = _name_for(name, hashed.hexdigest())
            path.replace(folder / kept)
    except AudioFileError as error:
        raise AudioFileError(name or "the file", error.reason, error.tip) from error
    except OSError as error:
        raise storage_error(folder, error, "make it writable, or play a copy of the run") from error
    except ClientDisconnect as error:
        raise StorageError(f"{folder}: the upload of {name!r} was cut off", "drop it again") from error
    return {"source": {"kind": "dropped", "name": kept, "offset": 0.0}, "duration": duration_s}


def _too_large() -> TooLargeError:
    most = f"{LARGEST // 1_000_000} MB"
    return TooLargeError(
        f"the file has more than {most}", "cut out the part to start from, or convert it to FLAC or MP3"
    )


def _make(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise StorageError(f"{folder}: not a folder but a link", "remove it")
    remove_leftovers(folder)


def _duration_s(path: Path, file: BinaryIO) -> float:
    """Return the length in seconds of a file that was written; AudioFileError if it is no sound, or silent."""
    file.flush()
    os.fsync(file.fileno())
    return WindowedFile(path, _RATE, _RATE, _RATE, "file").samples / _RATE


def _name_for(name: str, content: str) -> str:
    """Return the name under which a file is kept: its own, with a part of the hash of its content."""
    path = PurePath(name)
    stem = "".join(character if character.isprintable() else "_" for character in path.stem)
    suffix = path.suffix if path.suffix[1:].isalnum() and len(path.suffix) <= 8 else ""
    return f"{stem.strip('. ')[:_LONGEST_STEM] or 'sound'}-{content[:8]}{suffix}"
