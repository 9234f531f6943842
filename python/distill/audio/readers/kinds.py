"""Recognises the kind of a file by its first bytes, whatever its name is."""

from __future__ import annotations

import re

from distill.audio.readers import mpc2000, riff, sphere, voc
from distill.audio.readers.mpegframes import find_frames
from distill.audio.readers.protocol import Readable
from distill.types import Reason

_HEAD_BYTES = 4096
_TAGS_MAX = 16
_SEARCHED_BYTES = 1 << 20

NAMES = {
    "wav": "WAV",
    "w64": "Wave64",
    "aiff": "AIFF",
    "svx": "8SVX",
    "caf": "CAF",
    "au": "AU",
    "sphere": "SPHERE",
    "ircam": "IRCAM",
    "voc": "VOC",
    "mpc2000": "MPC 2000",
    "paf": "PAF",
    "pvf": "PVF",
    "avr": "AVR",
    "xi": "Fasttracker instrument",
    "flac": "FLAC",
    "ogg": "Ogg",
    "mpeg": "MP3",
    "aac": "AAC",
    "mp4": "MP4",
    "wavpack": "WavPack",
    "asf": "WMA",
    "matroska": "Matroska or WebM",
    "tta": "TTA",
    "ac3": "AC-3",
    "ape": "Monkey's Audio",
    "musepack": "Musepack",
    "dsf": "DSD",
    "dts": "DTS",
    "amr": "AMR",
    "real": "RealAudio",
    "shorten": "Shorten",
    "tak": "TAK",
    "optimfrog": "OptimFROG",
    "avi": "AVI",
    "flv": "Flash video",
    "mpegps": "MPEG video",
    "mpegts": "MPEG transport stream",
    "latm": "AAC in LATM",
    "mlp": "MLP",
    "truehd": "TrueHD",
    "mxf": "MXF",
    "dv": "DV video",
    "oma": "ATRAC",
    "xwma": "xWMA",
    "qoa": "QOA",
    "dss": "DSS",
    "vqf": "TwinVQ",
    "nut": "NUT",
    "sox": "SoX's own format",
    "hcom": "HCOM",
    "wve": "Psion WVE",
    "maud": "MAUD",
}
"""What the kinds of sound are called in messages."""

_MAGICS: tuple[tuple[bytes, str], ...] = (
    (b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00", "w64"),
    (b"caff", "caf"),
    (b".snd", "au"),
    (b"dns.", "au"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (sphere.MAGIC, "sphere"),
    (voc.MAGIC, "voc"),
    (b" paf", "paf"),
    (b"fap ", "paf"),
    (b"PVF1\n", "pvf"),
    (b"2BIT", "avr"),
    (b"Extended Instrument: ", "xi"),
    (b"wvpk", "wavpack"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"TTA1", "tta"),
    (b"TTA2", "tta"),
    (b"\x0b\x77", "ac3"),
    (b"\x77\x0b", "ac3"),
    (b"MAC ", "ape"),
    (b"MP+", "musepack"),
    (b"MPCK", "musepack"),
    (b"DSD ", "dsf"),
    (b"FRM8", "dsf"),
    (b"\x7f\xfe\x80\x01", "dts"),
    (b"\xfe\x7f\x01\x80", "dts"),
    (b"#!AMR", "amr"),
    (b".RMF", "real"),
    (b".ra\xfd", "real"),
    (b"ajkg", "shorten"),
    (b"tBaK", "tak"),
    (b"OFR ", "optimfrog"),
    (b"FLV\x01", "flv"),
    (b"\x00\x00\x01\xba", "mpegps"),
    (b"DTSHDHDR", "dts"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01\x02", "mxf"),
    (b"ea3\x03", "oma"),
    (b"EA3\x01", "oma"),
    (b"qoaf", "qoa"),
    (b"\x02dss", "dss"),
    (b"\x03dss", "dss"),
    (b"TWIN97012000", "vqf"),
    (b"TWIN00052200", "vqf"),
    (b"nut/multimedia container\0", "nut"),
    (b".SoX", "sox"),
    (b"XoS.", "sox"),
    (b"ALawSoundFile**", "wve"),
)

# First bytes, and what the file is.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "is a ZIP archive"),
    (b"PK\x05\x06", "is an empty ZIP archive"),
    (b"Rar!\x1a\x07", "is a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive"),
    (b"\x1f\x8b", "is compressed with gzip, as are the sets of Ableton Live"),
    (b"BZh", "is compressed with bzip2"),
    (b"\xfd7zXZ\x00", "is compressed with xz"),
    (b"\x28\xb5\x2f\xfd", "is compressed with Zstandard"),
    (b"\x89PNG\r\n\x1a\n", "is a PNG picture"),
    (b"\xff\xd8\xff", "is a JPEG picture"),
    (b"GIF87a", "is a GIF picture"),
    (b"GIF89a", "is a GIF picture"),
    (b"8BPS", "is a Photoshop picture"),
    (b"%PDF-", "is a PDF document"),
    (b"MThd", "is a MIDI file: it holds notes, no sound"),
    (b"version https://git-lfs.github.com/", "is a Git LFS pointer: run git lfs pull"),
    (b"SQLite format 3\x00", "is an SQLite database"),
    (b"\x00\x05\x16\x07", "is an AppleDouble file: it describes another file"),
    (b"\x7fELF", "is a program"),
    (b"MZ", "is a Windows program"),
    (b"\xca\xfe\xba\xbe", "is a program"),
    (b"bplist00", "is a property list"),
    (b"\x93NUMPY", "is a NumPy array"),
    (b"wOFF", "is a font"),
    (b"CAT ", "is a REX file, which only the library of its maker reads"),
    (b"REX2", "is a REX file, which only the library of its maker reads"),
    (b"IMPM", "is a module of a tracker: it holds notes and instruments"),
    (b"Extended Module: ", "is a module of a tracker: it holds notes and instruments"),
    (b"#EXTM3U", "is a playlist"),
    (b"[playlist]", "is a playlist"),
)
_RIFF_OTHERS = {
    b"RMID": "is a MIDI file: it holds notes, no sound",
    b"sfbk": "is a SoundFont",
    b"DLS ": "is a DLS instrument",
    b"WEBP": "is a WebP picture",
    b"ACON": "is an animated cursor",
}
# Types of IFF and RIFF files.
_INNER = {
    b"RIFF": {b"AVI ": "avi", b"RMP3": "mpeg", b"XWMA": "xwma"},
    b"FORM": {b"AIFF": "aiff", b"AIFC": "aiff", b"8SVX": "svx", b"16SV": "svx", b"MAUD": "maud"},
}
# Where the first packet of a transport stream begins, and the distance to the next. Cameras and Blu-ray discs put the
# time before each packet.
_TRANSPORT_PACKETS = ((0, 188), (4, 192))
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"pnot")
_HTML = re.compile(rb"\s*(<!doctype\s+html|<html|<head|<body|<\?xml[^>]*>\s*<!doctype\s+html)", re.IGNORECASE)
# What begins with bytes of any value.
_PATTERNS = (
    (re.compile(rb".{4}\xf8\x72\x6f\xbb", re.DOTALL), "mlp"),
    (re.compile(rb".{4}\xf8\x72\x6f\xba", re.DOTALL), "truehd"),
    (re.compile(rb"\x1f\x07\x00[\x3f\xbf]", re.DOTALL), "dv"),
    (re.compile(rb".{65}FSSD.{59}HCOM", re.DOTALL), "hcom"),
)
_IRCAM = re.compile(rb"\x64\xa3[\x01-\x04]\x00|\x00[\x01-\x04]\xa3\x64")


def kind_of(source: Readable) -> str | None:
    """Return the kind of sound that a file holds, one of `NAMES`, or None if it is none of them.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    start = start_of(source)
    head = source.read_at(start, _HEAD_BYTES)
    kind = _by_magic(head, source.size - start)
    if kind is not None or _other(head) is not None:
        return kind
    return find_frames(source, start, _SEARCHED_BYTES)


def start_of(source: Readable) -> int:
    """Return where a file begins behind the ID3v2 tags at its start."""
    at = 0
    for _ in range(_TAGS_MAX):
        head = source.read_at(at, 10)
        if len(head) < 10 or not head.startswith(b"ID3") or any(byte & 0x80 for byte in head[6:]):
            break
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        at += 10 + size + (10 if head[5] & 0x10 else 0)
    return at


def refusal(source: Readable) -> Reason:
    """Return what a file is of which `kind_of` is None."""
    if source.size == 0:
        return Reason("is empty", "empty")
    start = start_of(source)
    head = source.read_at(start, _HEAD_BYTES)
    if start and not head:
        return Reason("holds an ID3 tag and no sound", "no-samples")
    return Reason(_other(head) or _unknown(source, head), "not-audio")


def _by_magic(head: bytes, size: int) -> str | None:
    for magic, kind in _MAGICS:
        if head.startswith(magic):
            return kind
    outer, inner = head[:4], head[8:12]
    if outer in riff.NAMES and inner == b"WAVE":
        return "wav"
    if outer in _INNER:
        return _INNER[outer].get(inner)
    if head[4:8] in _BOXES:
        return "mp4"
    if size >= 1024 and _IRCAM.match(head):
        return "ircam"
    if _is_latm(head):
        return "latm"
    if any(_has_sync_bytes(head, *packets) for packets in _TRANSPORT_PACKETS):
        return "mpegts"
    return next((kind for pattern, kind in _PATTERNS if pattern.match(head)), None) or _mpc2000(head)


def _mpc2000(head: bytes) -> str | None:
    return "mpc2000" if mpc2000.is_sample(head) else None


def _has_sync_bytes(head: bytes, first: int, step: int) -> bool:
    return head[first : first + 2 * step + 1 : step] == b"\x47" * 3


def _is_latm(head: bytes) -> bool:
    if len(head) < 3 or head[0] != 0x56 or head[1] & 0xE0 != 0xE0:
        return False
    following = 3 + ((head[1] & 0x1F) << 8 | head[2])
    return head[following : following + 1] == b"\x56"


def _other(head: bytes) -> str | None:
    """Return what a file is, if it is known and no sound."""
    if head[4:8] in (b"styp", b"sidx", b"moof"):
        return "is a segment of a stream: its beginning is in another file"
    for magic, words in _OTHERS:
        if head.startswith(magic):
            return words
    if head.startswith(b"RIFF") and head[8:12] in _RIFF_OTHERS:
        return _RIFF_OTHERS[head[8:12]]
    if head.startswith(b"FORM") and head[8:12].isalnum():
        return f"is an IFF file of the type {head[8:12].decode()}, which distill does not read"
    return "is an HTML page" if _HTML.match(head.removeprefix(b"\xef\xbb\xbf")) else None


def _unknown(source: Readable, head: bytes) -> str:
    if not any(head):
        searched = source.read_at(0, _SEARCHED_BYTES)
        if not any(searched):
            return "holds only zeros" if len(searched) == source.size else "begins with a megabyte of zeros"
    if _is_text(head):
        return "not an audio file: it is text"
    return "not an audio file, or of no kind that distill reads"


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be cut.
        text = head.decode() if len(head) < _HEAD_BYTES else head[:-4].decode(errors="strict")
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)
