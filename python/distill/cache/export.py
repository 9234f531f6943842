"""Export of a cache's rows, normalised, to files that other tools read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from distill.cache.manifest import describe
from distill.cache.pack import MAX_PACK_BYTES
from distill.cache.places import Origins, Provenance
from distill.cache.reader import CacheReader
from distill.errors import ConfigError, StorageError
from distill.faults import choice_fault
from distill.features.normalization import normalization_arrays
from distill.index import path_bytes
from distill.storage import storage_error, write_atomically
from distill.types import ExportFormat, PathLike, ProgressCallback, no_progress

Pieces = Iterator[tuple[int, np.ndarray]]
"""The index of the first row, and some normalised rows [k, 2, M, T]."""
Files = Iterator[tuple[str, Iterable[bytes | memoryview]]]
"""Names of files, and the bytes of each in parts."""

_PIECE_ROWS = 64
_TAR_BLOCK = tarfile.BLOCKSIZE


def export(
    cache_dir: PathLike,
    output_dir: PathLike,
    format: ExportFormat = "pt",
    progress: ProgressCallback | None = None,
) -> int:
    """Write every row of a cache, normalised by the cache's statistics, and a manifest.json that describes them.

    Rows are in the order of ``CachedSpectrogramDataset(cache_dir)``. The manifest holds the list of files with their
    modification times, the configuration, ``normalization_stats``, and under ``rows`` where each row comes from:
    ``paths``, ``start_s``, ``duration_s``, ``chunk`` and ``variant``, as `CachedSpectrogramDataset.provenance` gives
    them, and ``path``, the first of the paths. An export that fails removes what it has written.

    Parameters
    ----------
    cache_dir : path
        The folder that preprocessing returned.
    output_dir : path
        The output folder: new, or empty.
    format : {"pt", "npy", "safetensors", "webdataset", "parquet"}
        "pt": one tensor [2, M, T] per file, ``000000.pt`` and so on. "npy": one array ``features.npy``
        [N, 2, M, T]. "safetensors": ``features`` [n, 2, M, T] in ``000000.safetensors`` and so on, with
        ``normalization_stats`` in the metadata. "webdataset": ``000000.tar`` and so on, with ``KEY.npy`` and
        ``KEY.json``, where it comes from, for each row. "parquet": ``000000.parquet`` and so on, with a column
        ``features``, lists of shape [2, M, T] that HF datasets reads as arrays, and one for each field of where it
        comes from; needs pyarrow.
        Files that hold several rows have at most 128 MB. Default: "pt".
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
    ConfigError
        If `format` is none of these, or "parquet" and pyarrow is not installed.
    """
    if fault := choice_fault("format", format, list(_FILES)):
        raise ConfigError([fault])
    output = Path(output_dir)
    if format == "parquet":
        _require_pyarrow()
    reader = CacheReader(cache_dir)
    pieces, origins = _pieces(reader, progress or no_progress), Origins(reader)
    with ExitStack() as undo:
        _make_folder(output, undo)
        for name, parts in _FILES[format](reader, pieces, origins):
            _write(output / name, parts, undo)
        path = output / "manifest.json"
        with _errors_of_writing(path):
            write_atomically(path, json.dumps(_manifest(reader, format, origins), indent=1).encode())
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


def _pt_files(reader: CacheReader, pieces: Pieces, origins: Origins) -> Files:
    import torch  # noqa: PLC0415 - only this format needs it

    for first, rows in pieces:
        for number, row in enumerate(rows, first):
            # Into memory, because torch raises RuntimeError for a full disk. A copy, because saving a view saves all
            # of its storage.
            buffer = io.BytesIO()
            torch.save(torch.from_numpy(row.copy()), buffer)
            yield f"{number:06d}.pt", [buffer.getbuffer()]


def _npy_files(reader: CacheReader, pieces: Pieces, origins: Origins) -> Files:
    shape = (len(reader), *reader.row_shape)
    head = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)

    def parts() -> Iterator[bytes | memoryview]:
        yield head.getvalue()
        for _, rows in pieces:
            yield rows.data

    yield "features.npy", parts()


def _shards(pieces: Pieces) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield the number of a file, the index of its first row, and its rows: at most 128 MB, or one piece."""
    held: list[np.ndarray] = []
    number = first = 0
    for index, rows in pieces:
        if held and sum(piece.nbytes for piece in held) + rows.nbytes > MAX_PACK_BYTES:
            yield number, first, np.concatenate(held)
            held, number, first = [], number + 1, index
        held.append(rows)
    if held:
        yield number, first, np.concatenate(held)


def _safetensors_files(reader: CacheReader, pieces: Pieces, origins: Origins) -> Files:
    metadata = {"normalization_stats": json.dumps(reader.header["normalization_stats"])}
    for number, _, rows in _shards(pieces):
        yield f"{number:06d}.safetensors", [save({"features": rows}, metadata)]


def _webdataset_files(reader: CacheReader, pieces: Pieces, origins: Origins) -> Files:
    def parts(first: int, rows: np.ndarray) -> Iterator[bytes | memoryview]:
        for index, row in enumerate(rows, first):
            array = io.BytesIO()
            np.save(array, row)
            yield from _tar_member(f"{index:09d}.npy", array.getvalue())
            yield from _tar_member(f"{index:09d}.json", json.dumps(_origin(origins.of(index))).encode())
        yield bytes(2 * _TAR_BLOCK)

    for number, first, rows in _shards(pieces):
        yield f"{number:06d}.tar", parts(first, rows)


def _tar_member(name: str, content: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    yield info.tobuf(tarfile.USTAR_FORMAT)
    yield content
    yield bytes(-len(content) % _TAR_BLOCK)


def _require_pyarrow() -> None:
    try:
        import pyarrow.parquet  # noqa: F401, PLC0415 - only this format needs it
    except ImportError as error:
        raise ConfigError(
            [f"parquet files are written with pyarrow, which cannot be imported: {error}"],
            "install it: pip install 'distill[parquet]'",
        ) from error


def _parquet_files(reader: CacheReader, pieces: Pieces, origins: Origins) -> Files:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    stats = json.dumps(reader.header["normalization_stats"])
    metadata = {"normalization_stats": stats, "huggingface": _huggingface_features(reader.row_shape)}
    columns = {
        "path": pa.string(),
        "paths": pa.list_(pa.string()),
        "start_s": pa.float64(),
        "duration_s": pa.float64(),
        "chunk": pa.int64(),
        "variant": pa.int64(),
    }
    for number, first, rows in _shards(pieces):
        features = pa.array(rows.ravel())
        for size in rows.shape[:0:-1]:
            offsets = np.arange(0, len(features) + 1, size, dtype=np.int32)
            features = pa.ListArray.from_arrays(pa.array(offsets), features)
        found = [_in_utf8(_origin(origins.of(index))) for index in range(first, first + len(rows))]
        others = [pa.array([origin[name] for origin in found], kind) for name, kind in columns.items()]
        table = pa.table([features, *others], names=["features", *columns], metadata=metadata)
        file = io.BytesIO()
        # Features are as good as random to a compressor.
        parquet.write_table(table, file, row_group_size=_PIECE_ROWS, compression="none", use_dictionary=False)
        yield f"{number:06d}.parquet", [file.getbuffer()]


def _in_utf8(origin: dict[str, Any]) -> dict[str, Any]:
    """Return an origin with what is not UTF-8 in its paths replaced: a string of Arrow can hold nothing else."""
    paths = [path_bytes(path).decode("utf-8", "replace") for path in origin["paths"]]
    return {**origin, "path": paths[0], "paths": paths}


def _huggingface_features(shape: tuple[int, ...]) -> str:
    """Return the types of the columns as HF datasets notes them, which makes it read rows as arrays."""

    def value(dtype: str) -> dict[str, str]:
        return {"dtype": dtype, "_type": "Value"}

    features = {
        "features": {"shape": shape, "dtype": "float32", "_type": "Array3D"},
        "path": value("string"),
        "paths": {"feature": value("string"), "_type": "Sequence"},
        **{name: value("float64") for name in ("start_s", "duration_s")},
        **{name: value("int64") for name in ("chunk", "variant")},
    }
    return json.dumps({"info": {"features": features}})


_FILES: dict[ExportFormat, Callable[[CacheReader, Pieces, Origins], Files]] = {
    "pt": _pt_files,
    "npy": _npy_files,
    "safetensors": _safetensors_files,
    "webdataset": _webdataset_files,
    "parquet": _parquet_files,
}


def _manifest(reader: CacheReader, format: ExportFormat, origins: Origins) -> dict[str, Any]:
    # The reader's manifest, not the one on disk, which another process may have replaced since.
    manifest = describe(reader.manifest)
    del manifest["packs"]
    return {**manifest, "format": format, "rows": [_origin(origins.of(row)) for row in range(len(reader))]}


def _origin(place: Provenance) -> dict[str, Any]:
    return {"path": place.paths[0], **place._asdict()}
