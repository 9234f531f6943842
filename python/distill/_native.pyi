"""Types of the extension module: the index, the manifest, checksums and features.

Paths that are given may be ``str``, ``bytes`` or ``os.PathLike``. Paths that are
returned as ``str`` are relative to the dataset root and decoded as by
``os.fsdecode``, so that ``os.fsencode`` gives their bytes back.
"""

import os
from collections.abc import Callable, Sequence
from typing import Literal, TypedDict, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

StrOrBytesPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

class Counts(TypedDict):
    """How many files fared how; a renamed file is neither added nor removed."""

    unchanged: int
    added: int
    changed: int
    renamed: int
    removed: int
    skipped: int

class Pack(TypedDict):
    """A pack, as `Manifest.add_pack` was told of it."""

    name: str
    rows: int
    bytes: int
    mtime_ns: int
    ctime_ns: int
    checksum: str
    backend: str

class File(TypedDict):
    """A file for display: ``skipped`` is its own reason or its content's."""

    path: str
    size: int
    mtime_ns: int
    content_hash: str | None
    rows: int
    skipped: str | None

class ManifestError(ValueError):
    """The manifest is damaged, of another version, or breaks its own rules.

    Its features must be computed again, never served.
    """

@final
class Totals:
    """Sums over the live contents: those that a file has, each counted once."""

    @property
    def files(self) -> int:
        """Files in the table."""
    @property
    def contents(self) -> int:
        """Live contents that are not skipped."""
    @property
    def skipped(self) -> int:
        """Live contents that are skipped."""
    @property
    def rows(self) -> int:
        """Rows of the live contents."""
    @property
    def silent(self) -> int:
        """Silent chunks of the live contents."""
    @property
    def sums(self) -> list[float]:
        """Five sums, added in the order of the hashes.

        They do not depend on what the files are called.
        """
    @property
    def dead_rows(self) -> int:
        """Rows of the packs that belong to no live content."""
    @property
    def pack_bytes(self) -> int:
        """Size of all packs in bytes."""

@final
class Scan:
    """The difference between a manifest and a folder. Lists are in path order."""

    @property
    def counts(self) -> Counts:
        """How many files fared how."""
    @property
    def unchanged(self) -> int:
        """Known files with the content they had."""
    @property
    def refreshed(self) -> int:
        """Those among the unchanged whose recorded stamps are others now."""
    @property
    def n_files(self) -> int:
        """Files that stand there, usable or not."""
    @property
    def total_bytes(self) -> int:
        """Their size in bytes."""
    @property
    def added(self) -> list[str]:
        """New files that are not skipped by themselves."""
    @property
    def changed(self) -> list[str]:
        """Known files with other content, or newly skipped."""
    @property
    def renamed(self) -> list[tuple[str, str]]:
        """Old and new path of new files with the content of one that is gone."""
    @property
    def removed(self) -> list[str]:
        """Known files that are gone."""
    @property
    def todo(self) -> list[tuple[bytes, bytes, int]]:
        """Path, hash and size of each content the manifest lacks, once each."""
    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Path and reason of files skipped by themselves or for their content."""
    @property
    def faults(self) -> list[tuple[str, str]]:
        """Path and reason of what could not be looked at, folders above all.

        Known files at and under such a path are kept as they were.
        """

@final
class Manifest:
    """What is in the cache, and which files it came from. Empty at first."""

    header: str
    """The caller's own JSON object, as text; ``"{}"`` at first.

    Setting anything else than a JSON object raises ``ValueError``. Newlines
    become spaces.
    """

    def __init__(self) -> None: ...
    @staticmethod
    def load(path: StrOrBytesPath) -> Manifest:
        """Read and check a manifest file.

        Raises
        ------
        FileNotFoundError
            There is none. Other ``OSError`` likewise.
        ManifestError
            It cannot be trusted; the message is the reason.
        """
    def save(self, path: StrOrBytesPath) -> None:
        """Replace the manifest file, durably and at once: the only commit.

        Files whose content is not recorded yet are left out, so that each
        commit is complete in itself. A writer that is killed may leave
        ``.NAME.PID-N.tmp`` beside the file; whoever holds the writers' lock may
        remove it.

        Raises
        ------
        OSError
            The old file is then still in place.
        ManifestError
            Two contents claim the same row, or totals exceed 63 bits.
        """
    def scan(
        self,
        root: StrOrBytesPath,
        *,
        extensions: Sequence[str],
        exclude: Sequence[StrOrBytesPath] = (),
        files: Sequence[bytes] | None = None,
        follow_links: bool = False,
        trust: Literal["stat", "content"] = "stat",
        max_bytes: int = ...,
        workers: int = 1,
        hash_added: bool = True,
        progress: Callable[[str, int, int], object] | None = None,
    ) -> Scan:
        """Compare the folder ``root`` with this manifest, and change nothing.

        Opens only files that are new or whose stamps changed or were too young.

        Parameters
        ----------
        extensions
            Of audio files: lower case, without the dot.
        exclude
            Folders to leave out. Hidden files and folders always are.
        files
            Look at these paths, relative to ``root``, instead of walking.
        follow_links
            Follow every symbolic link. Otherwise links to files inside ``root``
            are followed, and no others.
        trust
            ``"content"`` reads and hashes every file.
        max_bytes
            Larger files are skipped unread. Default 64 GiB.
        workers
            At most this many threads walk, and hash.
        hash_added
            Without, new files are listed as added but not hashed: renames are
            not seen, ``todo`` lacks them, and `apply` leaves them out.
        progress
            Called with ``("scan", files, 0)`` and ``("hash", bytes, total)``, at
            most every 50 ms and once at the end. What it raises ends the scan.

        Raises
        ------
        FileNotFoundError, NotADirectoryError, PermissionError
            ``root`` itself cannot be read.
        ValueError
            A path in ``files`` is absolute or leaves ``root``, or an option is
            unknown.
        KeyboardInterrupt
            Within 200 ms of Ctrl-C.
        """
    def apply(self, scan: Scan) -> bool:
        """Adopt the files of ``scan``; whether the table is another one now."""
    def add_pack(
        self, name: str, rows: int, size: int, checksum: str, backend: str, mtime_ns: int, ctime_ns: int
    ) -> int:
        """List a pack, and return its index.

        Parameters
        ----------
        size
            Of the file, in bytes.
        mtime_ns, ctime_ns
            The file's stamps, in nanoseconds.

        Raises
        ------
        ValueError
            The name is no plain file name or is listed, or ``checksum`` is not
            64 lower-case hexadecimal digits.
        """
    def set_pack_stamps(self, name: str, mtime_ns: int, ctime_ns: int) -> bool:
        """Record the stamps that a pack had when it was last found whole.

        Whether there is such a pack.
        """
    def set_content(
        self,
        content_hash: bytes,
        segments: Sequence[tuple[int, int, int]],
        silent: int,
        sums: Sequence[float],
        skipped: str | None = None,
    ) -> None:
        """Record what was computed from a content, or why nothing could be.

        Parameters
        ----------
        content_hash
            BLAKE3 of the content, 32 bytes.
        segments
            ``(pack index, first row, rows)`` each, in the order of the rows.
        silent
            Chunks that gave no row for their silence.
        sums
            Count, then sum and sum of squares of each of two channels. Finite.
        skipped
            The reason, if these bytes cannot be used; there are no rows then.

        Raises
        ------
        ValueError
            A segment is not inside its pack, or another rule is broken.
        """
    def has_content(self, content_hash: bytes) -> bool:
        """Whether anything, be it a reason, is recorded of a content."""
    def clear_contents(self) -> None:
        """Forget all contents and packs; files keep their stamps and hashes."""
    def drop_dead(self) -> None:
        """Forget contents that no file has, and packs left without rows.

        Pack indices change.
        """
    def drop_rows(self, pack_name: str, rows: Sequence[int]) -> int:
        """Forget each content that has one of these rows of a pack.

        Returns how many were forgotten. Pack indices change.
        """
    def move_content(self, content_hash: bytes, segments: Sequence[tuple[int, int, int]]) -> None:
        """Say that a content's rows are elsewhere now; all else stays.

        Raises
        ------
        ValueError
            There is no such content, it has another number of rows, or a
            segment is not inside its pack.
        """
    def drop_pack(self, name: str) -> bool:
        """Forget a damaged pack and the contents that have rows in it.

        Whether there was such a pack. Pack indices change.
        """
    def totals(self) -> Totals:
        """Sums over what is live."""
    def live(self) -> tuple[bytes, bytes, bytes]:
        """Where the rows of the live contents are, ordered by hash.

        Returns
        -------
        hashes
            32 bytes for each of C contents with rows.
        segments
            Little-endian int64 ``(content, pack, first row, rows)`` each.
        silent
            Little-endian int64 for each content.
        """
    def pack_names(self) -> list[str]:
        """Names of the packs by index."""
    def packs(self) -> list[Pack]:
        """The packs by index."""
    def files(self) -> list[File]:
        """Every file, for display."""

    def skipped(self) -> list[tuple[str, str]]:
        """Path and reason of every file that is skipped, by itself or for its content."""

def hash_file(path: StrOrBytesPath, progress: Callable[[str, int, int], object] | None = None) -> bytes:
    """BLAKE3 of the bytes that a file has now, 32 bytes.

    Parameters
    ----------
    progress
        Called with ``("hash", bytes, total)``, at most every 50 ms and once at
        the end. What it raises ends the reading.

    Raises
    ------
    OSError
        It cannot be read.
    KeyboardInterrupt
        Within 200 ms of Ctrl-C.
    """

def hash_bytes(data: Buffer) -> bytes:
    """BLAKE3 of a contiguous buffer, 32 bytes."""

def row_checksums(data: Buffer, row_bytes: int) -> bytes:
    """First 8 bytes of the BLAKE3 of each row of a contiguous buffer.

    Raises
    ------
    ValueError
        The length of ``data`` is no multiple of ``row_bytes``.
    """

@final
class MelKernel:
    """Both mel channels of waveforms on the CPU; for one shape of the feature, and any thread.

    Parameters
    ----------
    n_fft : int
        Samples of a frame, even and at least 4.
    hop_length : int
        Samples between frames.
    first, width, filterbank, centre, half_support : ndarray
        As the fields of `distill.features.mel.MelBands`.
    if_masking_threshold : float or None
        Band power at or below which channel 1 is 0; None for channel 0 alone.

    Raises
    ------
    ValueError
        If they do not go together; the message names what.
    """

    def __new__(
        cls,
        *,
        n_fft: int,
        hop_length: int,
        first: npt.NDArray[np.int64],
        width: npt.NDArray[np.int64],
        filterbank: npt.NDArray[np.float64],
        centre: npt.NDArray[np.float64],
        half_support: npt.NDArray[np.float64],
        if_masking_threshold: float | None,
    ) -> MelKernel: ...
    def compute(self, waveform: npt.NDArray[np.float32], out: npt.NDArray[np.float32], threads: int) -> None:
        """Compute the features of waveforms, without the GIL.

        Parameters
        ----------
        waveform : ndarray of shape [B, S], float32
            Contiguous; S above n_fft / 2.
        out : ndarray of shape [B, 1 or 2, M, T], float32
            Where they go; contiguous.
        threads : int
            Threads at the most, which share out waveforms; the calling one is among them. The result is the same,
            bit for bit, whatever it is.

        Raises
        ------
        ValueError
            If shapes do not fit.
        """
