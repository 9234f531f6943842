"""Configuration: frozen dataclasses that check themselves, presets, TOML, and the values that decide a feature."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from distill.device import DEVICE_NAMES, is_device_name
from distill.errors import ConfigError
from distill.faults import (
    Rule,
    at_least,
    between,
    check_fields,
    choice_fault,
    collecting_faults,
    replace_fields,
    report_faults,
)
from distill.front_ends import FRONT_ENDS, FrontEnd

MelScale = Literal["htk", "slaney"]
Compression = Literal["log1p", "log", "log10", "db", "none"]
Normalize = Literal["file", "chunk", "none"]
CacheDtype = Literal["float32", "float16"]
Partial = Literal["use", "skip"]

_Spectrogram = TypeVar("_Spectrogram", bound="SpectrogramConfig")


def count_frames(samples: int, n_fft: int, hop_length: int, *, center: bool) -> int:
    """Return the number of frames of a waveform of `samples` samples, `least_samples` or more."""
    return (samples if center else samples - n_fft) // hop_length + 1


def least_samples(n_fft: int, *, center: bool) -> int:
    """Return the number of samples of the shortest waveform that has features."""
    return n_fft // 2 + 1 if center else n_fft


@dataclass(frozen=True)
class SpectrogramConfig:
    """The one-channel feature: a log-mel spectrogram. `docs/feature.md` has the formula of each option.

    Examples
    --------
    >>> from distill.audio import SpectrogramConfig
    >>> config = SpectrogramConfig(sample_rate=16_000, n_fft=512, hop_length=128, n_mels=64)
    >>> config.row_shape(chunk_samples=16_000)
    (1, 64, 126)
    """

    channels: ClassVar[int] = 1

    sample_rate: int = 48_000
    """Sample rate in Hz; files with another one are resampled."""
    n_fft: int = 2048
    """Frame length and DFT size, in samples; even. Powers of two are fastest."""
    hop_length: int = 512
    """Step from one frame to the next, in samples."""
    n_mels: int = 128
    """Number of mel bands."""
    f_min: float = 0.0
    """Lower edge of the lowest band, in Hz."""
    f_max: float | None = None
    """Upper edge of the highest band, in Hz; None: half of sample_rate."""
    mel_scale: MelScale = field(default="htk", kw_only=True)
    """The mel scale: of HTK, logarithmic from 700 Hz on, or of Slaney's Auditory Toolbox, linear up to 1000 Hz."""
    norm: Literal["slaney"] | None = field(default=None, kw_only=True)
    """None: the peak of each band is 1; slaney: its area over Hz is 1."""
    win_length: int | None = field(default=None, kw_only=True)
    """Length of the Hann window, in samples, with zeros on both sides up to n_fft; None: n_fft."""
    center: bool = field(default=True, kw_only=True)
    """Centre frames at multiples of hop_length, with the sound reflected at its ends; off: the first frame begins with
    the sound, and the last one lies inside it."""
    power: int = field(default=2, kw_only=True)
    """What channel 0 adds up over the bins of a band: 2, their power; 1, their magnitude."""
    compression: Compression = field(default="log1p", kw_only=True)
    """What is done to the sums of channel 0: log1p; the natural logarithm; log10; db, 10 times log10 of a power and 20
    times log10 of a magnitude; or none."""
    floor: float = field(default=1e-10, kw_only=True)
    """Sums below it count as it in log, log10 and db."""

    def __post_init__(self) -> None:
        power: Any = self.power
        if isinstance(power, float) and power.is_integer():  # as torchaudio and librosa have it
            object.__setattr__(self, "power", int(power))
        check_fields(self, self._rules())

    def _rules(self) -> dict[str, Rule]:
        # Other fields are not at fault for one that is not a number.
        n_fft, f_min = _number(self.n_fft, sys.maxsize), _number(self.f_min, -math.inf)
        n_bins, nyquist = n_fft // 2 + 1, _number(self.sample_rate, math.inf) / 2
        return {
            "sample_rate": Rule(lambda v: 1_000 <= v <= 768_000, "from 1000 to 768000 Hz"),
            "n_fft": Rule(lambda v: 32 <= v <= 65_536 and v % 2 == 0, "even, from 32 to 65536"),
            "hop_length": Rule(lambda v: 1 <= v <= n_fft, f"from 1 to n_fft={n_fft}"),
            "n_mels": Rule(lambda v: 1 <= v <= n_bins, f"from 1 to {n_bins} (n_fft/2 + 1)"),
            "f_min": Rule(lambda v: 0 <= v < nyquist, f"from 0 to below {nyquist:g} Hz (half of sample_rate)"),
            "f_max": Rule(lambda v: f_min < v <= nyquist, f"above f_min={f_min} and at most {nyquist:g} Hz"),
            "win_length": Rule(lambda v: 2 <= v <= n_fft, f"from 2 to n_fft={n_fft}"),
            "power": Rule(lambda v: v in (1, 2), "1 or 2"),
            # Its logarithm is computed in float32.
            "floor": between(1e-30, 1.0),
        }

    @classmethod
    def preset(cls: type[_Spectrogram], name: FrontEnd, **changes: Any) -> _Spectrogram:
        """Return the feature of a known front end.

        Parameters
        ----------
        name : {"hifigan", "whisper", "torchaudio", "librosa"}
            A key of `FRONT_ENDS`, which says what each is and what its caller does besides.
        **changes
            Fields with other values, such as ``n_mels=128`` for the large models of Whisper.

        Raises
        ------
        ConfigError
            If there is no such front end, or a field has no such value.

        Examples
        --------
        >>> from distill.audio import SpectrogramConfig
        >>> SpectrogramConfig.preset("whisper").n_fft
        400
        """
        if fault := choice_fault("preset", name, list(FRONT_ENDS)):
            raise ConfigError([fault])
        fields = [item.name for item in dataclasses.fields(cls)]
        if faults := [fault for key in changes if (fault := choice_fault("field", key, fields))]:
            raise ConfigError(faults)
        return cls(**{**FRONT_ENDS[name], **changes})

    @property
    def least_samples(self) -> int:
        """Samples of the shortest waveform that has features."""
        return least_samples(self.n_fft, center=self.center)

    def n_frames(self, samples: int) -> int:
        """Return the number of frames T of a waveform of `samples` samples, `least_samples` or more."""
        return count_frames(samples, self.n_fft, self.hop_length, center=self.center)

    def row_shape(self, chunk_samples: int) -> tuple[int, int, int]:
        """Return the shape (channels, M, T) of the features of a chunk."""
        return (self.channels, self.n_mels, self.n_frames(chunk_samples))

    def training_fault(self) -> str | None:
        """Return why no model can be trained on this feature, or None.

        A model's loss, its levels and its sound are those of log1p of the power of a band, with centred frames.
        """
        defaults, names = SpectrogramConfig(), ("norm", "win_length", "center", "power", "compression")
        pairs = [(name, getattr(defaults, name), getattr(self, name)) for name in names]
        others = [f"{name}={needed} (not {value!r})" for name, needed, value in pairs if value != needed]
        return f"training needs {', '.join(others)}" if others else None


# Fields that came later. At their default, files and fingerprints leave them out, so that those of earlier versions
# stay valid.
_LATER = frozenset(item.name for item in dataclasses.fields(SpectrogramConfig) if item.kw_only)


def spectrogram_fields(config: SpectrogramConfig) -> dict[str, Any]:
    """Return the fields of a feature as they are kept in files: without options that have their default."""
    defaults = SpectrogramConfig()
    return {
        name: value
        for name, value in dataclasses.asdict(config).items()
        if name not in _LATER or value != getattr(defaults, name)
    }


def _number(value: Any, default: float) -> Any:
    # An integer may be too large for a float.
    return value if isinstance(value, (int, float)) and abs(value) <= sys.float_info.max else default


@dataclass(frozen=True)
class ComplexSpectrogramConfig(SpectrogramConfig):
    """The two-channel feature: log-mel magnitude and instantaneous frequency.

    Examples
    --------
    >>> from distill.audio import ComplexSpectrogramConfig
    >>> ComplexSpectrogramConfig(n_mels=256).row_shape(chunk_samples=48_000)
    (2, 256, 94)
    """

    channels: ClassVar[int] = 2

    enabled: bool = field(default=True, kw_only=True)
    """Train on both channels, from the cache; off: on the magnitude only, without a cache (as in v1.0)."""
    if_masking_threshold: float = field(default=1e-5, kw_only=True)
    """Instantaneous frequency is set to 0 where the power of a band is at most this."""

    def _rules(self) -> dict[str, Rule]:
        return super()._rules() | {"if_masking_threshold": at_least(0)}


@dataclass(frozen=True)
class AugmentationConfig:
    """Ranges of the random changes that make augmented variants of a chunk; 0 turns a change off.

    Examples
    --------
    >>> from distill.audio import AugmentationConfig
    >>> AugmentationConfig(noise_db=0, speed=0)  # gain and shift in time only
    AugmentationConfig(gain_db=6.0, noise_db=0, speed=0, pitch_semitones=0.0, time_shift_s=0.1)
    """

    gain_db: float = 6.0
    """Gain: between -gain_db and 0 dB, so that nothing clips."""
    noise_db: float = 50.0
    """White noise, between noise_db and noise_db + 20 dB below the level of the chunk; 0: no noise."""
    speed: float = 0.06
    """Playback speed, which changes pitch and tempo together: a factor between 1 - speed and 1 + speed."""
    pitch_semitones: float = 0.0
    """Pitch shift at the same tempo: up to this many semitones up or down; needs python-stretch."""
    time_shift_s: float = 0.1
    """Shift in time inside the chunk: up to this many seconds earlier or later; the gap is silent."""

    def __post_init__(self) -> None:
        rules = {
            "gain_db": between(0, 60),
            "noise_db": Rule(lambda v: v == 0 or 10 <= v <= 120, "0 or from 10 to 120"),
            "speed": between(0, 0.5),
            "pitch_semitones": between(0, 24),
            "time_shift_s": between(0, 60),
        }
        check_fields(self, rules)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the result of a training run; fields that are None are chosen to fit the dataset.

    Examples
    --------
    >>> from distill.audio import ComplexSpectrogramConfig
    >>> from distill.training import TrainingConfig
    >>> config = TrainingConfig(ComplexSpectrogramConfig(n_mels=256), model_size="large", epochs=100)
    >>> config.features.n_mels, config.latent_dim
    (256, 128)
    """

    complex_spectrogram: ComplexSpectrogramConfig = field(default_factory=ComplexSpectrogramConfig)
    """The two-channel feature."""
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    """The one-channel feature, used if complex_spectrogram.enabled is off."""
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    """Random changes that make the augmented variants of a chunk."""
    augmentation_expansion: int | None = None
    """Augmented variants of each chunk, besides the original; None: as in the cache, or for a new one 4 up to 1000
    files, 0 above."""
    chunk_samples: int = 48_000
    """Length of a chunk, in samples."""
    normalize: Normalize = "file"
    """Scale the peak to 1: of each file, of each chunk, or not at all."""
    partial: Partial = "use"
    """Files that can only be decoded in part, because they are cut short or damaged: use that part, or skip them."""
    cache_dtype: CacheDtype = "float32"
    """Number format of features on disk; float16 takes half the space."""
    split_by: Literal["chunk", "file"] = "chunk"
    """Hold out single chunks or whole files for validation."""
    val_fraction: float = 0.15
    """Fraction of the chunks (or files) held out for validation."""
    model_size: Literal["small", "medium", "large"] = "small"
    """Width of the convolutions: 16, 32 or 48 base channels."""
    latent_dim: int = 128
    """Size of a latent vector; the linear path uses fewer dimensions than there are vectors in the training rows."""
    latent_frames: int = 8
    """Frames that a latent vector stands for, 4, 8 or 16, so that a chunk has a sequence of them; 0: one vector for a
    chunk."""
    batch_size: int | None = None
    """Rows per step; None: 16 below 2000 training rows, 32 below 20000, else 64."""
    epochs: int | None = None
    """Maximum number of epochs; None: as many as fit in 6000 steps, but 10 to 200."""
    learning_rate: float = 2e-3
    """Peak learning rate of AdamW; it follows a short warm-up, and a cosine down to 1 % of the peak."""
    weight_decay: float | None = None
    """Weight decay of AdamW; None: 0.1 below 2000 training rows, else 0.01."""
    dropout: float | None = None
    """Dropout in the convolutional path; None: 0.1 below 2000 training rows, else 0."""
    shifted_share: float = 0.5
    """Chance that a step shifts a training row in time (up to 40 % of a chunk) and in mel (up to 1 in 64 bands)."""
    if_weight: float = 0.5
    """Weight of the instantaneous frequency in the loss; that of the magnitude is 1."""
    loud_share: float = 0.5
    """Share of the magnitude's error that is weighted by loudness; the rest is weighted equally."""
    kl_weight: float = 2e-3
    """Weight of the KL term (mean over latent dimensions) after its warm-up."""
    kl_warmup_epochs: int = 5
    """Epochs in which the KL weight rises from 0."""
    free_bits: float = 0.05
    """KL in nats that each latent dimension may have at no cost."""
    gradient_clip: float = 1.0
    """Gradients with a larger norm are scaled down to this one."""
    patience: int = 20
    """Early stopping: epochs without a lower validation loss before training ends."""
    preview_epochs: int = 10
    """Write previews every so many epochs, and after the last; 0: never."""
    keep_checkpoints: int = 2
    """Number of latest checkpoints to keep, besides the best."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    shuffle: Literal["auto", "rows", "blocks"] = "auto"
    """Shuffle all rows at once, or blocks of rows that are stored together, which a disk reads much faster; auto:
    blocks if the features do not fit into memory, else rows."""
    device_budget_mb: int | None = None
    """Keep training data on the device if it takes at most this many MB; None: a quarter of a GPU's free memory."""
    seed: int = 0
    """Seed of weights, shuffling and sampling."""

    def __post_init__(self) -> None:
        rules = {
            "augmentation_expansion": between(0, 1000),
            "chunk_samples": at_least(1),
            "val_fraction": Rule(lambda v: 0 < v < 1, "above 0 and below 1"),
            "latent_dim": between(1, 4096),
            "latent_frames": Rule(lambda v: v in (0, 4, 8, 16), "0, 4, 8 or 16"),
            "batch_size": at_least(1),
            "epochs": at_least(1),
            "learning_rate": Rule(lambda v: 0 < v <= 1, "above 0 and at most 1"),
            "weight_decay": at_least(0),
            "dropout": Rule(lambda v: 0 <= v < 1, "at least 0 and below 1"),
            "shifted_share": between(0, 1),
            "if_weight": at_least(0),
            "loud_share": between(0, 1),
            "kl_weight": at_least(0),
            "kl_warmup_epochs": at_least(0),
            "free_bits": at_least(0),
            "gradient_clip": Rule(lambda v: v > 0, "above 0"),
            "patience": at_least(1),
            "preview_epochs": at_least(0),
            "keep_checkpoints": at_least(1),
            "device_budget_mb": at_least(0),
            "device": Rule(is_device_name, DEVICE_NAMES),
            "seed": Rule(lambda v: 0 <= v < 2**63, "from 0 to 2**63 - 1"),
        }
        check_fields(self, rules)
        if self.cache_dtype == "float16" and self.complex_spectrogram.compression == "none":
            report_faults(["cache_dtype='float16' cannot hold compression='none': band powers exceed 65504"])
        chunk_samples, n_fft = self.chunk_samples, _number(self.features.n_fft, 0)
        if isinstance(chunk_samples, int) and self.features.center is False and chunk_samples < n_fft:
            report_faults([f"chunk_samples={chunk_samples} must be at least n_fft = {n_fft}, without center"])
        elif isinstance(chunk_samples, int) and chunk_samples <= n_fft // 2:
            report_faults([f"chunk_samples={chunk_samples} must be above n_fft/2 = {n_fft // 2}"])

    @property
    def features(self) -> SpectrogramConfig:
        """The feature that the model is trained on."""
        return self.complex_spectrogram if self.complex_spectrogram.enabled else self.spectrogram

    def identity(self, augmentation_expansion: int) -> dict[str, Any]:
        """Return `feature_identity` of this configuration, with this many augmented variants of each chunk."""
        return feature_identity(
            self.complex_spectrogram,
            self.augmentation,
            augmentation_expansion,
            self.chunk_samples,
            self.complex_spectrogram.sample_rate,
            self.normalize,
            self.cache_dtype,
            self.partial,
        )


PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "quick": {"epochs": 8, "augmentation_expansion": 0},
    "large": {"model_size": "large", "latent_dim": 256, "patience": 40},
}
"""Named values of TrainingConfig fields: `quick` for a first impression in a minute, `large` for a GPU."""


def config_from_dict(values: Mapping[str, Any], base: TrainingConfig | None = None) -> TrainingConfig:
    """Return the TrainingConfig with the values of nested mappings, such as TOML gives.

    Parameters
    ----------
    values : mapping
        Field names to values, with a mapping for each nested configuration.
    base : TrainingConfig, optional
        Where the fields that `values` lacks come from. Default: ``TrainingConfig()``.

    Raises
    ------
    ConfigError
        With all faults at once: unknown keys and the nearest known one, wrong types, values out of range.
    """
    with collecting_faults():
        return replace_fields(base or TrainingConfig(), values)


def config_to_toml(config: TrainingConfig) -> str:
    """Return `config` as TOML from which `config_from_dict` makes an equal one; fields that are None are left out."""
    lines: list[str] = []
    tables: list[str] = []
    for name in (item.name for item in dataclasses.fields(config)):
        value = getattr(config, name)
        if isinstance(value, SpectrogramConfig):
            value = spectrogram_fields(value)
        elif isinstance(value, AugmentationConfig):
            value = dataclasses.asdict(value)
        if isinstance(value, dict):
            tables += ["", f"[{name}]", *(_toml_line(key, entry) for key, entry in value.items() if entry is not None)]
        elif value is not None:
            lines.append(_toml_line(name, value))
    return "\n".join([*lines, *tables, ""])


def _toml_line(name: str, value: Any) -> str:
    # Numbers, booleans and ASCII strings are written alike in JSON and TOML.
    return f"{name} = {json.dumps(value)}"


def feature_identity(
    complex_spectrogram: ComplexSpectrogramConfig,
    augmentation: AugmentationConfig | None,
    augmentation_expansion: int,
    chunk_samples: int,
    sample_rate: int,
    normalize: Normalize,
    cache_dtype: CacheDtype,
    partial: Partial = "use",
) -> dict[str, Any]:
    """Return all that decides a row of features, besides the content of the audio file, as plain JSON values.

    Leaves out `enabled`, which does not change the numbers, the augmentation if there are no augmented variants, and
    options of the feature and `partial` if they have their default, so that caches of versions without them stay valid.
    """
    features = spectrogram_fields(complex_spectrogram)
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
    } | ({} if partial == "use" else {"partial": partial})
