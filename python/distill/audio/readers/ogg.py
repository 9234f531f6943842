"""Reads Ogg Vorbis and Opus: libsndfile decodes, and is given pages that are whole and in order.

A file is read once, from its start to its end. Each of its streams, if it is chained, is decoded on its own. libsndfile
is given the headers anew, with the sample rate of 48 kHz for Opus and without comments (cover art), and pages without
their granule positions and end: what is to be cut off at the start and at the end is computed here, because libsndfile
needs the end of the file for that and refuses positions that are odd.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import soundfile

from distill.audio.readers.oggcodecs import CODECS, OTHER_STREAMS, Codec
from distill.audio.readers.oggpages import (
    CONTINUED,
    FIRST,
    LAST,
    NO_POSITION,
    SEQUENCES,
    Page,
    packet_pages,
    page_of,
    read_pages,
)
from distill.audio.readers.protocol import BLOCK_FRAMES, ByteSource, NotForMeError, Pcm, SoundError
from distill.types import Reason

_LARGEST_HEADER = 1 << 20


class OggSound:
    """An Ogg file whose first stream of audio is Vorbis or Opus.

    Parameters
    ----------
    source : ByteSource
        Its bytes.
    """

    frames = None  # no header says how long the file is

    def __init__(self, source: ByteSource) -> None:
        self._pages = _Pages(source)
        stream = _next_stream(self._pages)
        if stream is None:
            raise SoundError(Reason("holds no whole page of an Ogg stream", "damaged"))
        self._first = stream
        self.kind = f"Ogg {stream.codec.kind}"
        self.sample_rate, self.channels = stream.codec.sample_rate, stream.codec.channels

    def blocks(self) -> Iterator[Pcm]:
        """Yield all frames; see `Sound`."""
        stream: _Stream | None = self._first
        total, unfinished = 0, False
        while stream is not None:
            for samples in _decode(stream):
                total += len(samples)
                yield Pcm(samples, stream.codec.sample_rate)
            if stream.fault is not None:
                raise SoundError(Reason(f"{stream.fault}, {total} frames before it can be decoded", "damaged"))
            unfinished |= not stream.finished
            stream = _next_stream(self._pages)
        if unfinished:
            text = f"cut short: the last page of its Ogg stream is missing, {total} frames can be decoded"
            raise SoundError(Reason(text, "cut-short"))

    def close(self) -> None:
        """Do nothing: nothing is held."""


class _Pages:
    """The pages of a file, of which the last one can be given back."""

    def __init__(self, source: ByteSource) -> None:
        self._pages, self._returned = read_pages(source), None

    def next(self) -> Page | None:
        page, self._returned = self._returned, None
        return page or next(self._pages, None)

    def give_back(self, page: Page) -> None:
        self._returned = page


def _next_stream(pages: _Pages) -> _Stream | None:
    """Return the first stream of Vorbis or Opus of those that begin next; None at the end of the file."""
    first_pages = []
    while (page := pages.next()) is not None:
        if page.flags & FIRST:
            first_pages.append(page)
        elif first_pages:
            pages.give_back(page)
            break
    for page in first_pages:
        for codec in CODECS:
            if page.body.startswith(codec.magic):
                return _Stream(pages, page, codec(_header_packets(pages, page, codec.header_count)))
    if not first_pages:
        return None
    names = [next((OTHER_STREAMS[magic] for magic in OTHER_STREAMS if page.body.startswith(magic)), "") for page in first_pages]
    if "FLAC" in names:
        raise NotForMeError
    known = " and ".join(dict.fromkeys(filter(None, names))) or "a stream of an unknown kind"
    raise SoundError(Reason(f"is an Ogg file that holds {known}, and neither Vorbis, Opus nor FLAC", "not-decodable"))
