"""Configuration: frozen dataclasses that check themselves, presets, and the fingerprint of what decides a feature."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from distill.errors import ConfigError

Normalize = Literal["file", "chunk", "none"]
CacheDtype = Literal["float32", "float16"]
Device = str

_collector: ContextVar[list[str] | None] = ContextVar("faults", default=None)
_prefix: ContextVar[str] = ContextVar("prefix", default="")
"""The table that is being read, with a dot."""


@contextmanager
def collecting_faults() -> Iterator[None]:
    """Report the faults of every configuration made inside as one ConfigError at the end.

    Raises
    ------
    ConfigError
        If any configuration made inside was at fault.
    """
    faults: list[str] = []
    token = _collector.set(faults)
    try:
        yield
    finally:
        _collector.reset(token)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))


def _report(faults: list[str], *, prefixed: bool = True) -> None:
    if prefixed:
        faults = [_prefix.get() + fault for fault in faults]
    collector = _collector.get()
    if collector is not None:
        collector.extend(faults)
    elif faults:
        raise ConfigError(faults)


def _type_faults(config: Any) -> list[str]:
    """Faults of type: what a TOML file or a caller gets wrong before any range matters."""
    faults = []
    hints = get_type_hints(type(config))
    for item in dataclasses.fields(config):
        value, hint = getattr(config, item.name), hints[item.name]
        choices = get_args(hint) or (hint,)
        if all(isinstance(choice, str) for choice in choices):
            if value not in choices:
                near = difflib.get_close_matches(str(value), choices, 1)
                hint_text = f"; did you mean {near[0]!r}?" if near else ""
                faults.append(f"{item.name}={value!r} must be one of {', '.join(map(repr, choices))}{hint_text}")
            continue
        allowed = tuple(choice for choice in choices if isinstance(choice, type))
        widened = (*allowed, int) if float in allowed else allowed
        # Of configurations, none that is derived from the one wanted: it is of another feature.
        fits = type(value) in allowed if dataclasses.is_dataclass(value) else isinstance(value, widened)
        if not fits or (isinstance(value, bool) and bool not in allowed):
            names = " or ".join("left out" if kind is type(None) else kind.__name__ for kind in allowed)
            faults.append(f"{item.name}={value!r} must be {names}")
        elif isinstance(value, float) and not math.isfinite(value):
            faults.append(f"{item.name}={value!r} must be finite")
    return faults


def _check(config: Any, *rules: tuple[str, Any, str]) -> None:
    """Report what breaks a rule: (field, predicate of the value, what it must be); rules for ill-typed fields wait."""
    faults = _type_faults(config)
    ill_typed = {fault.split("=", 1)[0] for fault in faults}
    for name, predicate, must in rules:
        value = getattr(config, name)
        if value is not None and name not in ill_typed and not _holds(predicate, value):
            faults.append(f"{name}={value} must be {must}")
    _report(faults)


def _holds(predicate: Callable[[Any], bool], value: Any) -> bool:
    try:
        return predicate(value)
    except TypeError:  # it compares with a field that is ill-typed itself, and reported
        return True


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


def _mel_faults(config: SpectrogramConfig) -> None:
    nyquist = config.sample_rate / 2 if isinstance(config.sample_rate, (int, float)) else 0
    _check(
        config,
        ("sample_rate", lambda v: 1_000 <= v <= 768_000, "from 1000 to 768000 Hz"),
        ("n_fft", lambda v: _is_power_of_two(v) and 32 <= v <= 65_536, "a power of two from 32 to 65536"),
        ("hop_length", lambda v: 1 <= v <= config.n_fft, f"from 1 to n_fft={config.n_fft}"),
        ("n_mels", lambda v: 1 <= v <= config.n_fft // 2 + 1, f"from 1 to {_half(config.n_fft)} (n_fft/2 + 1)"),
        ("f_min", lambda v: 0 <= v < nyquist, f"from 0 to below {nyquist:g} Hz (half of sample_rate)"),
        ("f_max", lambda v: config.f_min < v <= nyquist, f"above f_min={config.f_min} and at most {nyquist:g} Hz"),
    )


def _half(n_fft: object) -> object:
    return n_fft // 2 + 1 if isinstance(n_fft, int) else n_fft


@dataclass(frozen=True)
class SpectrogramConfig:
    """The one-channel log-mel spectrogram of the v1.0 path."""

    channels: ClassVar[int] = 1

    sample_rate: int = 48_000
    """Rate of the waveform, Hz; files of other rates are resampled."""
    n_fft: int = 2048
    """Length of a frame and of its DFT, samples; a power of two."""
    hop_length: int = 512
    """Step between frames, samples."""
    n_mels: int = 128
    """Number of mel bands."""
    f_min: float = 0.0
    """Lower edge of the lowest band, Hz."""
    f_max: float | None = None
    """Upper edge of the highest band, Hz; half of sample_rate when not given."""

    def __post_init__(self) -> None:
        _mel_faults(self)

    def row_shape(self, chunk_samples: int) -> tuple[int, int, int]:
        """Return the shape (channels, M, T) of the features of a chunk; T = chunk_samples // hop_length + 1."""
        return (self.channels, self.n_mels, chunk_samples // self.hop_length + 1)


@dataclass(frozen=True)
class ComplexSpectrogramConfig(SpectrogramConfig):
    """The two-channel feature: log-mel magnitude and instantaneous frequency."""

    channels: ClassVar[int] = 2

    enabled: bool = field(default=True, kw_only=True)
    """Train on the two-channel feature from the cache; off is the v1.0 path (magnitude, no cache)."""
    if_masking_threshold: float = field(default=1e-5, kw_only=True)
    """Band power at or below which the instantaneous frequency is set to 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.if_masking_threshold, (int, float)) and self.if_masking_threshold < 0:
            _report([f"if_masking_threshold={self.if_masking_threshold} must be at least 0"])


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges from which each augmented variant of a chunk draws, evenly; 0 turns one off."""

    gain_db: float = 6.0
    """Gain: a level between -gain_db and 0 dB, so that nothing clips."""
    noise_db: float = 50.0
    """White noise, at least this many dB below the chunk's own level (up to 20 dB further); 0 adds none."""
    speed: float = 0.06
    """Speed, with pitch as on a tape: a factor between 1 - speed and 1 + speed."""
    pitch_semitones: float = 0.0
    """Pitch without tempo: up to this many semitones either way; needs python-stretch."""
    time_shift_s: float = 0.1
    """Shift in time within the chunk: up to this many seconds either way; silence moves in."""

    def __post_init__(self) -> None:
        _check(
            self,
            ("gain_db", lambda v: 0 <= v <= 60, "from 0 to 60"),
            ("noise_db", lambda v: v == 0 or 10 <= v <= 120, "0 or from 10 to 120"),
            ("speed", lambda v: 0 <= v <= 0.5, "from 0 to 0.5"),
            ("pitch_semitones", lambda v: 0 <= v <= 24, "from 0 to 24"),
            ("time_shift_s", lambda v: 0 <= v <= 60, "from 0 to 60"),
        )


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run; what is None is chosen from the size of the dataset."""

    complex_spectrogram: ComplexSpectrogramConfig = field(default_factory=ComplexSpectrogramConfig)
    """The two-channel feature."""
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    """The one-channel feature, used when complex_spectrogram.enabled is off."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Ranges of the augmented variants."""
    augmentation_expansion: int | None = None
    """Augmented variants a chunk, beside the original; None: as chosen before, else 4 up to 1000 files, 0 above."""
    chunk_samples: int = 48_000
    """Length of a chunk, samples."""
    normalize: Normalize = "file"
    """Peak normalisation to 1: per file, per chunk, or none."""
    cache_dtype: CacheDtype = "float32"
    """How rows are kept on disk: float32, or float16 for half the space."""
    split_by: Literal["chunk", "file"] = "chunk"
    """What is held out for validation: single chunks, or whole files."""
    val_fraction: float = 0.15
    """Share of chunks (or files) held out."""
    model_size: Literal["small", "medium", "large"] = "small"
    """Width of the convolutions: 16, 32 or 48 base channels."""
    latent_dim: int = 128
    """Size of the latent vector; at most one less than the number of training rows is used by the linear path."""
    batch_size: int | None = None
    """Rows a step; None: 16 below 2000 training rows, 32 below 20000, else 64."""
    epochs: int | None = None
    """Passes over the training rows; None: as many as 6000 steps hold, from 10 to 200."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW, reached after a short warm-up, then a cosine down to 1 % of it."""
    weight_decay: float | None = None
    """AdamW weight decay; None: 0.1 below 2000 training rows, 0.01 above."""
    dropout: float | None = None
    """Dropout inside the convolutional path; None: 0.1 below 2000 training rows, 0 above."""
    shifted_share: float = 0.5
    """Share of the training rows that a step moves in time (up to 40 % of a chunk) and mel (1 of 64 bands)."""
    if_weight: float = 0.5
    """Weight of the instantaneous frequency's loss beside that of the magnitude."""
    kl_weight: float = 2e-3
    """Weight of the KL term (a mean over latent dimensions) once warmed up."""
    kl_warmup_epochs: int = 5
    """Epochs over which the KL weight rises from 0."""
    free_bits: float = 0.05
    """Nats a latent dimension may carry before the KL term counts."""
    gradient_clip: float = 1.0
    """Largest gradient norm."""
    patience: int = 20
    """Epochs without a better validation loss before training stops."""
    preview_epochs: int = 10
    """Epochs from one set of previews to the next, beside that of the last epoch; 0: there are none."""
    keep_checkpoints: int = 2
    """How many of the last epochs' checkpoints stay on disk, beside the best."""
    device: Device = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    device_budget_mb: int | None = None
    """The cache's rows are held on the training device up to this size; None: a quarter of a GPU's free memory."""
    seed: int = 0
    """Seed of weights, order of rows and sampling."""

    def __post_init__(self) -> None:
        _check(
            self,
            ("augmentation_expansion", lambda v: 0 <= v <= 1000, "from 0 to 1000"),
            ("chunk_samples", lambda v: v >= 1, "at least 1"),
            ("val_fraction", lambda v: 0 < v < 1, "above 0 and below 1"),
            ("latent_dim", lambda v: 1 <= v <= 4096, "from 1 to 4096"),
            ("batch_size", lambda v: v >= 1, "at least 1"),
            ("epochs", lambda v: v >= 1, "at least 1"),
            ("learning_rate", lambda v: 0 < v <= 1, "above 0 and at most 1"),
            ("weight_decay", lambda v: v >= 0, "at least 0"),
            ("dropout", lambda v: 0 <= v < 1, "at least 0 and below 1"),
            ("shifted_share", lambda v: 0 <= v <= 1, "from 0 to 1"),
            ("if_weight", lambda v: v >= 0, "at least 0"),
            ("kl_weight", lambda v: v >= 0, "at least 0"),
            ("kl_warmup_epochs", lambda v: v >= 0, "at least 0"),
            ("free_bits", lambda v: v >= 0, "at least 0"),
            ("gradient_clip", lambda v: v > 0, "above 0"),
            ("patience", lambda v: v >= 1, "at least 1"),
            ("preview_epochs", lambda v: v >= 0, "at least 0"),
            ("keep_checkpoints", lambda v: v >= 1, "at least 1"),
            ("device_budget_mb", lambda v: v >= 0, "at least 0"),
            ("device", _is_device, "auto, cpu, cuda, cuda:N or mps"),
            ("seed", lambda v: 0 <= v < 2**63, "from 0 to 2**63 - 1"),
        )
        _report(self._faults_between_fields())

    def _faults_between_fields(self) -> list[str]:
        features = self.features
        numbers = (self.chunk_samples, features.n_fft)
        if not all(isinstance(number, int) for number in numbers) or self.chunk_samples > features.n_fft // 2:
            return []
        return [f"chunk_samples={self.chunk_samples} must be above n_fft/2 = {features.n_fft // 2}"]

    def identity(self, augmentation_expansion: int) -> dict[str, Any]:
        """`feature_identity` of the rows that this makes, with so many variants a chunk."""
        features = self.complex_spectrogram
        rows = (augmentation_expansion, self.chunk_samples, features.sample_rate, self.normalize, self.cache_dtype)
        return feature_identity(features, self.augmentation, *rows)

    @property
    def features(self) -> SpectrogramConfig:
        """The configuration of the feature that is trained on."""
        return self.complex_spectrogram if self.complex_spectrogram.enabled else self.spectrogram


def _is_device(name: str) -> bool:
    kind, _, index = name.partition(":")
    return kind in ("auto", "cpu", "cuda", "mps") and (not index or (kind == "cuda" and index.isdigit()))


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "quick": {"epochs": 8, "augmentation_expansion": 0, "latent_dim": 64},
    "large": {"model_size": "large", "latent_dim": 256, "patience": 40},
}
"""Named sets of TrainingConfig values: `quick` shows in a minute what a folder holds, `large` is for a GPU."""


def config_from_dict(values: Mapping[str, Any], base: TrainingConfig | None = None) -> TrainingConfig:
    """TrainingConfig from nested mappings, as TOML gives them.

    Parameters
    ----------
    values : mapping
        Field names to values; tables for the nested configurations.
    base : TrainingConfig, optional
        Where fields that `values` leaves out come from. Default: ``TrainingConfig()``.

    Raises
    ------
    ConfigError
        All faults at once: unknown keys with the nearest known one, wrong types, values out of range.
    """
    with collecting_faults():
        return _replace(base or TrainingConfig(), values, "")


def _replace(config: Any, values: Mapping[str, Any], prefix: str) -> Any:
    token = _prefix.set(prefix)
    try:
        return dataclasses.replace(config, **_changes(config, values))
    finally:
        _prefix.reset(token)


def _changes(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    names = [item.name for item in dataclasses.fields(config)]
    changes: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            near, table = difflib.get_close_matches(key, names, 1), _prefix.get()
            hint = f"; did you mean {table + near[0]!r}?" if near else ""
            _report([f"unknown key {table + key!r}{hint}"], prefixed=False)
        elif dataclasses.is_dataclass(getattr(config, key)):
            if isinstance(value, Mapping):
                changes[key] = _replace(getattr(config, key), value, f"{key}.")
            else:
                _report([f"{key}={value!r} must be a table of fields"])
        else:
            changes[key] = value
    return changes


def config_to_toml(config: TrainingConfig) -> str:
    """`config` as TOML that `config_from_dict` reads back to an equal value; fields that are None are left out."""
    lines: list[str] = []
    tables: list[str] = []
    for name, value in dataclasses.asdict(config).items():
        if isinstance(value, dict):
            tables += ["", f"[{name}]", *(_toml_line(key, entry) for key, entry in value.items() if entry is not None)]
        elif value is not None:
            lines.append(_toml_line(name, value))
    return "\n".join([*lines, *tables, ""])


def _toml_line(name: str, value: Any) -> str:
    # JSON's numbers, booleans and ASCII strings are TOML's too.
    return f"{name} = {json.dumps(value)}"


def feature_identity(
    complex_spectrogram: ComplexSpectrogramConfig,
    augmentation: AugmentationConfig | None,
    augmentation_expansion: int,
    chunk_samples: int,
    sample_rate: int,
    normalize: Normalize,
    cache_dtype: CacheDtype,
) -> dict[str, Any]:
    """All that decides a row of features beside the file's content, as plain JSON values.

    `enabled` is left out (it chooses the path, not the numbers), and so is the augmentation when no variant is made.
    """
    features = dataclasses.asdict(complex_spectrogram)
    del features["enabled"]
    augmented = augmentation_expansion > 0
    return {
        "complex_spectrogram_config": features,
        "augmentation_config": dataclasses.asdict(augmentation or AugmentationConfig()) if augmented else None,
        "augmentation_expansion": augmentation_expansion,
        "chunk_samples": chunk_samples,
        "sample_rate": sample_rate,
        "normalize": normalize,
        "dtype": cache_dtype,
    }
