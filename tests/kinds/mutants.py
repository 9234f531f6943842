"""Files that were cut, overwritten, flipped or stuffed at random, given to every reader in a process with limits.

Run as ``python mutants.py FOLDER [ffmpeg]``; it reads lines of CONTAINER NUMBER, and writes a line of JSON before and
after each file.
"""

from __future__ import annotations

import json
import random
import resource
import struct
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distill.audio.decode import decode_blocks
from distill.audio.readers.kinds import kind_of
from distill.audio.readers.protocol import ByteSource, NotForMeError, SoundError
from distill.audio.readers.table import READERS
from distill.errors import AudioFileError
from kinds.table import heard_now, mono

# What is heard of a damaged packet of these, decoders do not agree on.
CONCEALING = frozenset(
    ("mp3", "mp3-without-header", "mp2", "m4a", "m4a-fragmented", "adts", "wav-ima-adpcm", "wav-ms-adpcm", "wav-gsm")
)
MEMORY = 300 << 20
SECONDS = 5
_AIFC_VERSION = bytes.fromhex("a2805140")


class Base(NamedTuple):
    """An intact file, as it is kept in a folder."""

    content: bytes
    samples: np.ndarray
    """[n], float32, mono: what is heard in it."""
    rate: int
    ends: np.ndarray
    """[k], where its packets end, in bytes."""
    frames: np.ndarray
    """[k], how many frames of sound are complete there."""
    has_checksums: bool
    """Whether a reader must notice every change of the sound."""

    @classmethod
    def load(cls, folder: Path, container: str) -> Base:
        """Return the base that `save` wrote."""
        with np.load(folder / f"{container}.npz") as kept:
            return cls(
                kept["content"].tobytes(),
                kept["samples"],
                int(kept["rate"]),
                kept["ends"],
                kept["frames"],
                bool(kept["has_checksums"]),
            )

    def save(self, folder: Path, container: str) -> None:
        """Write it for the child process."""
        content = np.frombuffer(self.content, np.uint8)
        np.savez(folder / f"{container}.npz", **(self._asdict() | {"content": content}))


class Mutant(NamedTuple):
    """A changed file."""

    content: bytes
    at: int
    """The first byte that was changed."""
    words: str


def _cut(random: random.Random, content: bytes, at: int) -> bytes:
    return content[:at]


def _zero(random: random.Random, content: bytes, at: int) -> bytes:
    count = random.choice([1, 4, 16, 200, 4_000])
    return content[:at] + bytes(len(content[at : at + count])) + content[at + count :]


def _flip(random: random.Random, content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]


def _size(random: random.Random, content: bytes, at: int) -> bytes:
    at -= at % 2
    (old,) = struct.unpack("<I", content[at : at + 4].ljust(4, b"\0"))
    value = random.choice([0, 1, 0xFFFF_FFFF, 0x7FFF_FFFF, old + 1, old - 1, old * 2, 1 << random.randrange(32)])
    new = struct.pack(random.choice("<>") + "I", value & 0xFFFF_FFFF)
    return content[:at] + new[: len(content) - at] + content[at + 4 :]


def _insert(random: random.Random, content: bytes, at: int) -> bytes:
    return content[:at] + random.randbytes(random.choice([1, 2, 7, 300])) + content[at:]


def _remove(random: random.Random, content: bytes, at: int) -> bytes:
    return content[:at] + content[at + random.choice([1, 2, 7, 300]) :]


_MUTATIONS: tuple[Callable[[random.Random, bytes, int], bytes], ...] = (_cut, _zero, _flip, _size, _insert, _remove)


def mutant(container: str, base: Base, number: int) -> Mutant:
    """Return a changed file; the same number gives the same one."""
    seeded = random.Random(f"{container} {number}")
    changed, changes, first = base.content, [], len(base.content)
    for _ in range(seeded.choice([1, 1, 1, 2, 4])):
        change = _MUTATIONS[(number + len(changes)) % len(_MUTATIONS)]
        # Headers are short, so half of all changes are made in the first bytes.
        at = seeded.randrange(min(len(changed), 160) if seeded.random() < 0.5 else len(changed))
        changed = change(seeded, changed, at) or b"\0"
        changes.append(f"{change.__name__[1:]} at {at}")
        first = min(first, at - at % 2)
    return Mutant(changed, first, ", ".join(changes))


def listen(path: Path, base: Base, mutant: Mutant, *, ask_ffmpeg: bool) -> str:
    """Decode a file with every reader of its kind; return what happened, or raise AssertionError."""
    source = ByteSource(path)
    kind = kind_of(source)
    for opener in READERS.get(kind or "", ()):
        _drain(opener, source, len(mutant.content))
    decoding = decode_blocks(path, base.rate)
    try:
        found = np.concatenate([block.samples for block in decoding])
    except AudioFileError as error:
        reason = error.reason
    else:
        _compare(found, base, mutant)
        # FFmpeg takes AIFF-C with another version than the only one for AIFF, so that bytes are swapped.
        is_swapped = mutant.content[8:12] == b"AIFC" and _AIFC_VERSION not in mutant.content
        if ask_ffmpeg and not is_swapped:
            _ask(path, base, found)
        return str(decoding.partial)
    assert reason, "an error without a reason"
    # What comes before the change can be decoded, if it is more than a little. A file with NaN is refused as a whole.
    good = 0 if reason.code == "not-finite" else _good_frames(base, mutant)
    assert not good, f"refused, with {good} good frames: {reason}"
    return str(reason)


def _drain(opener: Callable, source: ByteSource, size: int) -> None:
    try:
        sound = opener(source)
    except (SoundError, NotForMeError):
        return
    try:
        with suppress(SoundError):
            frames = sum(len(pcm.samples) for pcm in sound.blocks())
            # The densest of all are constant frames of FLAC: 65 536 frames in about 10 bytes.
            assert frames <= 8_000 * (size + 100), f"{frames} frames of {size} bytes"
    finally:
        sound.close()


def _good_frames(base: Base, mutant: Mutant) -> int:
    """Return how many frames are complete before the change; 0 if it is in the header."""
    whole = np.searchsorted(base.ends, mutant.at, side="right")
    # A decoder may look at the next packet before it trusts one.
    return int(base.frames[whole - 2]) if whole >= 2 else 0


def _compare(found: np.ndarray, base: Base, mutant: Mutant) -> None:
    good = _good_frames(base, mutant)
    assert len(found) >= good, f"only {len(found)} of {good} good frames"
    count = min(len(found), len(base.samples)) if base.has_checksums and mutant.at >= base.ends[0] else good
    away = np.abs(found[:count] - base.samples[:count])
    if count and away.max() > 1e-4:
        raise AssertionError(f"wrong sample {int(np.argmax(away > 1e-4))} of {count}, {good} before the change")


def _ask(path: Path, base: Base, found: np.ndarray) -> None:
    """Compare what is not heard in the intact file, too, with what FFmpeg hears."""
    count = min(len(found), len(base.samples))
    if np.abs(found[:count] - base.samples[:count]).max() <= 1e-4:
        return
    try:
        samples, rate = heard_now(path)
    except RuntimeError:
        return  # It hears nothing.
    if rate != base.rate or len(samples) != len(found):
        return  # It takes the file for another one, as where fields of a header contradict each other.
    expected = mono(samples)
    away = np.abs(found - expected)
    if away.max() > 1e-4:
        raise AssertionError(f"FFmpeg hears another sample {int(np.argmax(away > 1e-4))} of {len(found)}")


def main(folder: Path, jobs: Iterable[str], *, ask_ffmpeg: bool) -> None:
    """Decode mutants, and write what happened."""
    bases: dict[str, Base] = {}
    limit = 0
    for job in jobs:
        container, number = job.split()
        path = folder / f"{container}.mutant"
        if container not in bases:
            bases[container] = Base.load(folder, container)
            path.write_bytes(bases[container].content)
            with suppress(AudioFileError):
                list(decode_blocks(path, bases[container].rate))  # so that all is imported before memory is measured
        limit = limit or _memory() + MEMORY
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        changed = mutant(container, bases[container], int(number))
        path.write_bytes(changed.content)
        _say(container, number, "start", changed.words)
        spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(spent) + SECONDS + 1, resource.RLIM_INFINITY))
        try:
            asks = ask_ffmpeg and container not in CONCEALING
            _say(container, number, "done", listen(path, bases[container], changed, ask_ffmpeg=asks))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
            _say(container, number, "fault", f"{changed.words}: {type(error).__name__}: {error}")


def _memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) << 10


def _say(*words: str) -> None:
    print(json.dumps(words), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdin.read().splitlines(), ask_ffmpeg="ffmpeg" in sys.argv[2:])
