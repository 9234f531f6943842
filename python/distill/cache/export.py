"""Rows of a cache, normalised, as files that other tools read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.numpy import save_file

from distill.cache.manifest import load_cache_manifest, normalization_arrays
from distill.cache.pack import MAX_PACK_BYTES
from distill.cache.reader import CacheReader
from distill.errors import StorageError
from distill.files import write_atomically

Format = Literal["pt", "npy", "safetensors"]

_PIECE_ROWS = 64


def export(
    cache_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    format: Format = "pt",
    progress: Callable[[str, int, int], object] | None = None,
) -> int:
    """Write every row of a cache, normalised by the cache's statistics, and a manifest.json that says what it is.

    Rows are in the order of ``CachedSpectrogramDataset(cache_dir)``. The manifest holds the list of files with their
    mtimes, the configuration, ``normalization_stats``, and under ``rows`` where each row comes from.

    Parameters
    ----------
    cache_dir : path
        The folder that preprocessing returned.
    output_dir : path
        Where to: new, or empty.
    format : {"pt", "npy", "safetensors"}
        "pt": a tensor [2, n_mels, T] a file, ``000000.pt`` and so on. "npy": one array ``features.npy``
        [N, 2, n_mels, T]. "safetensors": ``features`` [n, 2, n_mels, T] in ``000000.safetensors`` and so on, each of
        at most 128 MB. Default: "pt".
    progress : callable, optional
        Called with ("export", rows written, rows).

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    CacheError
        If there is no valid cache, or a row is damaged.
    StorageError
        If `output_dir` is not empty, or cannot be written.
    """
    output = Path(output_dir)
    reader = CacheReader(cache_dir)
    pieces = _pieces(reader, progress or (lambda stage, current, total: None))
    try:
        output.mkdir(parents=True, exist_ok=True)
        if any(output.iterdir()):
            raise StorageError(f"{output}: not empty", "choose a new folder")
        _WRITERS[format](reader, output, pieces)
        write_atomically(output / "manifest.json", json.dumps(_manifest(reader, format), indent=1).encode())
    except OSError as error:
        raise StorageError(
            f"{output}: cannot be written: {error.strerror or error}", "choose another folder"
        ) from error
    return len(reader)


def _pieces(reader: CacheReader, progress: Callable[[str, int, int], object]) -> Iterator[tuple[int, np.ndarray]]:
    """The first row's number, and normalised rows [k, 2, n_mels, T]."""
    mean, scale = normalization_arrays(reader.header["normalization_stats"])
    for first in range(0, len(reader), _PIECE_ROWS):
        rows = reader.read(np.arange(first, min(first + _PIECE_ROWS, len(reader))), mean, scale)
        yield first, rows
        progress("export", first + len(rows), len(reader))


def _write_pt(reader: CacheReader, output: Path, pieces: Iterator[tuple[int, np.ndarray]]) -> None:
    for first, rows in pieces:
        for number, row in enumerate(rows, first):
            # A copy, because a view would be saved with all that it is a view of.
            torch.save(torch.from_numpy(row.copy()), output / f"{number:06d}.pt")


def _write_npy(reader: CacheReader, output: Path, pieces: Iterator[tuple[int, np.ndarray]]) -> None:
    shape = (len(reader), *reader.row_shape)
    array = np.lib.format.open_memmap(output / "features.npy", "w+", np.float32, shape)
    for first, rows in pieces:
        array[first : first + len(rows)] = rows
    array.flush()


def _write_safetensors(reader: CacheReader, output: Path, pieces: Iterator[tuple[int, np.ndarray]]) -> None:
    held: list[np.ndarray] = []
    files = 0
    for _, rows in pieces:
        if held and sum(piece.nbytes for piece in held) + rows.nbytes > MAX_PACK_BYTES:
            save_file({"features": np.concatenate(held)}, output / f"{files:06d}.safetensors")
            held, files = [], files + 1
        held.append(rows)
    if held:
        save_file({"features": np.concatenate(held)}, output / f"{files:06d}.safetensors")


_WRITERS = {"pt": _write_pt, "npy": _write_npy, "safetensors": _write_safetensors}


def _manifest(reader: CacheReader, format: Format) -> dict[str, Any]:
    manifest = load_cache_manifest(reader.cache_dir)
    assert manifest is not None
    paths = {entry["content_hash"]: entry["path"] for entry in reversed(manifest["files"]) if entry["rows"]}
    sources = [paths.get(content.hex()) for content in reader.content_hashes]
    origins = zip(reader.source.tolist(), reader.chunk.tolist(), reader.variant.tolist(), strict=True)
    del manifest["packs"]
    return {
        **manifest,
        "format": format,
        "rows": [{"path": sources[source], "chunk": chunk, "variant": variant} for source, chunk, variant in origins],
    }
