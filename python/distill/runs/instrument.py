"""A trained run as an instrument: sound to latent vectors, and latent vectors to sound."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.audio.windows import WindowedWaveform
from distill.config import TrainingConfig
from distill.errors import RunError
from distill.features.inversion.crossfade import fade_ends, invert_in_segments, join_windows
from distill.features.inversion.limits import limit_features
from distill.features.level import change_level, level_of
from distill.features.normalization import denormalize, normalize
from distill.features.spectrogram import AudioSpectrogram, ComplexSpectrogram
from distill.models.density import LatentDensity
from distill.models.vae import ConvVAE
from distill.runs.trained import TrainedRun
from distill.types import PathLike

BATCH_WINDOWS = 32
# Long enough to avoid a click, too short to soften an attack.
_FADE_S = 0.001


class Instrument:
    """A trained model that encodes sound, decodes latent vectors, and plays them as sound.

    A sound of any length is a sequence of latent vectors, along which windows of the model move. Each window is as long
    as a chunk, and shares about a quarter of its frames, and their latent vectors, with the next one. The features of
    the windows are cross-faded before they are inverted, so that one phase runs through the whole sound (see
    docs/notes/sound.md).

    Several threads may use an instrument at once: nothing in it changes.

    Parameters
    ----------
    model : ConvVAE
        The model, in eval mode.
    config : TrainingConfig
        The configuration that it was trained with.
    stats : dict
        Mean and standard deviation of each channel, with which its features are normalised.
    level : dict, optional
        Levels of the model; see `TrainedRun`. Default: None, its output is not raised.

    Attributes
    ----------
    model, config, stats
        As above.
    sample_rate : int
        Sample rate of all sound that goes in or comes out, Hz.
    hop_length : int
        Hop of the features, samples.
    n_frames : int
        Frames of a window.
    shared_frames : int
        Frames that a window shares with the next one.
    step_samples : int
        Samples from the start of a window to the start of the next one.
    step_latents : int
        Latent vectors from the start of a window to the start of the next one.
    density : LatentDensity
        The density that latent samples are drawn from.

    Raises
    ------
    ValueError
        If model, configuration and statistics do not fit each other.

    Examples
    --------
    >>> from distill.audio import load_audio
    >>> from distill.runs import Instrument
    >>> instrument = Instrument.load("runs/first", device="cpu")
    >>> waveform = load_audio("recordings/bell.wav", instrument.sample_rate)
    >>> latents = instrument.encode_waveform(waveform)
    >>> sound = instrument.decode_latents(latents, samples=waveform.shape[-1])
    >>> sound.shape == waveform.shape
    True
    """

    def __init__(
        self, model: ConvVAE, config: TrainingConfig, stats: dict[str, float], level: dict[str, Any] | None = None
    ) -> None:
        is_complex = config.complex_spectrogram.enabled
        self.spectrogram: ComplexSpectrogram | AudioSpectrogram = (
            ComplexSpectrogram(config.complex_spectrogram) if is_complex else AudioSpectrogram(config.spectrogram)
        )
        self.config, self.model, self.stats = config, model, stats
        feature = config.features
        self.sample_rate, self.hop_length = feature.sample_rate, feature.hop_length
        self.n_frames = feature.n_frames(config.chunk_samples)
        self._check_fit((2 if is_complex else 1, feature.n_mels, self.n_frames))
        self.step_latents, step_frames = 1, self.n_frames - self.n_frames // 4
        if model.n_latents > 1:
            self.step_latents = max(1, min(round(step_frames / model.patch_frames), model.n_latents - 1))
            step_frames = self.step_latents * model.patch_frames
        self.shared_frames = self.n_frames - step_frames
        self.step_samples = (self.n_frames - self.shared_frames) * self.hop_length
        self.density = LatentDensity(model.latents)
        self._device = next(model.parameters()).device
        self._gain_db: float = level["gain_db"] if level else 0.0
        self._rows_db: list[float] = level["rows_db"] if level else []

    def _check_fit(self, row_shape: tuple[int, int, int]) -> None:
        if row_shape != self.model.row_shape:
            raise ValueError(
                f"the model's rows are {list(self.model.row_shape)}, those of the configuration {list(row_shape)}"
            )
        channels = ("mag", "if")[: row_shape[0]]
        missing = {f"{name}_{figure}" for name in channels for figure in ("mean", "std")} - self.stats.keys()
        if missing:
            raise ValueError(f"the statistics lack {', '.join(sorted(missing))}")

    @classmethod
    def load(cls, run_dir: PathLike, device: str = "auto") -> Instrument:
        """Load the instrument of a run folder.

        Parameters
        ----------
        run_dir : path
            The run folder.
        device : str
            Device of the model: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".

        Raises
        ------
        RunError
            If the folder holds no run with a trained model, or its files do not fit each other.
        DeviceError
            If the machine has no such device.
        """
        run = TrainedRun.load(run_dir, device)
        try:
            return cls(run.model, run.config, run.stats, run.level)
        except ValueError as error:
            raise RunError(
                f"{run.path}: config.toml does not fit model.json: {error}",
                "put back the config.toml that the run was trained with",
            ) from error

    def count_windows(self, samples: int) -> int:
        """Return the number of windows in a sound of `samples` samples."""
        after_first = self.config.features.n_frames(samples) - self.n_frames
        return 1 + max(0, -(-after_first // (self.n_frames - self.shared_frames)))

    def count_latents(self, windows: int) -> int:
        """Return the number of latent vectors of a sound of that many windows."""
        return self.model.n_latents + (windows - 1) * self.step_latents

    def split_latents(self, latents: Tensor) -> Tensor:
        """Return the latent vectors of each window, [N, L, k], of those of a sound, [count_latents(N), k]."""
        return latents.unfold(0, self.model.n_latents, self.step_latents).mT

    def join_latents(self, windows: Tensor) -> Tensor:
        """Cross-fade the latent vectors of windows, [N, L, k], to those of a sound, [count_latents(N), k]."""
        shared = self.model.n_latents - self.step_latents
        parts = join_windows([windows.mT[:, None]], shared)
        return torch.cat(list(parts), dim=-1)[0].mT

    def encode_waveform(self, waveform: Tensor | np.ndarray) -> Tensor:
        """Return the latent vectors of a sound.

        It is treated like a file of the dataset: without its constant offset, and with the level that files have.

        Parameters
        ----------
        waveform : torch.Tensor or ndarray
            Shape (S,) or (1, S), mono, any floating type, at `sample_rate`, as from
            ``load_audio(path, instrument.sample_rate)``.

        Returns
        -------
        torch.Tensor
            Shape (L, k): posterior means, about one vector for each `step_samples / step_latents` samples.

        Raises
        ------
        ValueError
            If shape or type is wrong, a sample is not finite, or nothing in it can be heard.

        Examples
        --------
        >>> from distill.audio import load_audio
        >>> from distill.runs import Instrument
        >>> instrument = Instrument.load("runs/first", device="cpu")
        >>> latents = instrument.encode_waveform(load_audio("recordings/bell.wav", instrument.sample_rate))
        >>> latents.shape
        torch.Size([..., 128])
        """
        samples = _as_samples(waveform)
        config = self.config
        sound = WindowedWaveform(samples, config.chunk_samples, self.step_samples, config.normalize)
        windows = sound.batches(self.count_windows(sound.samples), BATCH_WINDOWS)
        return self.join_latents(torch.cat([self.encode(self.features(part.waveforms)) for part in windows]))

    def decode_latents(self, latents: Tensor | np.ndarray, samples: int | None = None) -> Tensor:
        """Return the sound of latent vectors: the inverse of `encode_waveform`, up to what the model loses.

        Parameters
        ----------
        latents : torch.Tensor or ndarray
            Shape (L, k), as from `encode_waveform`, or changed.
        samples : int, optional
            Length S of the sound. Default: that of the windows which the vectors stand for.

        Returns
        -------
        torch.Tensor
            Shape (1, S), float32, on the CPU, at `sample_rate`. Peaks may exceed 1.

        Raises
        ------
        ValueError
            If the shape is wrong, or the number of vectors is not one that a sound has.

        Examples
        --------
        >>> from distill.runs import Instrument
        >>> instrument = Instrument.load("runs/first", device="cpu")
        >>> mean = instrument.model.latents.mean(dim=0)  # [L, k], of the training rows
        >>> instrument.decode_latents(mean, samples=48_000).shape
        torch.Size([1, 48000])
        """
        latents = torch.as_tensor(latents, dtype=torch.float32)
        count = len(latents) if latents.ndim else 0
        windows, rest = divmod(count - self.model.n_latents, self.step_latents)
        if latents.ndim != 2 or latents.shape[1] != self.model.latent_dim or windows < 0 or rest:
            expected = f"[{self.model.n_latents} + n * {self.step_latents}, {self.model.latent_dim}]"
            raise ValueError(f"latent vectors of shape {list(latents.shape)} must be {expected}, n from 0")
        whole = windows * self.step_samples + (self.n_frames - 1) * self.hop_length
        samples = whole if samples is None else operator.index(samples)
        if not 1 <= samples <= whole + self.hop_length:
            raise ValueError(f"samples={samples} must be from 1 to {whole}, what {len(latents)} vectors stand for")
        return torch.from_numpy(np.concatenate(list(self.play(latents, samples))))[None]

    @torch.no_grad()
    def features(self, waveforms: Tensor | np.ndarray) -> Tensor:
        """Compute the features [B, C, M, T] of windows [B, 1, S], before normalisation."""
        return self.spectrogram(torch.as_tensor(waveforms).to(self._device))

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Return the posterior means [B, L, k] of features [B, C, M, T] before normalisation."""
        return self.model.encode(normalize(features.to(self._device), self.stats))[0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Decode latent vectors [B, L, k] to features [B, C, M, T] before normalisation, limited to possible values.

        Their power is raised by the gain that was measured when the model was saved.
        """
        features = denormalize(self.model.decode(z.to(self._device)), self.stats)
        if not features.isfinite().all():
            raise RunError("the model gives features that are not finite", "train it again, or use another run")
        return change_level(limit_features(features, self.stats["mag_std"]), self._gain_db)

    @cached_property
    def anchor_levels(self) -> Tensor:
        """Levels of the training rows that the anchors of `density` come from, dB, [K]; if unknown, as they decode."""
        count = len(self.density.anchors)
        if self._rows_db:
            return torch.tensor(self._rows_db, dtype=torch.float32)[torch.arange(count) % len(self._rows_db)]
        return torch.cat([level_of(self.decode(z)).cpu() for z in self.model.latents[:count].split(BATCH_WINDOWS)])

    def join(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """Cross-fade the features of consecutive windows, batches [b, C, M, T], to a stream of parts [C, M, n]."""
        return join_windows(batches, self.shared_frames)

    def to_sound(self, features: Iterable[Tensor], samples: int, fade_out_s: float = _FADE_S) -> Iterator[np.ndarray]:
        """Invert a stream of features [C, M, n] to blocks [n] of a waveform, `samples` in all."""
        blocks = invert_in_segments(features, self.spectrogram, samples, self.hop_length, self.config.features.n_fft)
        rise, fall = (round(fade_s * self.sample_rate) for fade_s in (_FADE_S, fade_out_s))
        return (block.cpu().numpy() for block in fade_ends(blocks, samples, rise, fall))

    def play(self, latents: Tensor, samples: int, fade_out_s: float = _FADE_S) -> Iterator[np.ndarray]:
        """Decode the latent vectors of a sound, [S, k], to blocks [n] of a waveform, `samples` in all."""
        batches = (self.decode(z) for z in self.split_latents(latents).split(BATCH_WINDOWS))
        return self.to_sound(self.join(batches), samples, fade_out_s)


def _as_samples(waveform: Tensor | np.ndarray) -> np.ndarray:
    """Return a mono waveform (S,) or (1, S) as an array [S], float32."""
    tensor = torch.as_tensor(waveform).detach()
    if not tensor.is_floating_point() or tensor.ndim not in (1, 2) or (tensor.ndim == 2 and len(tensor) != 1):
        found = f"waveform of shape {list(tensor.shape)} and type {tensor.dtype}"
        raise ValueError(f"{found} must be mono, [S] or [1, S], of floats")
    return tensor.reshape(-1).cpu().float().contiguous().numpy()
