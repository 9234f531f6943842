"""Waveforms, decoded once and kept in memory: the dataset of the v1.0 path."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset

from distill import _native
from distill.audio.chunking import Chunks
from distill.audio.decode import unreadable
from distill.config import Normalize, Partial
from distill.errors import AudioFileError
from distill.index import Dataset, Manifest
from distill.preprocess.result import log_left_out
from distill.training.split import VAL_FRACTION, SplitBy, check_split, held_out


class AudioTrainingDataset(TorchDataset[torch.Tensor]):
    """Chunks of audio as waveforms [1, S], decoded once and kept in memory (the v1.0 path).

    A pickle or a copy, such as that of a DataLoader's worker, holds no audio: it decodes a file again when one of its
    chunks is first used.

    Parameters
    ----------
    files : sequence of path
        Audio files. Those that cannot be used are listed in `skipped`.
    chunk_samples : int
        Length of a chunk in samples. Default: 48000.
    sample_rate : int
        Sample rate of the chunks in Hz. Default: 48000.
    normalize : {"file", "chunk", "none"}
        Whether each file or each chunk is scaled to a peak of 1, or neither. Default: "file".
    progress : callable, optional
        Called with (files decoded, files).
    partial : {"use", "skip"}
        What to do with files of which only a part can be decoded. Default: "use".

    Attributes
    ----------
    skipped : list of (path, reason)
        Files that could not be used.
    partial : list of (path, reason)
        Files of which only a part is used.
    channels : dict
        Number of decoded files by their number of channels.
    with_offset : list of str
        Files whose constant offset (DC) was removed.
    content_key : str
        Equal for equal contents of the files.
    val_limit : int or None
        The largest hash of a chunk that the last `split` held out.
    """

    val_limit: int | None = None

    def __init__(
        self,
        files: Sequence[str | os.PathLike[str]],
        chunk_samples: int = 48_000,
        sample_rate: int = 48_000,
        normalize: Normalize = "file",
        progress: Callable[[int, int], object] | None = None,
        *,
        partial: Partial = "use",
    ) -> None:
        self.skipped: list[tuple[str, str]] = []
        self.partial: list[tuple[str, str]] = []
        self.channels: Counter[int] = Counter()
        self.with_offset: list[str] = []
        self._options: dict[str, Any] = {
            "sample_rate": sample_rate,
            "chunk_samples": chunk_samples,
            "normalize": normalize,
            "skips_partial": partial == "skip",
        }
        # Paths and chunks of each content. A path is absolute, because a copy may be used in another directory.
        found: dict[bytes, tuple[str, list[np.ndarray]]] = {}
        for number, path in enumerate(files):
            report = functools.partial(progress or _no_progress, number, len(files))
            report()
            try:
                content_hash, decoded, chunks = self._decode(path, report)
                self.channels[decoded.channels] += 1
                if chunks:
                    found[content_hash] = os.path.abspath(path), chunks
                    self.with_offset += [os.fspath(path)] if decoded.levels.offset else []
                    self.partial += [(os.fspath(path), decoded.partial)] if decoded.partial else []
                else:
                    self.skipped.append((os.fspath(path), decoded.silence))
            except AudioFileError as error:
                self.skipped.append((os.fspath(path), error.reason))
            except OSError as error:
                self.skipped.append((os.fspath(path), unreadable(path, error).reason))
        # In the order of the content hashes, as in the cache, so that file names and their order do not matter.
        self._hashes = sorted(found)
        self._paths = [found[key][0] for key in self._hashes]
        self._counts = [len(found[key][1]) for key in self._hashes]
        self._chunks = {number: found[key][1] for number, key in enumerate(self._hashes)}
        hashes = [key for key, count in zip(self._hashes, self._counts, strict=True) for _ in range(count)]
        self.content_key = _native.hash_bytes(b"".join(hashes)).hex()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_chunks": {}}

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """Number of chunks up to the end of each content, int64."""
        return np.cumsum(self._counts)

    def __len__(self) -> int:
        return sum(self._counts)

    def __getitem__(self, index: int) -> torch.Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(f"chunk {index} of {len(self)}")
        content, number = self._locate(index % len(self))
        if content not in self._chunks:
            self._chunks[content] = self._decode_again(content)
        return torch.from_numpy(self._chunks[content][number])[None]

    def place(self, index: int) -> tuple[str, int]:
        """Return the path of the file that a chunk comes from, and its number there, silent chunks not counted."""
        content, number = self._locate(index)
        return self._paths[content], number

    def _locate(self, index: int) -> tuple[int, int]:
        """Return which content a chunk is from, and its number there."""
        content = int(np.searchsorted(self._ends, index, side="right"))
        return content, index - int(self._ends[content]) + self._counts[content]

    def _decode(
        self, path: str | os.PathLike[str], report: Callable[[], object]
    ) -> tuple[bytes, Chunks, list[np.ndarray]]:
        """Return content hash and chunks of a file; `report` is called while it is read, and may end that."""
        content_hash = _native.hash_file(path, lambda *hashed: report())
        chunks = Chunks(path, on_block=report, **self._options)
        return content_hash, chunks, list(chunks)

    def _decode_again(self, content: int) -> list[np.ndarray]:
        """Return the chunks of a content that a copy does not hold.

        Raises
        ------
        AudioFileError
            If the file has changed or cannot be decoded any more.
        """
        path = self._paths[content]
        try:
            is_same = _native.hash_file(path) == self._hashes[content]
        except OSError as error:
            raise unreadable(path, error) from error
        if not is_same:
            raise AudioFileError(path, "the file has changed since it was decoded", "load the dataset again")
        return list(Chunks(path, **self._options))

    def split(
        self, val_fraction: float = VAL_FRACTION, split_by: SplitBy = "chunk", *, val_limit: int | None = None
    ) -> tuple[Subset[torch.Tensor], Subset[torch.Tensor]]:
        """Return the training and validation parts, split as by `CachedSpectrogramDataset`.

        A single chunk is in both.
        """
        check_split("all", val_fraction, split_by)
        hashes = np.frombuffer(b"".join(self._hashes), np.uint8).reshape(-1, 32).repeat(self._counts, axis=0)
        index = np.arange(len(self)) - np.repeat(self._ends - self._counts, self._counts)
        validation, self.val_limit = held_out(hashes, index, val_fraction, split_by, val_limit)
        train = np.flatnonzero(~validation).tolist()
        return Subset(self, train), Subset(self, np.flatnonzero(validation).tolist() or train)


def _no_progress(current: int, total: int) -> None:
    """Ignore progress."""


def list_files(dataset: Dataset) -> tuple[list[str], list[tuple[str, str]], dict[str, int]]:
    """Return the audio files of a dataset, those that cannot be read, each with the reason, and kinds that are not.

    Raises
    ------
    DatasetError
        If there are no audio files.
    """
    scan = dataset.scan(Manifest(), hash_added=False)
    dataset.require_audio(scan)
    log_left_out(scan)
    files = [os.path.join(dataset.folder, path) for path in scan.added]
    return files, [*scan.skipped, *scan.faults], scan.unread
