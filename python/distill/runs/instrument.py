"""A trained run as an instrument: sound to latent vectors, and latent vectors to sound."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.errors import RunError
from distill.features.inversion.crossfade import fade_ends, invert_in_segments, join_windows
from distill.features.inversion.limits import limit_features
from distill.features.normalization import denormalize, normalize
from distill.features.spectrogram import AudioSpectrogram, ComplexSpectrogram
from distill.models.density import LatentDensity
from distill.models.store import load_description, load_model
from distill.models.vae import ConvVAE
from distill.runs.folder import RunFolder

BATCH_WINDOWS = 32
# The attack is left as it is but for its first samples.
_FADE_S = 0.001
_MISFIT_TIP = "put back the config.toml that the run was trained with"


class Synthesizer:
    """A model with what feeds it and what makes its output sound.

    A sound is a row of windows, each of a chunk's length, a quarter of which is shared with the next. Features of
    windows are joined before they become sound: with a phase of its own for each window, features alone lose 3 to 20
    times as much at the seams. How much is shared hardly matters there; with a quarter, features of a walk
    change no faster at a seam than elsewhere, and with an eighth they do.

    Parameters
    ----------
    model : ConvVAE
        In eval mode.
    config : TrainingConfig
        What it was trained with.
    stats : dict
        The statistics that its features are normalised with.

    Attributes
    ----------
    model, config, stats
        As above.
    sample_rate : int
        Hz, of all sound that goes in or comes out.
    step_samples : int
        From the start of a window to that of the next.
    density : LatentDensity
        What latent vectors of samples are drawn from.

    Raises
    ------
    ValueError
        If model, configuration and statistics do not fit each other.
    """

    def __init__(self, model: ConvVAE, config: TrainingConfig, stats: dict[str, float]) -> None:
        is_complex = config.complex_spectrogram.enabled
        self.spectrogram: ComplexSpectrogram | AudioSpectrogram = (
            ComplexSpectrogram(config.complex_spectrogram) if is_complex else AudioSpectrogram(config.spectrogram)
        )
        self.config, self.model, self.stats = config, model, stats
        feature = config.features
        self.sample_rate, self.hop_length = feature.sample_rate, feature.hop_length
        row = (2 if is_complex else 1, feature.n_mels, config.chunk_samples // feature.hop_length + 1)
        if row != model.row_shape:
            raise ValueError(f"the model's rows are {list(model.row_shape)}, those of the configuration {list(row)}")
        if (
            missing := {f"{name}_{figure}" for name in ("mag", "if")[: row[0]] for figure in ("mean", "std")}
            - stats.keys()
        ):
            raise ValueError(f"the statistics lack {', '.join(sorted(missing))}")
        self.n_frames = row[2]
        self.fade = self.n_frames // 4
        self.step_samples = (self.n_frames - self.fade) * self.hop_length
        self.density = LatentDensity(model.latents)
        self._device = next(model.parameters()).device

    @classmethod
    def load(cls, run_dir: str | os.PathLike[str], device: str = "auto") -> Synthesizer:
        """The instrument of a run folder.

        Parameters
        ----------
        run_dir : path
            The run folder.
        device : str
            Where the model runs: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".

        Raises
        ------
        RunError
            If this is no run with a trained model.
        DeviceError
            If there is no such device.
        """
        run = RunFolder(run_dir)
        run.dataset()
        config = run.config()
        model = load_model(run_dir, resolve_device(device))
        try:
            return cls(model, config, load_description(run_dir)["statistics"])
        except ValueError as error:
            raise RunError(f"{Path(run_dir)}: {error}", _MISFIT_TIP) from error

    def windows_of(self, samples: int) -> int:
        """How many windows a sound of so many samples takes."""
        beyond = samples // self.hop_length + 1 - self.n_frames
        return 1 + max(0, -(-beyond // (self.n_frames - self.fade)))

    @torch.no_grad()
    def features(self, waveforms: Tensor | np.ndarray) -> Tensor:
        """Features [B, C, M, T] before normalisation of windows [B, 1, S]."""
        return self.spectrogram(torch.as_tensor(waveforms).to(self._device))

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """Mean latent vectors [B, L] of features [B, C, M, T] before normalisation."""
        return self.model.encode(normalize(features.to(self._device), self.stats))[0]

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Features [B, C, M, T] before normalisation, within what features can be, of latent vectors [B, L]."""
        features = denormalize(self.model.decode(z.to(self._device)), self.stats)
        return limit_features(features, self.stats["mag_std"])

    def join(self, rows: Iterable[Tensor]) -> Iterator[Tensor]:
        """Features [C, M, n], bit by bit, of consecutive windows' [b, C, M, T]."""
        return join_windows(rows, self.fade)

    def to_sound(self, features: Iterable[Tensor], samples: int, fade_out_s: float = _FADE_S) -> Iterator[np.ndarray]:
        """Sound [n], bit by bit, `samples` in all, of features [C, M, n] that come bit by bit."""
        blocks = invert_in_segments(features, self.spectrogram, samples, self.hop_length, self.config.features.n_fft)
        rise, fall = (round(fade_s * self.sample_rate) for fade_s in (_FADE_S, fade_out_s))
        return (block.cpu().numpy() for block in fade_ends(blocks, samples, rise, fall))

    def play(self, path: Tensor, samples: int, fade_out_s: float = _FADE_S) -> Iterator[np.ndarray]:
        """Sound [n], bit by bit, `samples` in all, of a latent vector a window, [N, L]."""
        rows = (self.decode(z) for z in path.split(BATCH_WINDOWS))
        return self.to_sound(self.join(rows), samples, fade_out_s)
