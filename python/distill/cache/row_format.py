"""What the rows of a cache are: the feature's configuration and everything else that decides a row's values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from distill import _native
from distill.config import AugmentationConfig, CacheDtype, ComplexSpectrogramConfig
from distill.text import counted, differences


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
        expansion: int = self.identity["augmentation_expansion"]
        return expansion

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (2, M, T) of a row."""
        return self.config.row_shape(self.identity["chunk_samples"])

    @property
    def dtype(self) -> CacheDtype:
        """How values are stored, "float32" or "float16"."""
        dtype: CacheDtype = self.identity["dtype"]
        return dtype

    @property
    def skips_partial(self) -> bool:
        """Whether files that can only be decoded in part have no rows."""
        return self.identity.get("partial") == "skip"

    @property
    def fingerprint(self) -> str:
        """Hash of the identity; rows with equal fingerprints can share a cache."""
        return fingerprint(self.identity)

    @property
    def words(self) -> str:
        """The format on one line: what is usually chosen, and what differs from the defaults."""
        config, defaults = asdict(self.config), asdict(ComplexSpectrogramConfig())
        usual = ("n_mels", "n_fft", "hop_length", "sample_rate")
        parts = [f"{name} {config[name]}" for name in usual]
        parts += [f"chunk_samples {self.identity['chunk_samples']}", counted(self.expansion, "variant"), self.dtype]
        parts += [f"{name} {config[name]}" for name in config if name not in usual and config[name] != defaults[name]]
        if self.identity["normalize"] != "file":
            parts.append(f"normalize {self.identity['normalize']}")
        if self.skips_partial:
            parts.append("partial skip")
        if self.expansion:
            usual_ranges = asdict(AugmentationConfig())
            ranges = self.identity["augmentation_config"]
            parts += [f"augmentation.{name} {value}" for name, value in ranges.items() if value != usual_ranges[name]]
        return ", ".join(parts)

    def is_included_in(self, other: RowFormat) -> bool:
        """Whether the rows of a file in `other`, if it has any, are, or include, those of this format.

        It then differs only in that it has more variants of each chunk, or in whether partial files are skipped.
        """
        own, others = ({**rows.identity, "partial": "use"} for rows in (self, other))
        if not self.expansion:
            own["augmentation_config"] = others["augmentation_config"]
        own["augmentation_expansion"] = others["augmentation_expansion"]
        return self.fingerprint != other.fingerprint and other.expansion >= self.expansion and own == others

    def changed_fields(self, other: RowFormat) -> list[str]:
        """Return how this format differs from another one, a line per field."""
        before, now = ({"partial": "use", **rows.identity} for rows in (other, self))
        name, defaults = "complex_spectrogram_config", asdict(ComplexSpectrogramConfig())
        before[name], now[name] = ({**defaults, **values[name]} for values in (before, now))
        if before["augmentation_config"] is None or now["augmentation_config"] is None:
            # Only says again that one of them has no variants.
            del before["augmentation_config"], now["augmentation_config"]
        return differences(before, now)
