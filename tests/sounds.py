"""Seeded sounds for tests, none of them silent or constant; small configurations; helpers to read a cache."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from blake3 import blake3

from distill.audio import decode, load_cache_manifest
from distill.audio.decode import Block, Decoding
from distill.audio.readers.protocol import Pcm
from distill.cache import CacheReader
from distill.config import AugmentationConfig, ComplexSpectrogramConfig, TrainingConfig

RATE = 16_000
CHUNK = 8_000
FEATURE = {"sample_rate": RATE, "n_fft": 512, "hop_length": 256, "n_mels": 32}


SMALL = [
    *("--complex-spectrogram.sample-rate", "16000", "--complex-spectrogram.n-fft", "512"),
    *("--complex-spectrogram.hop-length", "256", "--complex-spectrogram.n-mels", "32", "--chunk-samples", "8000"),
    *("--augmentation-expansion", "0", "--device", "cpu"),
]


def sine(frequency: float, seconds: float = 1.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    """Return a sine [S], float64."""
    return level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def noise(seed: int, samples: int = CHUNK, level: float = 0.2) -> np.ndarray:
    """Return white noise [samples], float64, with a peak of `level`."""
    values = np.random.default_rng(seed).standard_normal(samples)
    return level * values / np.abs(values).max()


def write(
    path: Path | str | bytes, samples: np.ndarray, rate: int = RATE, subtype: str | None = "FLOAT", **kind
) -> Path:
    """Write `samples`, [S] or [S, channels]. The format follows from the name, unless `format` is given."""
    path = Path(os.fsdecode(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(os.fsencode(path), samples, rate, subtype=subtype, **kind)
    return path


def let_blocks_be_small(monkeypatch, frames: int) -> None:
    """Let every reader yield blocks of at most `frames` frames."""
    open_sound = decode.open_sound

    def opened(source):
        sound = open_sound(source)
        blocks = sound.blocks

        def small() -> Iterator[Pcm]:
            for samples, rate in blocks():
                for start in range(0, len(samples), frames):
                    yield Pcm(samples[start : start + frames], rate)

        sound.blocks = small
        return sound

    monkeypatch.setattr(decode, "open_sound", opened)


def write_dataset(root: Path, n_files: int = 5, chunks: int = 2) -> list[Path]:
    """Write files of noise and a tone in nested folders, each `chunks` chunks long minus a few samples.

    The bytes are the same each time; float WAV files would contain the time of writing.
    """
    paths = []
    for number in range(n_files):
        samples = (
            noise(number, chunks * CHUNK - 100 * number) + sine(300 + 170 * number, chunks / 2)[: -100 * number or None]
        )
        paths.append(write(root / ("" if number % 2 else "deep/er") / f"sound-{number}.wav", samples, subtype="PCM_24"))
    return paths


def training(**changes) -> TrainingConfig:
    """Return a configuration whose rows [2, 32, 32] take a millisecond."""
    values = {"complex_spectrogram": ComplexSpectrogramConfig(**FEATURE), "augmentation": AugmentationConfig()}
    values |= {"augmentation_expansion": 0, "chunk_samples": CHUNK, "device": "cpu"}
    return TrainingConfig(**(values | changes))


def age(root: Path) -> None:
    """Wait until all stamps under `root` are old enough for the index to trust them."""
    stamps = [max(s.st_mtime, s.st_ctime) for s in (path.lstat() for path in root.rglob("*"))]
    time.sleep(max(0.0, max(stamps) + 2.05 - time.time()))


def chunks_by_hand(path: Path) -> np.ndarray:
    """Return the chunks [n, CHUNK], float32, of a mono file at RATE, normalised per file."""
    samples, _ = soundfile.read(path, dtype="float32")
    samples = samples * np.float32(1 / np.abs(samples).max())
    return np.pad(samples, (0, -len(samples) % CHUNK)).reshape(-1, CHUNK)


def slot_of(folder: Path) -> Path:
    """Return the only slot of a cache, which is given itself or as that of a dataset."""
    caches = [cache for cache in (folder, folder / ".cache") if (cache / "slots").is_dir()]
    (slot,) = (caches[0] / "slots").iterdir()
    return slot


def rows_by_content(cache_dir: Path) -> dict[str, np.ndarray]:
    """Return the rows [k, 2, M, T] of each content hash."""
    reader = CacheReader(cache_dir)
    rows = reader.read(np.arange(len(reader)))
    return {content.hex(): rows[reader.source == index] for index, content in enumerate(reader.content_hashes)}


def rows_by_path(cache_dir: Path) -> dict[str, np.ndarray]:
    """Return the rows [k, 2, M, T] of each file that has rows."""
    rows = rows_by_content(cache_dir)
    return {
        file["path"]: rows[file["content_hash"]] for file in load_cache_manifest(cache_dir)["files"] if file["rows"]
    }


def one_object(code, out, err) -> dict:
    """Return the JSON object that is the only line on standard output."""
    assert code == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def reseal(manifest: Path, edit: Callable[[str], str]) -> None:
    """Edit the lines of a manifest and give it a valid checksum, as an attacker could."""
    lines = [edit(line) for line in manifest.read_text().split("\n")[:-2]]
    body = "\n".join([*lines, ""]).encode()
    manifest.write_bytes(body + b'"checksum":"%s"}\n' % blake3(body).hexdigest().encode())


def around_decoding(monkeypatch, context: Callable[[str], AbstractContextManager[object]]) -> None:
    """Decode each file within a context, which is made from the file's path."""
    decoded = Decoding.__iter__

    def within(decoding: Decoding) -> Iterator[Block]:
        with context(decoding.path):
            yield from decoded(decoding)

    monkeypatch.setattr(Decoding, "__iter__", within)


def forbid_decoding(monkeypatch) -> None:
    """Let the test fail if a file is decoded."""
    around_decoding(monkeypatch, lambda path: pytest.fail(f"{path} is decoded"))
