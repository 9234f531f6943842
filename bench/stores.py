"""Other ways to store rows and read them at random, each with its own package, as baselines of bench_cache.py."""

from __future__ import annotations

import importlib
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

Read = Callable[[list[int]], torch.Tensor]
"""Returns rows [k, 2, M, T], float32, by index."""


class Files:
    """A file for each row, read by torch.load."""

    name, package = "torch.load", "torch"

    def __init__(self, folder: Path, rows: np.ndarray) -> None:
        self.folder = folder
        for index, row in enumerate(rows):
            torch.save(torch.from_numpy(row.copy()), folder / f"{index:06d}.pt")

    @contextmanager
    def open(self) -> Iterator[Read]:
        yield lambda indices: torch.stack([torch.load(self.folder / f"{index:06d}.pt") for index in indices])


class Memmap:
    """One array in a file, mapped."""

    name, package = "memmap", "numpy"
    announces = False

    def __init__(self, folder: Path, rows: np.ndarray) -> None:
        self.path, self.shape = folder / "rows.f32", rows.shape
        rows.tofile(self.path)

    @contextmanager
    def open(self) -> Iterator[Read]:
        with self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self.announces:
            mapped.madvise(mmap.MADV_RANDOM)
        values = np.frombuffer(mapped, np.float32).reshape(self.shape)
        size, page = values[0].nbytes, mmap.PAGESIZE

        def read(indices: list[int]) -> torch.Tensor:
            for index in indices if self.announces else ():
                start = index * size // page * page
                mapped.madvise(mmap.MADV_WILLNEED, start, (index + 1) * size - start)
            return torch.from_numpy(values[indices])

        # The array refers to the map, which is closed when both are gone.
        yield read


class AnnouncedMemmap(Memmap):
    """One array in a file, mapped; the system is told what a batch needs before it is read."""

    name = "memmap with WILLNEED"
    announces = True


class Lmdb:
    """The bytes of each row under its index in LMDB."""

    name, package = "LMDB", "lmdb"

    def __init__(self, folder: Path, rows: np.ndarray) -> None:
        import lmdb

        self.folder, self.shape = folder, rows.shape[1:]
        with lmdb.open(str(folder), map_size=2 * rows.nbytes + (64 << 20)) as env, env.begin(write=True) as writing:
            for index, row in enumerate(rows):
                writing.put(index.to_bytes(8, "big"), row.tobytes())

    @contextmanager
    def open(self) -> Iterator[Read]:
        import lmdb

        with (
            lmdb.open(str(self.folder), readonly=True, lock=False, readahead=False) as env,
            env.begin(buffers=True) as reading,
        ):

            def read(indices: list[int]) -> torch.Tensor:
                found = [np.frombuffer(reading.get(index.to_bytes(8, "big")), np.float32) for index in indices]
                return torch.from_numpy(np.stack(found).reshape(-1, *self.shape))

            yield read


class Hdf5:
    """A dataset of HDF5, a chunk for each row."""

    name, package = "HDF5", "h5py"

    def __init__(self, folder: Path, rows: np.ndarray) -> None:
        import h5py

        self.path = folder / "rows.h5"
        with h5py.File(self.path, "w") as file:
            file.create_dataset("rows", data=rows, chunks=(1, *rows.shape[1:]))

    @contextmanager
    def open(self) -> Iterator[Read]:
        import h5py

        # Without the cache of chunks: no row is read twice.
        with h5py.File(self.path, "r", rdcc_nbytes=0) as file:
            rows = file["rows"]
            yield lambda indices: torch.from_numpy(np.stack([rows[index] for index in indices]))


class Mds:
    """Shards of MosaicML's streaming format."""

    name, package = "MDS", "streaming"

    def __init__(self, folder: Path, rows: np.ndarray) -> None:
        from streaming import MDSWriter, StreamingDataset

        kind = "ndarray:float32:" + ",".join(map(str, rows.shape[1:]))
        with MDSWriter(out=str(folder), columns={"row": kind}) as writer:
            for row in rows:
                writer.write({"row": row})
        self.rows = StreamingDataset(local=str(folder), batch_size=32, shuffle=False)

    @contextmanager
    def open(self) -> Iterator[Read]:
        yield lambda indices: torch.from_numpy(np.stack([self.rows[index]["row"] for index in indices]))


class LitData:
    """Chunks of litdata."""

    name, package = "litdata", "litdata"

    def __init__(self, folder: Path, rows: np.ndarray) -> None:
        from litdata import StreamingDataset
        from litdata.streaming.writer import BinaryWriter

        writer = BinaryWriter(str(folder), chunk_bytes="64MB")
        for index, row in enumerate(rows):
            writer[index] = torch.from_numpy(row.copy())
        writer.done()
        writer.merge()
        self.rows = StreamingDataset(str(folder))

    @contextmanager
    def open(self) -> Iterator[Read]:
        yield lambda indices: torch.stack([self.rows[index] for index in indices])


BASELINES: tuple[Any, ...] = (Memmap, AnnouncedMemmap, Lmdb, Hdf5, Mds, LitData, Files)


def write_baselines(root: Path, rows: np.ndarray) -> tuple[list[Any], dict[str, str]]:
    """Write rows with each package that is installed; return the stores, and why the others are left out."""
    stores, left_out = [], {}
    for kind in BASELINES:
        folder = root / kind.__name__
        folder.mkdir()
        try:
            importlib.import_module(kind.package)
        except ImportError as error:
            left_out[kind.name] = f"not measured: {error}"
        else:
            stores.append(kind(folder, rows))
    return stores, left_out


def write_out(root: Path) -> None:
    """Wait until all files below a folder are on the disk: only then can the system forget them."""
    for path in filter(Path.is_file, root.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def forget(root: Path) -> None:
    """Drop all files below a folder from the page cache, unless something maps them."""
    for path in filter(Path.is_file, root.rglob("*")):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def all_open(stores: list[Any]) -> Iterator[dict[str, Read]]:
    """Open all stores at once."""
    with ExitStack() as stack:
        yield {store.name: stack.enter_context(store.open()) for store in stores}
