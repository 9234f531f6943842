"""The manifest as Python sees it: its header, and the whole of it as a dict.

The Rust index owns the file: its checksum, its per-file table, and the one commit (see ``rust/index``). The header is
Python's: the configuration that made the rows, their statistics, and the totals.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distill import __version__, _native
from distill.config import ComplexSpectrogramConfig

MANIFEST_NAME = "manifest.json"
PACKS_NAME = "packs"
CACHE_NAME = ".cache"
FEATURE_VERSION = 1
"""Raise when the same samples would give other features: every cache is then computed anew."""


def cache_path(dataset_dir: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where the cache of a dataset is: `cache_dir` if given, else DATASET/.cache."""
    return Path(cache_dir) if cache_dir is not None else Path(dataset_dir) / CACHE_NAME


def fingerprint(identity: Mapping[str, Any]) -> str:
    """BLAKE3, in hex, of everything that decides a row beside the file's content."""
    return _native.hash_bytes(json.dumps(identity, sort_keys=True).encode()).hex()


def row_shape(config: ComplexSpectrogramConfig, chunk_samples: int) -> tuple[int, int, int]:
    """Shape (2, n_mels, T) of a row."""
    return (2, config.n_mels, chunk_samples // config.hop_length + 1)


def normalization_stats(sums: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation per channel from [n, sum, sum of squares, sum, sum of squares]."""
    n, *moments = sums
    stats = {}
    for name, total, squares in zip(("mag", "if"), moments[::2], moments[1::2], strict=True):
        mean = total / n if n else 0.0
        variance = squares / n - mean * mean if n else 0.0
        stats[f"{name}_mean"] = mean
        # A constant channel is left at its own scale rather than blown up.
        stats[f"{name}_std"] = math.sqrt(variance) if variance > 1e-12 else 1.0
    return stats


def normalization_arrays(stats: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and reciprocal standard deviation, [2, 1, 1] each, float32: rows less the one, times the other."""
    mean = np.array([stats["mag_mean"], stats["if_mean"]], np.float32).reshape(2, 1, 1)
    return mean, 1 / np.array([stats["mag_std"], stats["if_std"]], np.float32).reshape(2, 1, 1)


def open_manifest(cache_dir: Path) -> _native.Manifest | None:
    """The manifest of a cache; None if it is missing, damaged, or of another version."""
    try:
        manifest = _native.Manifest.load(cache_dir / MANIFEST_NAME)
    except (OSError, _native.ManifestError):
        return None
    return manifest if set(json.loads(manifest.header)) >= _HEADER_KEYS else None


_HEADER_KEYS = {
    *("created", "identity", "config_fingerprint", "expansion_is_chosen"),
    *("complex_spectrogram_config", "row_shape", "dtype"),
}


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
    """
    manifest = open_manifest(Path(cache_dir))
    if manifest is None:
        return None
    header = json.loads(manifest.header)
    header.pop("identity")
    return {"version": 1, **header, "files": manifest.files(), "packs": manifest.packs()}
