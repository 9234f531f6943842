"""The manifest of a cache: loading it, checking its header, and its content as a dict.

The Rust index owns the file: its checksum, its table of files, and the commit (see ``rust/index``). The header belongs
to Python: the configuration of the rows, their statistics, and the totals.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

from distill import __version__, _native
from distill.availability import remedy
from distill.cache.row_format import RowFormat
from distill.config import (
    AugmentationConfig,
    CacheDtype,
    ComplexSpectrogramConfig,
    Normalize,
    Partial,
    feature_identity,
    spectrogram_fields,
)
from distill.documents import load_json
from distill.errors import CacheError
from distill.features.statistics import normalization_stats
from distill.types import ProgressCallback

logger = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.json"
PARTS_NAME = "parts"
PACKS_NAME = "packs"
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
# A header has at most 64 KiB.
_HEADER_LINES_BYTES = (64 << 10) + 100


def open_manifest(
    cache_dir: Path, known: _native.FileTable | None = None, progress: ProgressCallback | None = None
) -> _native.Manifest | None:
    """Return the manifest of a cache whose features can be computed again if it is lost.

    If its files are those of the table `known`, both share memory. While a large one is read, `progress` is called with
    "cache" and bytes.

    Returns
    -------
    Manifest or None
        None if there is no manifest or, after a warning, if it is damaged.

    Raises
    ------
    CacheError
        If it exists and cannot be read: the features that it names may have taken days to compute.
    """
    try:
        return load_manifest(cache_dir, known, progress)
    except _native.ManifestError as error:
        logger.warning("%s: %s; its features are computed again", cache_dir / MANIFEST_NAME, error)
        return None


def require_manifest(cache_dir: Path) -> _native.Manifest:
    """Return the manifest of a cache that has to exist.

    Raises
    ------
    CacheError
        If it is missing, damaged, or cannot be read.
    """
    try:
        manifest = load_manifest(cache_dir)
        reason = f"{MANIFEST_NAME} is missing"
    except _native.ManifestError as error:
        manifest, reason = None, f"{MANIFEST_NAME}: {error}"
    if manifest is None:
        tip = "run: distill preprocess DATASET, with the options as before"
        raise CacheError(f"{cache_dir}: no valid cache here: {reason}", tip)
    return manifest


def load_manifest(
    cache_dir: Path, known: _native.FileTable | None = None, progress: ProgressCallback | None = None
) -> _native.Manifest | None:
    """Return the manifest of a cache, or None if there is none. `known` and `progress`: see `open_manifest`.

    Raises
    ------
    ManifestError
        If it is damaged; the message is the reason.
    CacheError
        If it cannot be read, or a later version of distill wrote it.
    """
    return read_manifest(cache_dir / MANIFEST_NAME, known, progress)


def read_manifest(
    path: Path, known: _native.FileTable | None = None, progress: ProgressCallback | None = None
) -> _native.Manifest | None:
    """Return the manifest in a file, or None if there is no such file; raises what `load_manifest` does."""
    try:
        manifest = _native.Manifest.load(path, known, progress)
        _check_header(manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CacheError(
            f"{path}: cannot be read: {error.strerror or error}",
            remedy(error, "make it readable, or remove it if the features may be computed again"),
        ) from error
    except _native.NewerFormatError as error:
        raise newer_format(path, error) from error
    return manifest


def newer_format(path: Path, error: _native.NewerFormatError) -> CacheError:
    """Return the error for a file that a later version of distill wrote."""
    return CacheError(
        f"{path}: a later version of distill wrote this: {error}",
        "update distill, or choose another cache with --cache-dir DIR",
    )


def build_header(rows: RowFormat, totals: _native.Totals, *, created: str) -> dict[str, Any]:
    """Return the header for what a manifest holds now.

    Parameters
    ----------
    rows : RowFormat
        What the rows are.
    totals : Totals
        Sums over the manifest's live contents.
    created : str
        When the cache was created, ISO 8601.
    """
    return {
        "distill_version": __version__,
        "created": created,
        **rows.identity,
        "complex_spectrogram_config": spectrogram_fields(rows.config),
        "identity": dict(rows.identity),
        "config_fingerprint": rows.fingerprint,
        "expansion_is_chosen": rows.expansion_is_chosen,
        "row_shape": rows.shape,
        "normalization_stats": normalization_stats(totals.sums),
        "total_spectrograms": totals.rows,
        "silent_chunks": totals.silent,
        "dead_rows": totals.dead_rows,
        "cache_size_bytes": totals.pack_bytes,
    }


def _check_header(manifest: _native.Manifest) -> None:
    """Raise ManifestError or NewerFormatError unless the header equals what `build_header` makes of it and the tables.

    Whoever can write the file can also write its checksum, so no field of the header is trusted: the header is built
    again and compared. A key added to the header therefore makes old caches invalid, as a new `FEATURE_VERSION` does.
    """
    canonical = partial(json.dumps, sort_keys=True)
    try:
        header = load_json(manifest.header.encode())
        expected = _rebuilt_header(header, manifest.totals())
    # TypeError: a field that the configuration does not have.
    except (ValueError, TypeError, RecursionError) as error:
        fault = str(error).partition("\n")[0][:200]
        raise _header_error(manifest.header, fault) from error
    for name, value in expected.items():
        # Compared as JSON text, in which 1, 1.0 and true differ.
        if name != "distill_version" and canonical(header.get(name)) != canonical(value):
            raise _header_error(manifest.header, f"{name} does not fit the rest")


def _version(text: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d{1,9}", text)]


def _header_error(header: str, fault: str) -> Exception:
    # Searched in the text, because the header may not be valid JSON.
    written = re.search(r'"distill_version": ?"([0-9A-Za-z.+-]{1,40})"', header)
    if written and written[1] != __version__:
        if _version(written[1]) > _version(__version__):
            return _native.NewerFormatError(f"distill {written[1]}, this is {__version__}: {fault}")
        return _native.ManifestError(
            f"its header is damaged, or distill {written[1]} wrote what {__version__} does not read: {fault}"
        )
    return _native.ManifestError(f"its header is damaged: {fault}")


def _rebuilt_header(header: Mapping[str, Any], totals: _native.Totals) -> dict[str, Any]:
    """Return the header built from the fields of `header` that no other field decides, each of them checked."""
    expected = build_header(_row_format(header), totals, created=_entry(header, "created", str))
    stats = expected["normalization_stats"]
    if not all(abs(value) <= _LARGEST_FLOAT32 for value in stats.values()):
        raise ValueError(f"normalization_stats={stats} must be finite")
    return expected


def _row_format(header: Mapping[str, Any]) -> RowFormat:
    """Return the row format of a header that nobody has checked; raise ValueError or TypeError if it is none."""
    claimed = _entry(header, "identity", dict)
    spectrogram = ComplexSpectrogramConfig(**_entry(header, "complex_spectrogram_config", dict))
    identity = feature_identity(
        spectrogram,
        AugmentationConfig(**(_entry(claimed, "augmentation_config", dict, type(None)) or {})),
        _entry(claimed, "augmentation_expansion", int),
        _entry(claimed, "chunk_samples", int),
        spectrogram.sample_rate,
        _entry(claimed, "normalize", str),
        _entry(claimed, "dtype", str),
        _entry(claimed, "partial", str, type(None)) or "use",
    ) | {
        "feature_version": _entry(claimed, "feature_version", int),
        "decoder_version": _entry(claimed, "decoder_version", str),
    }
    for name, is_possible in (
        ("augmentation_expansion", 0 <= identity["augmentation_expansion"] <= 1000),
        ("chunk_samples", 1 <= identity["chunk_samples"] < 1 << 63),
        ("normalize", identity["normalize"] in get_args(Normalize)),
        ("dtype", identity["dtype"] in get_args(CacheDtype)),
        ("partial", identity.get("partial", "use") in get_args(Partial)),
    ):
        if not is_possible:
            raise ValueError(f"{name}={identity[name]!r} is out of range")
    return RowFormat(spectrogram, identity, _entry(header, "expansion_is_chosen", bool))


def peek_format(slot: Path) -> RowFormat | None:
    """Return the row format that a slot's manifest claims, from its first lines; None if they say none.

    The manifest of a million files takes a second to read and to check. This does neither, so it may only decide what
    is looked at next.
    """
    try:
        with (slot / MANIFEST_NAME).open("rb") as file:
            header = file.read(_HEADER_LINES_BYTES).split(b"\n", 3)[2]
        return _row_format(load_json(header.removeprefix(b'"header":').removesuffix(b",")))
    except (OSError, IndexError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _entry(values: Mapping[str, Any], name: str, *kinds: type) -> Any:
    """Return the entry `name` of `values` if it is of one of `kinds`, else raise ValueError."""
    value = values.get(name)
    # Not isinstance, which takes a bool for an int. Strings are printed, so they may not hold terminal escapes.
    if type(value) not in kinds or (isinstance(value, str) and not value.isprintable()):
        raise ValueError(f"{name}={value!r:.80} must be {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def describe(manifest: _native.Manifest) -> dict[str, Any]:
    """Return the dict of `distill.cache.load_cache_manifest` for an open manifest."""
    header = json.loads(manifest.header)
    header.pop("identity")
    return {"version": 1, **header, "files": manifest.files(), "packs": manifest.packs()}
