"""The streams of an Ogg file, one after the other: their headers, their pages, and which of their frames are heard."""

from __future__ import annotations

from distill.audio.readers.oggcodecs import CODECS, OTHER_STREAMS, Codec
from distill.audio.readers.oggpages import (
    CONTINUED,
    FIRST,
    LAST,
    NO_POSITION,
    SEQUENCES,
    Page,
    header_pages,
    page_of,
    read_pages,
)
from distill.audio.readers.protocol import NotForMeError, Readable, SoundError, needs_ffmpeg
from distill.types import Reason

_LARGEST_HEADER = 1 << 20
_LARGEST_WITHOUT_FRAMES = 1 << 24
_VERY_LONG = 1 << 60


class Pages:
    """The pages of a file, of which the last one can be given back."""

    def __init__(self, source: Readable) -> None:
        self._pages = read_pages(source)
        self._returned: Page | None = None

    def next(self) -> Page | None:
        """Return the next page; None at the end."""
        page, self._returned = self._returned, None
        return page or next(self._pages, None)

    def give_back(self, page: Page) -> None:
        """Have `next` return a page again."""
        self._returned = page


def next_stream(pages: Pages) -> Stream | None:
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
                return Stream(pages, page, codec)
    if not first_pages:
        return None
    names = [name for page in first_pages for magic, name in OTHER_STREAMS.items() if page.body.startswith(magic)]
    if "FLAC" in names:
        raise NotForMeError
    known = " and ".join(dict.fromkeys(names)) or "a stream of an unknown kind"
    if known == "Speex":
        raise needs_ffmpeg("is an Ogg file that holds Speex")
    raise SoundError(Reason(f"is an Ogg file that holds {known}, and no Vorbis, Opus or FLAC", "not-decodable"))


class Stream:
    """A stream of an Ogg file, whose header has been read.

    Attributes
    ----------
    decodable : int
        Frames that can be decoded from the pages so far.
    unheard : int
        The last frames of them, which are only there to fill the last packets.
    skipped : int
        The first frames of them, from which a decoder starts.
    ended, finished : bool
        Whether there are no more pages; whether the last page was there.
    fault : str or None
        Why the rest of the stream is not read.
    """

    def __init__(self, pages: Pages, first: Page, codec: type[Codec]) -> None:
        self._pages, self._serial, self._sequence = pages, first.serial, first.sequence
        self._rest: Page | None = None
        self.ended = self.finished = False
        self.codec = codec(self._header_packets(first, codec.header_count))
        self.decodable = self.unheard = 0
        self.skipped = self.codec.skipped
        self.fault: str | None = None
        self._begun: bytes | None = None  # the first two bytes of a packet that goes on on the next page
        self._position: int | None = None  # granule position of the last page that had one
        self._without_frames = 0  # bytes since the last page with frames
        self._since = 0  # frames on the pages after it
        self._given: int | None = None  # number of the last page that was given to the decoder

    def _header_packets(self, page: Page | None, count: int) -> list[bytes]:
        packets, packet = [], bytearray()
        while page is not None:
            start, body = 0, page.body
            for index, size in enumerate(page.lacing):
                packet += body[start : start + size]
                start += size
                if len(packet) > _LARGEST_HEADER:  # as comments may be, with a cover; they are not needed
                    del packet[_LARGEST_HEADER:]
                if size < 255:
                    packets.append(bytes(packet))
                    packet.clear()
                if len(packets) == count:
                    # Sound may begin on the same page, though it should not.
                    if lacing := page.lacing[index + 1 :]:
                        flags = page.flags & LAST
                        self._rest = page_of(flags, page.position, page.serial, page.sequence, lacing, body[start:])
                    self._sequence = page.sequence
                    return packets
            page = self._page_of_stream()
            if page is not None and page.sequence != (self._sequence + 1) % SEQUENCES:
                raise SoundError(Reason("a page of its Ogg header is missing or damaged", "damaged"))
            self._sequence = (self._sequence + 1) % SEQUENCES
        raise SoundError(Reason("cut short: it ends within its header", "cut-short"))

    def _page_of_stream(self) -> Page | None:
        """Return the next page of this stream, or None where others begin, or at the end of the file."""
        while (page := self._pages.next()) is not None:
            if page.flags & FIRST:
                self._pages.give_back(page)
                return None
            if page.serial == self._serial:
                return page
        return None

    def next_bytes(self) -> bytes:
        """Return the next page for the decoder, the first time behind the header; empty at the end."""
        page, self._rest = self._rest or self._page_of_stream(), None
        if page is None or self.finished:
            self.ended = True
            if page is not None:
                self.fault = "goes on after its last page"
            return b""
        frames = self._count(page)
        self._without_frames = 0 if frames else self._without_frames + len(page.raw)
        if self._without_frames > _LARGEST_WITHOUT_FRAMES:
            self.ended, self.fault = True, f"holds {_LARGEST_WITHOUT_FRAMES >> 20} MB without sound"
            return b""
        if self._is_gap(page, frames):
            self.ended, self.fault = True, "a page of its Ogg stream is missing or damaged"
            return b""
        self._sequence = page.sequence
        self._measure(page, frames)
        return self._for_decoder(page)

    def _count(self, page: Page) -> int:
        """Return how many frames the packets give that end on a page."""
        starts, start, body = [], 0, page.body
        packet = self._begun if page.flags & CONTINUED else None
        unknown = page.flags & CONTINUED and packet is None  # its start is not in the file
        for size in page.lacing:
            if packet is None:
                packet = body[start : start + min(size, 2)]
            start += size
            if size < 255:
                if not unknown:
                    starts.append(packet)
                packet, unknown = None, 0
        self._begun = None if unknown else packet
        return self.codec.frames(starts)

    def _is_gap(self, page: Page, frames: int) -> bool:
        """Tell whether sound is missing before a page. Numbers may be wrong; then the granule positions tell."""
        if page.sequence == (self._sequence + 1) % SEQUENCES:
            return False
        if self._given is None:
            # Records of a broadcast go on with any number behind the header, but without a page that is no good.
            return page.is_behind_others
        if self._position is None or page.position == NO_POSITION:
            return True
        expected = self._position + self._since + frames
        return page.position != expected and not (page.flags & LAST and self._position < page.position < expected)

    def _measure(self, page: Page, frames: int) -> None:
        """Add the frames of a page, and find those that are not to be heard."""
        self.decodable += frames
        self._since += frames
        if page.flags & LAST:
            self.finished = True
        if page.position == NO_POSITION:
            return
        surplus = (self._position or 0) + self._since - page.position
        if page.flags & LAST:
            self.unheard = min(max(surplus, 0), frames)
        elif self._position is None and self.codec.starts_early:
            # The stream begins before position 0: it was cut from another one.
            self.skipped = min(max(surplus, 0), frames)
        self._position, self._since = page.position, 0

    def _for_decoder(self, page: Page) -> bytes:
        header = b""
        if self._given is None:
            pages = header_pages(self.codec.headers, self._serial, page.sequence)
            header = b"".join(each.raw for each in pages)
            self._given = pages[-1].sequence
        self._given = (self._given + 1) % SEQUENCES
        position = NO_POSITION if page.position == NO_POSITION else self.decodable
        return header + page.changed(flags=page.flags & CONTINUED, position=position, sequence=self._given).raw

    def end_page(self) -> bytes:
        """Return a page that says that the stream is very long."""
        return page_of(0, _VERY_LONG, self._serial, 0, b"", b"").raw
