"""What a row of the table is; FFmpeg as the judge of what a file holds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TOLERANCE = 1e-4
JUDGE = "ffmpeg"


@dataclass(frozen=True)
class Made:
    """What is known about a file that was made.

    Without anything, FFmpeg's decoding of the file is what must be heard.
    """

    written: np.ndarray | None = None
    """[n, channels], the samples that the file was made of."""
    rate: int = 44_100
    """Of `written`, Hz."""
    atol: float = TOLERANCE
    """How far what is heard may be from `written`: that of the encoding."""
    parts: tuple[Path, ...] | None = None
    """Files that FFmpeg decodes instead, one after the other. None: the file itself. (): FFmpeg cannot, or is wrong."""
    start: int = 0
    """Frames of FFmpeg's decoding that are not heard, such as an encoder's delay."""
    stop: int | None = None
    """End of what is heard, in frames of FFmpeg's decoding, or of `written`."""
    partial: str | None = None
    """Code of the reason why the file is partial; the frames before `stop` are heard."""


@dataclass(frozen=True)
class Refused:
    """A file that cannot be used."""

    reason: str
    """The exact reason."""
    code: str
    is_read_with: str | None = None
    """Module that reads the file, if it is installed."""


@dataclass(frozen=True)
class Row:
    """One kind of file."""

    name: str
    """Of the file; unique."""
    make: Callable[[Path], Made | None]
    """Writes the file."""
    tools: tuple[str, ...] = ()
    """Programs that `make` needs, or that must be there to know what is heard."""
    refused: Refused | None = None
    decoder: str | None = None
    """Decoder of FFmpeg that is asked, if it is not its first choice."""


def written_by(build: Callable[[], tuple[bytes, Made]]) -> Callable[[Path], Made]:
    """Return what writes a file whose bytes are made in code."""

    def make(path: Path) -> Made:
        content, made = build()
        path.write_bytes(content)
        return made

    return make


def tool(*command: object, stdin: bytes | None = None) -> bytes:
    """Run a program and return its standard output."""
    words = [str(word) for word in command]
    done = subprocess.run(words, input=stdin, stdin=None if stdin else subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        message = f"{' '.join(words)}: exit status {done.returncode}\n{done.stderr.decode(errors='replace')[-800:]}"
        raise RuntimeError(message)
    return done.stdout


def ffmpeg(*options: object, stdin: bytes | None = None) -> bytes:
    """Run FFmpeg; without times and versions in what it writes."""
    return tool("ffmpeg", "-v", "error", "-nostdin", "-y", "-threads", "1", *options, stdin=stdin)


Heard = tuple[np.ndarray, int]
_heard: dict[tuple[Path, str | None], Heard] = {}
# FFmpeg takes longer to start than to decode a short sound.
_TOGETHER = 24


def heard(path: Path, decoder: str | None = None) -> Heard:
    """Return what FFmpeg hears in a file, [n, channels], float32, and its sample rate."""
    if (path, decoder) not in _heard:
        _hear([(path, decoder)])
    return _heard[path, decoder]


def heard_now(path: Path) -> Heard:
    """Return what FFmpeg hears in a file that was another one before."""
    _heard.pop((path, None), None)
    return heard(path)


def hear(rows: Iterable[tuple[Row, Path, Made]], pool: Executor) -> None:
    """Let FFmpeg decode the files of many rows, so that `truths` has them at once."""
    asked = [(file, row.decoder) for row, path, made in rows for file in _files(path, made)] if has_judge() else []
    list(pool.map(_hear, (asked[start : start + _TOGETHER] for start in range(0, len(asked), _TOGETHER))))


def _hear(files: Sequence[tuple[Path, str | None]]) -> None:
    outputs = [path.with_suffix(f"{path.suffix}.heard.au") for path, _ in files]
    inputs: list[object] = []
    results: list[object] = []
    for number, ((path, decoder), output) in enumerate(zip(files, outputs, strict=True)):
        inputs += [*(("-c:a", decoder) if decoder else ()), "-i", path]
        results += ["-map", f"{number}:a:0", "-c:a", "pcm_f32be", "-f", "au", output]
    try:
        ffmpeg(*inputs, *results)
    except RuntimeError:
        if len(files) == 1:
            raise
        return  # The row whose file it is asks again, and fails alone.
    _heard.update(zip(files, map(_au, outputs), strict=True))


def _au(path: Path) -> Heard:
    content = path.read_bytes()
    # Six 32-bit words: magic, where the samples start, their size, encoding 6 (float), rate, channels.
    start, _, encoding, rate, channels = (int(word) for word in np.frombuffer(content[4:24], ">u4"))
    assert encoding == 6, encoding
    return np.frombuffer(content[start:], ">f4").reshape(-1, channels).astype(np.float32), rate


def mono(samples: np.ndarray) -> np.ndarray:
    """Return the mean of the channels."""
    return samples.astype(np.float64).mean(axis=1)


def has_judge() -> bool:
    """Return whether FFmpeg is installed."""
    return shutil.which(JUDGE) is not None


def truths(row: Row, path: Path, made: Made) -> list[tuple[list[np.ndarray], list[int], float]]:
    """Return what must be heard, by each witness: the parts (mono), their sample rates, and the tolerance."""
    witnesses = []
    if made.written is not None:
        witnesses.append(([mono(made.written)[: made.stop]], [made.rate], made.atol))
    files = _files(path, made)
    if files and has_judge():
        parts = [heard(file, row.decoder) for file in files]
        sounds, rates = [mono(samples) for samples, _ in parts], [rate for _, rate in parts]
        if made.start or made.stop is not None:
            sounds, rates = [np.concatenate(sounds)[made.start : made.stop]], rates[:1]
        witnesses.append((sounds, rates, TOLERANCE))
    return witnesses


def _files(path: Path, made: Made) -> tuple[Path, ...]:
    return (path,) if made.parts is None else made.parts
