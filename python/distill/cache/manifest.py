"""The manifest as Python sees it: its header, and the whole of it as a dict.

The Rust index owns the file: its checksum, its per-file table, and the one commit (see ``rust/index``). The header is
Python's: the configuration that made the rows, their statistics, and the totals.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn, get_args

import numpy as np

from distill import __version__, _native
from distill.config import AugmentationConfig, CacheDtype, ComplexSpectrogramConfig, Normalize, feature_identity
from distill.errors import CacheError
from distill.features.normalization import normalization_stats

logger = logging.getLogger(__name__)

MANIFEST_NAME = "manifest.json"
PACKS_NAME = "packs"


def fingerprint(identity: Mapping[str, Any]) -> str:
    """BLAKE3, in hex, of everything that decides a row beside the file's content."""
    return _native.hash_bytes(json.dumps(identity, sort_keys=True).encode()).hex()


def row_shape(config: ComplexSpectrogramConfig, chunk_samples: int) -> tuple[int, int, int]:
    """Shape (2, n_mels, T) of a row."""
    return (2, config.n_mels, chunk_samples // config.hop_length + 1)


def open_manifest(cache_dir: Path) -> _native.Manifest | None:
    """The manifest of a cache that can be computed anew: None if there is none, or, after a warning, if it is damaged.

    Raises
    ------
    CacheError
        If it is there and cannot be read: what it says may be worth days.
    """
    try:
        return load_manifest(cache_dir)
    except _native.ManifestError as error:
        logger.warning("%s: %s; its features are computed anew", cache_dir / MANIFEST_NAME, error)
        return None


def require_manifest(cache_dir: Path) -> _native.Manifest:
    """The manifest of a cache without which there is nothing to do.

    Raises
    ------
    CacheError
        If there is none, or it is damaged, or cannot be read.
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


def load_manifest(cache_dir: Path) -> _native.Manifest | None:
    """The manifest of a cache; None if there is none.

    Raises
    ------
    ManifestError
        If it is damaged or of another version; the message is the reason.
    CacheError
        If it cannot be read.
    """
    path = cache_dir / MANIFEST_NAME
    try:
        manifest = _native.Manifest.load(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CacheError(
            f"{path}: cannot be read: {error.strerror or error}",
            "make it readable, or remove it if the features may be computed anew",
        ) from error
    _check_header(manifest)
    return manifest


def _check_header(manifest: _native.Manifest) -> None:
    """Raise ManifestError unless the header is what `build_header` makes of what it says and of the tables.

    Whoever can write the file can make its checksum too. So nothing in the header is followed: as with a pack's, the
    header that should be there is made, and compared. A key that is added to the header makes old caches be computed
    anew, as a raised `FEATURE_VERSION` does.
    """
    try:
        header = json.loads(
            manifest.header, object_pairs_hook=_unique, parse_int=_integer, parse_constant=_refuse_constant
        )
        expected = _expected_header(header, manifest.totals())
    # A type error is a field that a configuration does not have.
    except (ValueError, TypeError, RecursionError) as error:
        fault = str(error).partition("\n")[0][:200]
        raise _header_error(manifest.header, fault) from error
    for name, value in expected.items():
        # As text, in which 1, 1.0 and true differ.
        if name != "distill_version" and _text(header.get(name)) != _text(value):
            raise _header_error(manifest.header, f"{name} does not fit the rest")


def _header_error(header: str, fault: str) -> _native.ManifestError:
    # Whatever else is wrong with it: a version is there to be told, and decides nothing.
    written = re.search(r'"distill_version": ?"([0-9A-Za-z.+-]{1,40})"', header)
    if written and written[1] != __version__:
        return _native.ManifestError(
            f"its header is damaged, or distill {written[1]} wrote what {__version__} does not read: {fault}"
        )
    return _native.ManifestError(f"its header is damaged: {fault}")


def _expected_header(header: Mapping[str, Any], totals: _native.Totals) -> dict[str, Any]:
    identity = _entry(header, "identity", dict)
    spectrogram = ComplexSpectrogramConfig(**_entry(header, "complex_spectrogram_config", dict))
    made = feature_identity(
        spectrogram,
        AugmentationConfig(**(_entry(identity, "augmentation_config", dict, type(None)) or {})),
        _entry(identity, "augmentation_expansion", int),
        _entry(identity, "chunk_samples", int),
        spectrogram.sample_rate,
        _entry(identity, "normalize", str),
        _entry(identity, "dtype", str),
    ) | {
        "feature_version": _entry(identity, "feature_version", int),
        "decoder_version": _entry(identity, "decoder_version", str),
    }
    for name, is_possible in (
        ("augmentation_expansion", 0 <= made["augmentation_expansion"] <= 1000),
        ("chunk_samples", made["chunk_samples"] >= 1),
        ("normalize", made["normalize"] in get_args(Normalize)),
        ("dtype", made["dtype"] in get_args(CacheDtype)),
    ):
        if not is_possible:
            raise ValueError(f"{name}={made[name]!r} cannot be")
    created, is_chosen = _entry(header, "created", str), _entry(header, "expansion_is_chosen", bool)
    expected = build_header(made, asdict(spectrogram), totals, created=created, expansion_is_chosen=is_chosen)
    stats = expected["normalization_stats"]
    if not all(abs(value) <= np.finfo(np.float32).max for value in stats.values()):
        raise ValueError(f"normalization_stats={stats} must be finite")
    return expected


def _entry(values: Mapping[str, Any], name: str, *kinds: type) -> Any:
    value = values.get(name)
    # Not isinstance, because a bool is no number here. What is shown to people must not steer their terminal.
    if type(value) not in kinds or (isinstance(value, str) and not value.isprintable()):
        raise ValueError(f"{name}={value!r:.80} must be {' or '.join(kind.__name__ for kind in kinds)}")
    return value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands in it twice")
    return values


def _integer(digits: str) -> int:
    # By their number first: Python refuses to convert thousands, or takes its time.
    value = int(digits) if len(digits) <= 20 else 1 << 64
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{digits:.20} exceeds 64 bits")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def build_header(
    identity: Mapping[str, Any],
    config: Mapping[str, Any],
    totals: _native.Totals,
    *,
    created: str,
    expansion_is_chosen: bool,
) -> dict[str, Any]:
    """The header for what a manifest holds now."""
    spectrogram = ComplexSpectrogramConfig(**config)
    return {
        "distill_version": __version__,
        "created": created,
        **identity,
        "complex_spectrogram_config": dict(config),
        "identity": dict(identity),
        "config_fingerprint": fingerprint(identity),
        "expansion_is_chosen": expansion_is_chosen,
        "row_shape": row_shape(spectrogram, identity["chunk_samples"]),
        "normalization_stats": normalization_stats(totals.sums),
        "total_spectrograms": totals.rows,
        "silent_chunks": totals.silent,
        "dead_rows": totals.dead_rows,
        "cache_size_bytes": totals.pack_bytes,
    }


def load_cache_manifest(cache_dir: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Everything that a cache's manifest says.

    Parameters
    ----------
    cache_dir : path
        The folder that `preprocess_complex_spectrograms` returned.

    Returns
    -------
    dict or None
        None if there is no manifest or it is damaged. Keys: ``version``, ``created``, ``files`` (a list of dicts with
        ``path`` relative to the dataset, undecodable bytes as surrogate escapes; ``size`` in bytes; ``mtime_ns``;
        ``content_hash``, BLAKE3 in hex; ``rows``; ``skipped``, None or the reason), ``complex_spectrogram_config``,
        ``augmentation_config`` (None when nothing is augmented), ``augmentation_expansion``, ``chunk_samples``,
        ``sample_rate``, ``normalize``, ``dtype``, ``config_fingerprint``, ``normalization_stats`` (``mag_mean``,
        ``mag_std``, ``if_mean``, ``if_std``), ``total_spectrograms``, ``cache_size_bytes``, and what else the header
        holds.

    Raises
    ------
    CacheError
        If the manifest cannot be read.
    """
    manifest = open_manifest(Path(cache_dir))
    return None if manifest is None else describe(manifest)


def describe(manifest: _native.Manifest) -> dict[str, Any]:
    """What `load_cache_manifest` returns, of a manifest that is open."""
    header = json.loads(manifest.header)
    header.pop("identity")
    return {"version": 1, **header, "files": manifest.files(), "packs": manifest.packs()}
