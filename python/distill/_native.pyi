"""Types of the extension module: manifest, scan, checksums, mel features and their inverse.

Path arguments may be ``str``, ``bytes`` or ``os.PathLike``. Returned paths are
relative to the dataset's root and, if they are ``str``, decoded as by
``os.fsdecode``: ``os.fsencode`` converts them back to the original bytes.
"""

import os
from collections.abc import Callable, Sequence
from typing import ClassVar, Literal, TypedDict, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer, Self

from distill.types import Reason

__version__: str
"""That of distill, e.g. ``0.2.0``."""

_Matrix = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]
_StrOrBytesPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]

class _Counts(TypedDict):
    """Number of files by what happened to them. A renamed file counts neither as added nor as removed."""

    unchanged: int
    added: int
    changed: int
    renamed: int
    removed: int
    skipped: int

class _Pack(TypedDict):
    """A pack: the arguments of `Manifest.add_pack`."""

    name: str
    rows: int
    bytes: int
    mtime_ns: int
    ctime_ns: int
    checksum: str
    backend: str

class _File(TypedDict):
    """A file, for display.

    ``skipped`` is the reason why the file, or its content, is skipped; ``partial`` why only a part of it is used.
    """

    path: str
    size: int
    mtime_ns: int
    content_hash: str | None
    rows: int
    skipped: Reason | None
    partial: Reason | None

@final
class ByteSource:
    """The bytes of an open file, which are hashed while they are read from the front to the back.

    Raises OSError if the file cannot be opened or read, or is no regular file.
    """

    size: int
    """Size of the file when it was opened; later bytes are not read."""
    bytes_read: int
    """Bytes read from the system so far."""

    def __new__(cls, path: _StrOrBytesPath) -> Self: ...
    def read_at(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, or those up to the end of the file."""

    def read_samples(
        self,
        offset: int,
        length: int,
        form: Literal["signed", "unsigned", "float", "mulaw", "alaw"],
        width: int,
        big_endian: bool,
        full_scale: float,
    ) -> npt.NDArray[np.float32]:
        """Return uncompressed samples, [n], from `length` bytes at `offset`, or from those up to the end of the file.

        Full scale, of floats `full_scale`, becomes 1; floats beyond it stay as they are.
        """

    def close(self) -> None:
        """Close the file; nothing can be read any more."""

    def digest(self, on_block: Callable[[str, int, int], object] | None = None) -> bytes:
        """Return the BLAKE3 hash of the file; reads what has not been hashed yet.

        `on_block` is called every 50 ms meanwhile; an exception that it raises ends the reading.
        """

class DecodeError(Exception):
    """A file that cannot be decoded, or not any further.

    Its arguments are the reason and its code, or None if the file is of another kind.
    """

@final
class Decoder:
    """Decodes one file.

    Parameters
    ----------
    source : ByteSource
        Its bytes.
    kind : {"mpeg", "adts", "mp4", "flac", "ogg-flac", "caf"}
        Its kind; nothing is guessed.

    Raises
    ------
    DecodeError
        If it cannot be decoded.
    OSError
        If it cannot be read.
    """

    sample_rate: int
    """Sample rate of the first part, Hz."""
    channels: int
    """Number of channels of the first part."""
    frames: int | None
    """Number of frames as headers promise it."""

    def __new__(cls, source: ByteSource, kind: Literal["mpeg", "adts", "mp4", "flac", "ogg-flac", "caf"]) -> Self: ...
    def next_block(self) -> tuple[npt.NDArray[np.float32], int] | None:
        """Return the next frames, [n, channels], and their sample rate; None at the end. Without the GIL.

        Raises what the constructor does, after all good frames.
        """

class ManifestError(ValueError):
    """The manifest is damaged, or breaks a rule of the format. The features that it lists must not be used."""

class NewerFormatError(Exception):
    """The file is not damaged: a later version of this program wrote it, in a format that this one does not read."""

@final
class Totals:
    """Sums over the live contents, which are those that at least one selected file has.

    A content counts once, however many files have it.
    """

    @property
    def files(self) -> int:
        """Number of selected files."""
    @property
    def contents(self) -> int:
        """Number of live contents that are not skipped."""
    @property
    def skipped(self) -> int:
        """Number of live contents that are skipped."""
    @property
    def rows(self) -> int:
        """Number of rows of live contents."""
    @property
    def silent(self) -> int:
        """Number of silent chunks of live contents."""
    @property
    def sums(self) -> list[float]:
        """The five sums of `Manifest.set_content`, added in the order of the hashes.

        They do not depend on file names.
        """
    @property
    def dead_rows(self) -> int:
        """Number of rows in packs that belong to no file, selected or not."""
    @property
    def pack_bytes(self) -> int:
        """Size of all packs in bytes."""

@final
class Live:
    """Location of the rows of the live contents of a manifest. Immutable.

    Live contents are those that at least one selected file has. Of these C contents have
    rows, which lie in N segments: consecutive rows in one pack. Contents are
    sorted by hash, and segments are in the order of their contents. Two objects
    are equal if all of their fields are.
    """

    @property
    def content_hashes(self) -> list[bytes]:
        """BLAKE3 of each content, 32 bytes, ascending. The same list at each access."""
    @property
    def silent(self) -> npt.NDArray[np.int64]:
        """Number of silent chunks of each content, shape [C]. Read-only, as all arrays here."""
    @property
    def content(self) -> npt.NDArray[np.int64]:
        """Index in `content_hashes` of the content of each segment, shape [N], ascending."""
    @property
    def pack(self) -> npt.NDArray[np.int64]:
        """Index of the pack of each segment, as in `Manifest.packs`, shape [N]."""
    @property
    def first(self) -> npt.NDArray[np.int64]:
        """First row of each segment in its pack, shape [N]."""
    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Number of rows of each segment, at least 1, shape [N]."""
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]

@final
class Scan:
    """The difference between a manifest and a folder. Lists are sorted by path."""

    @property
    def counts(self) -> _Counts:
        """Number of files by what happened to them."""
    @property
    def unchanged(self) -> int:
        """Number of known files with the same content as before."""
    @property
    def refreshed(self) -> int:
        """Number of unchanged files whose recorded size, times or inode number changed."""
    @property
    def n_files(self) -> int:
        """Number of existing files, usable or not."""
    @property
    def total_bytes(self) -> int:
        """Total size of these files in bytes."""
    @property
    def added(self) -> list[str]:
        """New files that are not skipped themselves."""
    @property
    def changed(self) -> list[str]:
        """Known files with another content, or newly skipped."""
    @property
    def renamed(self) -> list[tuple[str, str]]:
        """Old and new path of each new file with the content of a removed one."""
    @property
    def removed(self) -> list[str]:
        """Known files that no longer exist."""
    @property
    def todo(self) -> list[tuple[bytes, bytes | None, int]]:
        """Path, hash and size in bytes of each content that is not in the manifest; the hash may be None."""
    @property
    def n_todo(self) -> int:
        """Length of `todo`."""
    def todo_at(self, index: int) -> tuple[bytes, bytes | None, tuple[int, int, int, int, bool]]:
        """Return path, hash and stamps of one content in `todo`.

        The stamps are size, mtime, ctime (ns since 1970), inode number, and whether the file was young, so that a later
        change might leave the same times. Where they are not reliable, the inode number is 0 and the times are whole
        seconds.

        Raises
        ------
        IndexError
            If there are not so many.
        """

    def stamps(self, path: bytes) -> tuple[int, int, int, int, bool] | None:
        """Return the stamps of a file, as `todo_at` does."""
    @property
    def skipped(self) -> list[tuple[str, Reason]]:
        """Path and reason of each file that is skipped, itself or because of its content."""
    @property
    def faults(self) -> list[tuple[str, Reason]]:
        """Path and reason of each file or folder that could not be examined.

        Known files at and below such a path stay in the table of files.
        """
    @property
    def left_out(self) -> list[str]:
        """Folders that distill wrote, and that are not part of the dataset; "" for the dataset itself."""
    @property
    def unread(self) -> dict[str, int]:
        """Number of files with one of the extensions ``unread``, by extension; empty for a list of files."""

@final
class Manifest:
    """A manifest: what is in a cache, and which files it came from. A new one is empty."""

    header: str
    """A JSON object whose content is up to the caller. Default: ``"{}"``.

    Setting anything but a JSON object of at most 64 KiB raises ``ValueError``.
    Newlines become spaces.
    """

    def __new__(cls) -> Self: ...
    @staticmethod
    def load(
        path: _StrOrBytesPath,
        known: FileTable | None = None,
        progress: Callable[[str, int, int], object] | None = None,
    ) -> Manifest:
        """Read and check a manifest file. If its files are those of ``known``, they share memory.

        ``progress`` is called with "cache", the bytes read and their number, if that is more than a megabyte. An
        exception that it raises ends the reading.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        OSError
            If it cannot be read.
        ManifestError
            If it is invalid. The message is the reason.
        NewerFormatError
            If a later version of this program wrote it.
        """
    def save(self, path: _StrOrBytesPath, progress: Callable[[str, int, int], object] | None = None) -> None:
        """Replace the manifest file durably and atomically.

        ``progress`` is called with "cache", the bytes written and 0, if they are more than a megabyte. An exception
        that it raises, or Ctrl-C, leaves the old file in place; without a callback, Ctrl-C waits.

        Files whose content is not recorded yet are left out, so that the file is
        complete. If a writer is killed it may leave ``.NAME.PID-N.tmp`` in the
        same folder; whoever holds the writers' lock may remove that file.

        Raises
        ------
        OSError
            If the file cannot be written. The old file is then unchanged.
        ManifestError
            If two contents have the same row, or totals exceed 63 bits.
        """
    def save_copy(self, path: _StrOrBytesPath) -> None:
        """Write the binary copy of the manifest file at ``path``, NAME.bin, from which `load` reads the same faster.

        Does nothing if there is one, or if these are not the tables of that file.

        Raises
        ------
        OSError
            If it cannot be written. A copy that was there is then unchanged.
        """
    def scan(
        self,
        root: _StrOrBytesPath,
        *,
        extensions: Sequence[str],
        unread: Sequence[str] = ...,
        exclude: Sequence[_StrOrBytesPath] = ...,
        files: Sequence[bytes] | None = None,
        known: FileTable | None = None,
        follow_links: bool = False,
        trust: Literal["stat", "content"] = "stat",
        max_bytes: int = ...,
        workers: int = 1,
        hash_added: bool = True,
        hashing: Literal["all", "same-size", "none"] = "all",
        progress: Callable[[str, int, int], object] | None = None,
    ) -> Scan:
        """Compare the folder ``root`` with this manifest, which is not changed.

        Opens only files that are new, whose size, times or inode number changed,
        or that changed within about two seconds before the last scan. Folders
        that distill wrote are left out; listed files in them are skipped.

        Parameters
        ----------
        root : path
            The dataset's root folder.
        extensions : sequence of str
            Extensions of audio files: lower case, without the dot.
        unread : sequence of str, optional
            Extensions of files that are only counted.
        exclude : sequence of path, optional
            Folders to leave out. Hidden files and folders are always left out.
        files : sequence of bytes, optional
            Use these paths, relative to ``root``, instead of walking. Other files
            of the manifest stay in it, but they are not selected: their rows are
            kept, and not served.
        known : FileTable, optional
            Files that need not be hashed, because this table has their hashes.
        follow_links : bool
            Follow every symbolic link. Otherwise only links to files inside
            ``root`` are followed. Default: False.
        trust : {"stat", "content"}
            With ``"content"`` every file is read and hashed. Default: "stat".
        max_bytes : int
            Larger files are skipped without being read. Default: 64 GiB.
        workers : int
            Maximum number of threads that walk, and that hash. Default: 1.
        hash_added : bool
            If False, new files are listed as added but not hashed: renames are
            not detected, and ``todo`` and `apply` leave them out. Default: True.
        hashing : {"all", "same-size", "none"}
            Which new and changed files are hashed: all, those whose size another
            one has, known or new, or none. (Files that are known, and changed
            shortly before they were scanned, are hashed nevertheless.) The others are in ``todo`` without a
            hash; whoever reads one calls `set_hash`. Until then it is not saved.
            Default: "all".
        progress : callable, optional
            Called with ``("scan", files, 0)`` and ``("hash", bytes, total)``, at
            most every 50 ms and once at the end. An exception ends the scan.

        Raises
        ------
        FileNotFoundError, NotADirectoryError, PermissionError
            If ``root`` itself cannot be read.
        ValueError
            If a path in ``files`` is absolute or leaves ``root``, or ``trust`` is
            unknown.
        KeyboardInterrupt
            Within 200 ms of Ctrl-C.
        """
    def apply(self, scan: Scan) -> bool:
        """Replace the table of files with that of ``scan``. Returns whether it changed."""
    def set_hash(self, path: bytes, content_hash: bytes) -> bool:
        """Record the hash of a file that the scan did not hash.

        Returns whether there is such a file.
        """
    def adopt(self, part: Manifest) -> bool:
        """Add the packs, contents and files of another manifest. Of a content that both have, the rows here stay.

        Returns whether anything changed. Raises ValueError if both list a pack of one name with other numbers of rows.
        """
    def add_file(self, path: bytes, stamps: tuple[int, int, int, int, bool], content_hash: bytes) -> None:
        """Add a file whose content is known, with the stamps of the scan. Fastest in the order of the paths."""
    def add_pack(
        self, name: str, rows: int, size: int, checksum: str, backend: str, mtime_ns: int, ctime_ns: int
    ) -> int:
        """Add a pack and return its index.

        Parameters
        ----------
        name : str
            File name in the folder of packs.
        rows : int
            Number of rows.
        size : int
            Size of the file in bytes.
        checksum : str
            64 lower-case hexadecimal digits.
        backend : str
            Name of the backend that computed the rows.
        mtime_ns, ctime_ns : int
            Modification and change time of the file, ns since 1970.

        Raises
        ------
        ValueError
            If the name is not a plain file name or already listed, or
            ``checksum`` is not 64 lower-case hexadecimal digits.
        """
    def set_pack_stamps(self, name: str, mtime_ns: int, ctime_ns: int) -> bool:
        """Record the times of a pack that was just verified.

        Returns whether the pack exists.
        """
    def set_content(
        self,
        content_hash: bytes,
        segments: Sequence[tuple[int, int, int]],
        silent: int,
        sums: Sequence[float],
        skipped: str | None = None,
        partial: str | None = None,
        silent_runs: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Record what was computed from a content, or why it cannot be used.

        Parameters
        ----------
        content_hash : bytes
            BLAKE3 of the content, 32 bytes.
        segments : sequence of (int, int, int)
            ``(pack index, first row, rows)`` of each, in the order of the rows.
        silent : int
            Number of chunks that were silent and have no row.
        sums : sequence of float
            Count of values, then sum and sum of squares of each of two channels.
        skipped : str, optional
            Why the content cannot be used; a `distill.types.Reason` if it has a
            code. It must then have no segments.
        partial : str, optional
            Why only a part of the content could be decoded. It must then not be skipped.
        silent_runs : sequence of (int, int)
            Which chunks were silent: ``(first, chunks)`` of each run. Default: unknown.

        Raises
        ------
        ValueError
            If a segment is not inside its pack, ``sums`` are not five finite
            numbers, or another rule is broken.
        """
    def silent_runs(self, content_hash: bytes) -> list[tuple[int, int]]:
        """Return ``(first, chunks)`` of each run of silent chunks of a content.

        Empty if there are none, they are unknown, or the content is not listed.
        """
    def drop_dead(self) -> None:
        """Remove the contents that no file has, selected or not, and packs without remaining rows.

        Pack indices change.
        """
    def drop_rows(self, pack_name: str, rows: Sequence[int]) -> int:
        """Remove each content with one of these rows of a pack.

        Returns the number of contents removed. Pack indices change.
        """
    def move_content(self, content_hash: bytes, segments: Sequence[tuple[int, int, int]]) -> None:
        """Replace the location of a content's rows.

        Raises
        ------
        ValueError
            If the content is not listed, the number of rows changes, or a segment
            is not inside its pack.
        """
    def drop_pack(self, name: str) -> bool:
        """Remove a damaged pack and the contents with rows in it.

        Returns whether the pack existed. Pack indices change.
        """
    def totals(self) -> Totals:
        """Return counts and sums over the live contents."""
    def live(self) -> Live:
        """Return the location of the rows of the live contents."""
    def kept(self) -> Live:
        """Return the location of the rows of all contents that a file has, selected or not."""
    def file_table(self) -> FileTable:
        """Return all files, selected or not, as a table."""
    def pack_names(self) -> list[str]:
        """Return the names of the packs, by index."""
    def packs(self) -> list[_Pack]:
        """Return the packs, by index."""
    def files(self) -> list[_File]:
        """Return all selected files, for display."""
    def skipped(self) -> list[tuple[str, Reason]]:
        """Return path and reason of each selected file that is skipped, itself or because of its content."""
    def partial(self) -> list[tuple[str, Reason]]:
        """Return path and reason of each selected file of which only a part is used."""
    def unused_contents(self) -> list[bytes]:
        """Return the hashes of the contents that no file has, selected or not."""

    def forget_skipped(self, code: str) -> bool:
        """Remove the contents that are skipped for a reason with this code, so that they are tried again.

        Returns whether there were any.
        """

    def partial_reason(self, content_hash: bytes) -> Reason | None:
        """Return why only a part of a content is used, or None if all of it is, or it is not listed."""

@final
class FileTable:
    """What is known of each file, whatever was computed from it: stamps and hash, or why it is skipped.

    The caches of a dataset share it, so that a new configuration need not hash the files again. A new one is empty.
    """

    def __new__(cls) -> Self: ...
    def __len__(self) -> int:
        """Return the number of files."""
    @staticmethod
    def load(path: _StrOrBytesPath, progress: Callable[[str, int, int], object] | None = None) -> FileTable:
        """Read and check a file; as `Manifest.load`."""
    def save(self, path: _StrOrBytesPath) -> None:
        """Replace the file durably and atomically; raises OSError if it cannot be written."""
    def save_copy(self, path: _StrOrBytesPath) -> None:
        """Write the binary copy of the file; as `Manifest.save_copy`."""
    def apply(self, scan: Scan) -> bool:
        """Take over what a scan found; one of a list of files leaves the others. Returns whether the table changed."""
    def adopt(self, other: FileTable) -> None:
        """Take over the files of another table, in addition to its own. Of a file that both have, the later counts."""
    def set_hash(self, path: bytes, content_hash: bytes) -> bool:
        """Record the hash of a file that is not hashed yet. Returns whether there is such a file."""

def hash_file(path: _StrOrBytesPath, progress: Callable[[str, int, int], object] | None = None) -> bytes:
    """Return the BLAKE3 of a file's bytes, 32 bytes.

    Parameters
    ----------
    path : path
        The file.
    progress : callable, optional
        Called with ``("hash", bytes, total)``, at most every 50 ms and once at
        the end. An exception ends the operation.

    Raises
    ------
    OSError
        If the file cannot be read.
    KeyboardInterrupt
        Within 200 ms of Ctrl-C.
    """

def hash_bytes(data: Buffer) -> bytes:
    """Return the BLAKE3 of a contiguous buffer, 32 bytes."""

def row_checksums(data: Buffer, row_bytes: int) -> bytes:
    """Return the first 8 bytes of the BLAKE3 of each row of a contiguous buffer, concatenated.

    Raises
    ------
    ValueError
        If the length of ``data`` is not a multiple of ``row_bytes``.
    """

@final
class PackFile:
    """An open pack, read at explicit positions; closed when nothing refers to it any more.

    Raises OSError if it cannot be opened, is a symbolic link or no regular file, or cannot be read.
    """

    stamps: tuple[int, int, int, int, int]
    """Device, inode, size, and the times of the last change of the content and of the inode in ns."""

    def __new__(cls, path: _StrOrBytesPath) -> Self: ...
    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes at `offset`, or those up to the end of the file."""

    def will_need(self, offset: int, length: int) -> None:
        """Let the system read bytes that will be wanted soon; does not wait for them."""

    def damaged_rows(
        self, checksums: Checksums, start: int, row_bytes: int, first: int, stop: int
    ) -> npt.NDArray[np.int64]:
        """Return which rows from `first` to `stop` do not match their checksum, or are missing.

        Row 0 is at `start`.
        """

@final
class Checksums:
    """The checksums of a pack's rows, and which rows were compared with them.

    Parameters
    ----------
    algorithm : {"CRC-64/NVME", "BLAKE3"}
    sums : bytes
        8 bytes for each row.
    """

    def __new__(cls, algorithm: str, sums: bytes) -> Self: ...

def pack_checksums(algorithm: str, data: npt.NDArray[np.uint8], row_bytes: int) -> bytes:
    """Return the checksum of each row of `data`, concatenated: CRC-64/NVME or the first 8 bytes of BLAKE3.

    Raises
    ------
    ValueError
        If the length of ``data`` is not a multiple of ``row_bytes``.
    """

def read_stored_rows(
    packs: Sequence[tuple[PackFile, Checksums]],
    pack: npt.NDArray[np.int64],
    number: npt.NDArray[np.int64],
    start: int,
    out: npt.NDArray[np.uint8],
) -> tuple[int, OSError | str] | None:
    """Read rows into ``out`` [k, bytes of a row] as they are stored, and check those that were not checked yet.

    Row i is number ``number[i]`` of the pack ``packs[pack[i]]``, whose row 0 is at ``start``. Returns None, or the
    place of a row that cannot be had and why: an OSError, "short" if the file ends before, or "mismatch".
    """

def read_rows(
    packs: Sequence[tuple[PackFile, Checksums]],
    pack: npt.NDArray[np.int64],
    number: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    start: int,
    out: npt.NDArray[np.float32],
    dtype: str,
    mean: npt.NDArray[np.float32] | None,
    scale: npt.NDArray[np.float32] | None,
) -> tuple[int, OSError | str] | None:
    """Read rows of ``dtype`` into ``out`` [n, values of a row], row i into ``out[place[i]]``; see `read_stored_rows`.

    If they are given, each channel becomes (row - mean) * scale.
    """

def mix_stereo(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean [n] of both channels of contiguous samples [n, 2], in float32.

    Raises
    ------
    ValueError
        If there are not two channels.
    """

def sample_range(samples: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the smallest and the largest of contiguous samples, of any shape; NaN if one of them is NaN.

    Raises ValueError if there are none.
    """

def sample_sum(samples: npt.NDArray[np.float32]) -> float:
    """Return the sum of contiguous samples [n], in float64."""

def row_sums(rows: npt.NDArray[np.float32]) -> list[tuple[float, float]]:
    """Return the sum and the sum of squares of each channel of contiguous rows [k, channels, n], in float64."""

@final
class MelKernel:
    """Computes mel features of waveforms on the CPU, for fixed parameters.

    Can be used from several threads at once.

    Parameters
    ----------
    n_fft : int
        Samples per frame, even, at least 4.
    hop_length : int
        Samples from one frame to the next.
    first, width, filterbank, centre, half_support : ndarray
        The fields of `distill.features.mel.MelBands`.
    if_masking_threshold : float or None
        If the power of a band is at most this, channel 1 is 0. None: channel 1 is
        not computed.
    center, power, compression, floor
        The fields of `distill.features.mel.MelSpec`.

    Raises
    ------
    ValueError
        If an argument is invalid or does not match the others; the message names
        it.
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
        center: bool,
        power: int,
        compression: str,
        floor: float,
    ) -> MelKernel: ...
    def compute(self, waveform: npt.NDArray[np.float32], out: npt.NDArray[np.float32], threads: int) -> None:
        """Compute the features of waveforms, without the GIL.

        Parameters
        ----------
        waveform : ndarray of shape [B, S], float32
            Contiguous, with S > n_fft / 2 or, if frames are not centred, S >= n_fft.
        out : ndarray of shape [B, 1 or 2, M, T], float32
            Receives the features. Contiguous.
        threads : int
            Maximum number of threads, including the calling one. Waveforms are
            distributed among them. The result is the same, bit for bit, for any
            number.

        Raises
        ------
        ValueError
            If the shapes do not match.
        """

@final
class MelInverse:
    """Computes waveforms from mel features on the CPU, for fixed parameters.

    Can be used from several threads at once. A matrix is given as its columns, offsets
    and weights, the fields of `distill.features.inversion.bin_power.Bags`.

    Parameters
    ----------
    n_fft : int
        Samples per frame, a power of two, at least 4.
    hop_length : int
        Samples from one frame to the next, at most `n_fft`.
    bins, atoms : tuple of three matrices
        The fields `to_targets`, `from_targets` and `spread` of
        `distill.features.inversion.bin_power.AtomTables`, for the feature without and
        with channel 1. `atoms` is None for a feature of one channel.
    lobes : matrix or None
        The field `lobes`, likewise.
    centre, half_support : ndarray, float32
        The fields of `distill.features.mel.MelBands`.

    Raises
    ------
    ValueError
        If an argument is invalid or does not match the others; the message names
        it.
    """

    def __new__(
        cls,
        *,
        n_fft: int,
        hop_length: int,
        bins: tuple[_Matrix, _Matrix, _Matrix],
        atoms: tuple[_Matrix, _Matrix, _Matrix] | None,
        lobes: _Matrix | None,
        centre: npt.NDArray[np.float32],
        half_support: npt.NDArray[np.float32],
    ) -> MelInverse: ...
    def compute(
        self, features: npt.NDArray[np.float32], out: npt.NDArray[np.float32], n_iter: int, threads: int
    ) -> None:
        """Compute the waveforms of features, without the GIL.

        Parameters
        ----------
        features : ndarray of shape [B, 1 or 2, M, T], float32
            Contiguous, finite, channel 0 at most 80.
        out : ndarray of shape [B, S], float32
            Receives the waveforms, which are as if they had been reflected at both
            ends; S > n_fft / 2. Contiguous.
        n_iter : int
            Iterations of fast Griffin-Lim.
        threads : int
            Maximum number of threads, including the calling one. Clips are
            distributed among them. The result is the same, bit for bit, for any
            number.

        Raises
        ------
        ValueError
            If the shapes do not match.
        """
