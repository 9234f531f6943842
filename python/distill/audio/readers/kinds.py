"""Recognises the kind of a file by its first bytes, whatever its name is."""

from __future__ import annotations

from distill.audio.readers.protocol import ByteSource

_HEAD_BYTES = 64


def kind_of(source: ByteSource) -> str | None:
    """Return the kind of audio that a file holds, or None if it is not known.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    head = source.read_at(0, _HEAD_BYTES)
    for kind, magic in (("flac", b"fLaC"), ("ogg", b"OggS"), ("caf", b"caff"), ("au", b".snd"), ("mpeg", b"ID3")):
        if head.startswith(magic):
            return kind
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"riff") or head[:4] == b"FORM":
        return "riff"
    return "mpeg" if head[:1] == b"\xff" else None
