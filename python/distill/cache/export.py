"""Export of a cache's rows, normalised, to files that other tools read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.numpy import save

from distill.cache.manifest import describe
from distill.cache.pack import MAX_PACK_BYTES
from distill.cache.reader import CacheReader
from distill.errors import StorageError
from distill.features.normalization import normalization_arrays
from distill.storage import storage_error, write_atomically
from distill.types import PathLike, ProgressCallback, no_progress

Format = Literal["pt", "npy", "safetensors"]

Pieces = Iterator[tuple[int, np.ndarray]]
"""The index of the first row, and some normalised rows [k, 2, M, T]."""
Files = Iterator[tuple[str, Iterable[bytes | memoryview]]]
"""Names of files, and the bytes of each in parts."""

_PIECE_ROWS = 64


def export(
    cache_dir: PathLike,
    output_dir: PathLike,
    format: Format = "pt",
    progress: ProgressCallback | None = None,
) -> int:
    """Write every row of a cache, normalised by the cache's statistics, and a manifest.json that describes them.

    Rows are in the order of ``CachedSpectrogramDataset(cache_dir)``. The manifest holds the list of files with their
    modification times, the configuration, ``normalization_stats``, and under ``rows`` the source of each row. An export
    that fails removes what it has written.

    Parameters
    ----------
    cache_dir : path
        The folder that preprocessing returned.
    output_dir : path
        The output folder: new, or empty.
    format : {"pt", "npy", "safetensors"}
        "pt": one tensor [2, M, T] per file, ``000000.pt`` and so on. "npy": one array ``features.npy``
        [N, 2, M, T]. "safetensors": ``features`` [n, 2, M, T] in ``000000.safetensors`` and so on, each of at most
        128 MB. Default: "pt".
    progress : callable, optional
        Called with ("export", rows written, rows in total).

    Returns
    -------
    int
        Number of rows written.

    Raises
    ------
    CacheError
        If there is no valid cache, or a row is damaged.
    StorageError
        If `output_dir` is not empty, or cannot be written.
    """
    output = Path(output_dir)
    reader = CacheReader(cache_dir)
    pieces = _pieces(reader, progress or no_progress)
    with ExitStack() as undo:
        _make_folder(output, undo)
        for name, parts in _FILES[format](reader, pieces):
            _write(output / name, parts, undo)
        path = output / "manifest.json"
        with _errors_of_writing(path):
            write_atomically(path, json.dumps(_manifest(reader, format), indent=1).encode())
        undo.pop_all()
    return len(reader)


def _make_folder(output: Path, undo: ExitStack) -> None:
    """Make the output folder and its parents, and check that it is empty; `undo` removes those that were made."""
    with _errors_of_writing(output):
        for folder in reversed([output, *output.parents]):
            if not folder.exists():
                folder.mkdir()
                undo.callback(_remove, folder.rmdir)
        if any(output.iterdir()):
            raise StorageError(f"{output}: not empty", "choose a new folder")


def _write(path: Path, parts: Iterable[bytes | memoryview], undo: ExitStack) -> None:
    """Write a new file; `undo` removes it."""
    # Not memory-mapped: on a full disk, touching a mapped page kills the process.
    with _errors_of_writing(path), path.open("xb") as file:
        undo.callback(_remove, path.unlink)
        for part in parts:
            file.write(part)


def _remove(remove: Callable[[], None]) -> None:
    # An error is already on its way out, and says more than one from here would.
    with suppress(OSError):
        remove()


@contextmanager
def _errors_of_writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        tip, note = "choose another folder", "what was written is removed"
        raise storage_error(path, error, tip, note_if_full=note) from error


def _pieces(reader: CacheReader, progress: ProgressCallback) -> Pieces:
    mean, scale = normalization_arrays(reader.header["normalization_stats"])
    for first in range(0, len(reader), _PIECE_ROWS):
        rows = reader.read(np.arange(first, min(first + _PIECE_ROWS, len(reader))), mean, scale)
        yield first, rows
        progress("export", first + len(rows), len(reader))


def _pt_files(reader: CacheReader, pieces: Pieces) -> Files:
    for first, rows in pieces:
        for number, row in enumerate(rows, first):
            # Into memory, because torch raises RuntimeError for a full disk. A copy, because saving a view saves all
            # of its storage.
            buffer = io.BytesIO()
            torch.save(torch.from_numpy(row.copy()), buffer)
            yield f"{number:06d}.pt", [buffer.getbuffer()]


def _npy_files(reader: CacheReader, pieces: Pieces) -> Files:
    shape = (len(reader), *reader.row_shape)
    head = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)

    def parts() -> Iterator[bytes | memoryview]:
        yield head.getvalue()
        for _, rows in pieces:
            yield rows.data

    yield "features.npy", parts()


def _safetensors_files(reader: CacheReader, pieces: Pieces) -> Files:
    held: list[np.ndarray] = []
    files = 0
    for _, rows in pieces:
        if held and sum(piece.nbytes for piece in held) + rows.nbytes > MAX_PACK_BYTES:
            yield f"{files:06d}.safetensors", [save({"features": np.concatenate(held)})]
            held, files = [], files + 1
        held.append(rows)
    if held:
        yield f"{files:06d}.safetensors", [save({"features": np.concatenate(held)})]


_FILES: dict[Format, Callable[[CacheReader, Pieces], Files]] = {
    "pt": _pt_files,
    "npy": _npy_files,
    "safetensors": _safetensors_files,
}


def _manifest(reader: CacheReader, format: Format) -> dict[str, Any]:
    # The reader's manifest, not the one on disk, which another process may have replaced since.
    manifest = describe(reader.manifest)
    paths = {entry["content_hash"]: entry["path"] for entry in reversed(manifest["files"]) if entry["rows"]}
    sources = [paths.get(content.hex()) for content in reader.content_hashes]
    origins = zip(reader.source.tolist(), reader.chunk.tolist(), reader.variant.tolist(), strict=True)
    del manifest["packs"]
    return {
        **manifest,
        "format": format,
        "rows": [{"path": sources[source], "chunk": chunk, "variant": variant} for source, chunk, variant in origins],
    }
