"""The features as torch modules: :class:`ComplexSpectrogram` and :class:`AudioSpectrogram`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from distill.config import ComplexSpectrogramConfig, SpectrogramConfig
from distill.errors import BackendError, ConfigError
from distill.features import ops
from distill.features.backend_names import Backend, Computed, resolve_backend
from distill.features.inversion.griffin_lim import invert
from distill.features.mel import MelSpec, mel_bands
from distill.features.reference import complex_mel, is_transformed


class ComplexSpectrogram(nn.Module):
    """Two mel channels of a waveform: log power and instantaneous frequency.

    Channel 0 is ``log1p`` of the mel power, unless options of `config` choose another sum or compression. Channel 1 is
    the energy-weighted mean of the reassigned frequency [1]_ [2]_ over the band, minus the band's centre, divided by
    half the band's support, clamped to ±2. It is 0 where the band's power, the sum of weights times ``|X|²``, is not
    above ``config.if_masking_threshold``, whatever channel 0 is. The window is a periodic Hann window; by default
    frames are centred, with reflect padding. `docs/feature.md` has the formula of each option.

    The module has no parameters and no buffers. It works on the device of its input, and ``half()`` does not change it.
    A program that ``torch.export`` saved needs ``import distill.features.ops`` before ``torch.export.load``; that
    imports torch and numpy only.

    Parameters
    ----------
    config : ComplexSpectrogramConfig, optional
        Sample rate, frames and bands. Default: ``ComplexSpectrogramConfig()``.
    backend : {"auto", "fused", "rust", "reference"}, default "auto"
        What computes the features. "fused": the Triton kernel, or an error with the reason why it cannot. "rust": the
        Rust kernel, likewise. "reference": plain torch, which torch.compile can fuse with other code. "auto": the value
        of the environment variable DISTILL_BACKEND; if it is not set, the Triton kernel on CUDA, the Rust kernel on a
        CPU (the reference if the waveform requires a gradient), and the reference on other devices. If the kernel
        cannot compute the feature or be launched, the reference takes its place, and the reason is logged once. The
        inverse has no Triton kernel: it is computed by the Rust kernel on a CPU unless this is "reference" or n_fft is
        no power of two, and by torch on a GPU.

    Raises
    ------
    ConfigError
        If `backend` or DISTILL_BACKEND is not one of these names, or `config` is one of a single channel.

    References
    ----------
    .. [1] K. Kodera, C. de Villedary, R. Gendrin, "A new method for the numerical analysis of non-stationary
           signals", Physics of the Earth and Planetary Interiors 12, 1976.
    .. [2] F. Auger, P. Flandrin, "Improving the readability of time-frequency and time-scale representations by the
           reassignment method", IEEE Transactions on Signal Processing 43, 1995.

    Examples
    --------
    >>> import torch
    >>> from distill.audio import ComplexSpectrogram
    >>> features = ComplexSpectrogram()(torch.randn(1, 1, 48_000))
    >>> features.shape
    torch.Size([1, 2, 128, 94])
    """

    def __init__(self, config: ComplexSpectrogramConfig | None = None, backend: Backend = "auto") -> None:
        super().__init__()
        self.config = config or ComplexSpectrogramConfig()
        if not isinstance(self.config, ComplexSpectrogramConfig):
            given = type(config).__name__
            raise ConfigError([f"config is a {given}, of one channel, and must be a ComplexSpectrogramConfig"])
        self.backend = resolve_backend(backend)
        self._spec = MelSpec.of(self.config)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Compute the features of mono waveforms.

        Parameters
        ----------
        waveform : torch.Tensor
            Shape (..., 1, S) with three or more dimensions, or (B, S), or (S,); any floating type, at
            ``config.sample_rate``. S is above n_fft / 2 or, without ``config.center``, at least n_fft. Half precision
            is computed in float32. Call it once before you capture it in a CUDA graph.

        Returns
        -------
        torch.Tensor
            Shape (..., 2, M, T), (B, 2, M, T) or (2, M, T): the two channels take the place of the waveform's one, or
            are added if it has no dimension for that. T = ``config.n_frames(S)``, which is S // hop_length + 1 for
            centred frames. float64 for float64, else float32.

        Raises
        ------
        ValueError
            If shape or type are wrong, or the waveform is too short.
        BackendError
            If the backend is "fused" or "rust" and cannot compute the features, or the first call is captured.
        DeviceError
            If the GPU has failed, because of an earlier error of any kernel.
        """
        mono = self._mono(waveform)
        features = _compute(_batch(mono), self._spec, self.backend)
        return features if mono.ndim == 2 else features.reshape(*mono.shape[:-1], *features.shape[1:])

    if TYPE_CHECKING:

        def __call__(self, waveform: torch.Tensor) -> torch.Tensor:
            """See `forward`."""

    def backend_for(self, waveform: torch.Tensor) -> Computed:
        """Return which backend computes the features of a waveform; parameters and errors as :meth:`forward`."""
        return ops.backend_for(_batch(self._mono(waveform)), self._spec, self.backend)

    def _mono(self, waveform: torch.Tensor) -> torch.Tensor:
        """Return a valid waveform without the dimension of its one channel, (..., S)."""
        if waveform.ndim == 0 or (waveform.ndim > 2 and waveform.shape[-2] != 1):
            raise ValueError(
                f"waveform of shape {list(waveform.shape)} must be [batch, 1, samples], [..., 1, samples], "
                "[batch, samples] or [samples], mono; for the features of each channel, pass waveform.unsqueeze(-2)"
            )
        _check_waveform(waveform, self._spec)
        return waveform.squeeze(-2) if waveform.ndim > 2 else waveform

    def to_hertz(self, features: torch.Tensor) -> torch.Tensor:
        """Convert channel 1 to Hz.

        Parameters
        ----------
        features : torch.Tensor
            Shape (..., 2, M, T), as from :meth:`forward`.

        Returns
        -------
        torch.Tensor
            Frequency in Hz, shape (..., M, T); for a masked band its centre. float64 for float64, else float32.

        Raises
        ------
        ValueError
            If the shape is wrong.
        """
        n_mels = self.config.n_mels
        if features.ndim < 3 or features.shape[-3:-1] != (2, n_mels):
            raise ValueError(f"features of shape {list(features.shape)} must be [..., 2, n_mels={n_mels}, frames]")
        half_support_hz = mel_bands(self._spec).half_support * self.config.sample_rate / self.config.n_fft
        offset = features.select(-3, 1)
        offset = offset if features.dtype == torch.float64 else offset.float()
        scale = torch.tensor(half_support_hz, dtype=offset.dtype).to(offset.device)
        centre = torch.tensor(self._spec.centres_hz(), dtype=offset.dtype).to(offset.device)
        return offset * scale[:, None] + centre[:, None]

    def inverse(self, features: torch.Tensor, *, n_iter: int = 8, length: int | None = None) -> torch.Tensor:
        """Compute a waveform whose features are close to `features`, by fast Griffin-Lim.

        Parameters
        ----------
        features : torch.Tensor
            Shape (B, 2, M, T), T at least 1, any floating type, before normalisation. Of log1p, negative values of
            channel 0 count as 0; if they are many, as in normalised rows, a UserWarning says so.
        n_iter : int, default 8
            Iterations of fast Griffin-Lim. They start from power and phase estimated from both channels.
        length : int, optional
            Samples S of the result, ideally the length of the original waveform. Samples after the last frame are 0.
            Default: ``(T - 1) * hop_length``.

        Returns
        -------
        torch.Tensor
            Shape (B, 1, S), float32, on the device of `features`, without a gradient; deterministic, bit for bit. The
            sign of each clip is arbitrary, because features do not determine it.

        Raises
        ------
        ValueError
            If shape, type, `n_iter` or `length` are wrong, a value is not finite or too large for a log power, or
            `features` are differentiated forwards or transformed by torch.func.
        ConfigError
            If the feature does not determine a sound well enough: with ``win_length``, without ``center``, or with
            ``power=1``.
        BackendError
            If the backend is "rust" and cannot invert the features.
        """
        return invert(features, self._spec, n_iter, length, self.backend)

    def extra_repr(self) -> str:
        """Return the configuration, for ``print(module)``."""
        return repr(self.config)


class AudioSpectrogram(nn.Module):
    """One mel channel of a waveform: log power, equal to channel 0 of :class:`ComplexSpectrogram`.

    The shapes are those of ``torchaudio.transforms.MelSpectrogram``.

    Parameters
    ----------
    config : SpectrogramConfig, optional
        Sample rate, frames and bands; of a ComplexSpectrogramConfig, those of channel 0. Default:
        ``SpectrogramConfig()``.
    backend : {"auto", "fused", "rust", "reference"}, default "auto"
        What computes the features, as for :class:`ComplexSpectrogram`.

    Raises
    ------
    ConfigError
        If `backend` or DISTILL_BACKEND is not one of these names.

    Examples
    --------
    >>> import torch
    >>> from distill.audio import AudioSpectrogram, SpectrogramConfig
    >>> AudioSpectrogram()(torch.randn(1, 1, 48_000)).shape
    torch.Size([1, 1, 128, 94])
    >>> whisper = AudioSpectrogram(SpectrogramConfig.preset("whisper"))
    >>> whisper(torch.randn(16_000)).shape
    torch.Size([80, 101])
    """

    def __init__(self, config: SpectrogramConfig | None = None, backend: Backend = "auto") -> None:
        super().__init__()
        self.config = config or SpectrogramConfig()
        self.backend = resolve_backend(backend)
        self._spec = MelSpec.of(self.config)._replace(if_masking_threshold=None)

    def forward(self, waveform: torch.Tensor) -> torch.Tensor:
        """Compute ``log1p`` of the mel power of waveforms, or what `config` has in its place.

        Parameters
        ----------
        waveform : torch.Tensor
            Shape (..., S), such as (B, 1, S); otherwise as for :meth:`ComplexSpectrogram.forward`.

        Returns
        -------
        torch.Tensor
            Shape (..., M, T), such as (B, 1, M, T); T = ``config.n_frames(S)``. float64 for float64, else float32.

        Raises
        ------
        ValueError
            If shape or type are wrong, or the waveform is too short.
        BackendError
            If the backend is "fused" or "rust" and cannot compute the features.
        """
        _check_waveform(waveform, self._spec)
        features = _compute(_batch(waveform), self._spec, self.backend)
        return features.reshape(*waveform.shape[:-1], *features.shape[2:])

    if TYPE_CHECKING:

        def __call__(self, waveform: torch.Tensor) -> torch.Tensor:
            """See `forward`."""

    def inverse(self, features: torch.Tensor, *, n_iter: int = 8, length: int | None = None) -> torch.Tensor:
        """Compute a waveform whose mel power is close to `features`, by fast Griffin-Lim.

        Parameters
        ----------
        features : torch.Tensor
            Shape (B, 1, M, T), T at least 1, any floating type, before normalisation.
        n_iter : int, default 8
            Iterations of fast Griffin-Lim. They start from a phase estimated from the slopes of the magnitude.
        length : int, optional
            Samples S of the result. Default: ``(T - 1) * hop_length``.

        Returns
        -------
        torch.Tensor
            Shape (B, 1, S), float32, on the device of `features`, without a gradient; deterministic, bit for bit.

        Raises
        ------
        ValueError
            If shape, type, `n_iter` or `length` are wrong, a value is not finite or too large for a log power, or
            `features` are differentiated forwards or transformed by torch.func.
        ConfigError
            If the feature does not determine a sound well enough: with ``win_length``, without ``center``, or with
            ``power=1``.
        BackendError
            If the backend is "rust" and cannot invert the features.
        """
        return invert(features, self._spec, n_iter, length, self.backend)

    def extra_repr(self) -> str:
        """Return the configuration, for ``print(module)``."""
        return repr(self.config)


def _batch(waveform: torch.Tensor) -> torch.Tensor:
    """Return waveforms (..., S) as (B, S)."""
    if waveform.ndim == 2:
        return waveform
    return waveform.flatten(0, -2) if waveform.ndim > 2 else waveform[None]


def _compute(waveform: torch.Tensor, spec: MelSpec, backend: Backend) -> torch.Tensor:
    """Compute features (B, C, M, T) of waveforms (B, S)."""
    if backend == "reference":  # not through the operator, so that torch.compile can see into it
        return complex_mel(waveform, spec)
    if ops.is_plain(waveform):
        return ops.compute(waveform, spec, backend)
    if is_transformed(waveform):
        # The operator has a gradient, and no other derivative: torch would take it for zero without a word.
        if backend != "auto":
            raise BackendError(
                f"backend {backend!r} cannot compute forward-mode derivatives or transforms of torch.func; "
                "choose 'auto' or 'reference'"
            )
        return complex_mel(waveform, spec)
    features: torch.Tensor = torch.ops.distill.complex_mel(waveform, *spec.arguments(backend))
    return features


def _check_waveform(waveform: torch.Tensor, spec: MelSpec) -> None:
    if not isinstance(waveform, torch.Tensor):
        raise TypeError(f"waveform must be a torch.Tensor, not {type(waveform).__name__}")
    if waveform.ndim == 0:
        raise ValueError("waveform of shape [] must be [..., samples]")
    if not waveform.is_floating_point():
        raise ValueError(f"waveform of type {waveform.dtype} must be of a floating type, within ±1")
    if waveform.shape[-1] < spec.least_samples:
        least = f"longer than n_fft/2 = {spec.n_fft // 2}" if spec.center else f"at least n_fft = {spec.n_fft}"
        raise ValueError(f"waveform of {waveform.shape[-1]} samples must be {least} samples")
