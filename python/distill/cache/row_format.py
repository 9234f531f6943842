"""What the rows of a cache are: the feature's configuration and everything else that decides a row's values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distill import _native
from distill.config import ComplexSpectrogramConfig
from distill.text import differences


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return the BLAKE3, in hex, of everything that decides a row besides the file's content."""
    return _native.hash_bytes(json.dumps(identity, sort_keys=True).encode()).hex()


@dataclass(frozen=True)
class RowFormat:
    """What the rows of a cache are, and how they are stored.

    Parameters
    ----------
    config : ComplexSpectrogramConfig
        The feature.
    identity : mapping
        Everything that decides a row besides the file's content, as plain JSON values; see `feature_identity`.
    expansion_is_chosen : bool
        True if the number of augmented variants was chosen automatically, False if it was requested.
    """

    config: ComplexSpectrogramConfig
    identity: Mapping[str, Any]
    expansion_is_chosen: bool

    @classmethod
    def of_header(cls, header: Mapping[str, Any]) -> RowFormat:
        """Return the format that a manifest's header describes."""
        config = ComplexSpectrogramConfig(**header["complex_spectrogram_config"])
        return cls(config, header["identity"], header["expansion_is_chosen"])

    @property
    def expansion(self) -> int:
        """Augmented variants of each chunk, besides the original."""
        return self.identity["augmentation_expansion"]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (2, M, T) of a row."""
        return self.config.row_shape(self.identity["chunk_samples"])

    @property
    def dtype(self) -> str:
        """How values are stored, "float32" or "float16"."""
        return self.identity["dtype"]

    @property
    def fingerprint(self) -> str:
        """Hash of the identity; rows with equal fingerprints can share a cache."""
        return fingerprint(self.identity)

    def changed_fields(self, header: Mapping[str, Any]) -> list[str]:
        """Return why rows under `header` cannot be used, a line per field; empty if they can, or there are none."""
        if not header or header["config_fingerprint"] == self.fingerprint:
            return []
        return differences(header["identity"], self.identity)
