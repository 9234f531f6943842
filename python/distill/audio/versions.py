"""The version of what decodes audio, which features depend on. Imports none of it."""

from __future__ import annotations

import importlib.util
import mmap
import re
from collections.abc import Iterable
from pathlib import Path

READERS_VERSION = 1
"""Increment when the readers of this package would give other samples of any file."""

_SNDFILE = re.compile(rb"libsndfile-(\d+\.\d+\.[0-9A-Za-z.]+)\0")
_SOXR = re.compile(r"""^__version__ = (?:version = )?['"]([^'"]+)['"]""", re.MULTILINE)


def decoder_version(libsndfile: str, soxr: str) -> str:
    """Return the version of all that decodes, as the fingerprint of a cache has it."""
    return f"readers {READERS_VERSION}, libsndfile {libsndfile}, soxr {soxr}"


def installed_decoder_version() -> str | None:
    """Return `distill.audio.decode.DECODER_VERSION` as far as the files of the libraries tell it; None if they do not.

    To import the libraries takes 0.1 s, longer than all else that a run does which finds nothing to compute.
    """
    try:
        libraries = [path for path in _files("_soundfile_data") if path.name.startswith("libsndfile_")]
        sndfile = {found.decode() for path in libraries for found in _strings(path)}
        texts = [path.read_text("utf-8") for path in _files("soxr") if path.name in ("_version.py", "version.py")]
    except (OSError, ValueError):
        return None
    soxr = {found[1] for text in texts for found in _SOXR.finditer(text)}
    # soundfile takes the library that is packaged with it, if there is one; other cases are rare.
    if len(libraries) != 1 or len(sndfile) != 1 or len(soxr) != 1:
        return None
    return decoder_version(sndfile.pop(), soxr.pop())


def _files(package: str) -> Iterable[Path]:
    spec = importlib.util.find_spec(package)
    return Path(spec.origin).parent.iterdir() if spec and spec.origin else ()


def _strings(library: Path) -> list[bytes]:
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _SNDFILE.findall(content)
