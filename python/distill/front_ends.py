"""Features of other projects and libraries, as fields of SpectrogramConfig."""

from __future__ import annotations

from typing import Any, Literal

FrontEnd = Literal["hifigan", "whisper", "torchaudio", "librosa"]

FRONT_ENDS: dict[FrontEnd, dict[str, Any]] = {
    "hifigan": {
        "sample_rate": 22_050,
        "n_fft": 1024,
        "hop_length": 256,
        "n_mels": 80,
        "f_max": 8_000.0,
        "mel_scale": "slaney",
        "norm": "slaney",
        "center": False,
        "power": 1,
        "compression": "log",
        "floor": 1e-5,
    },
    "whisper": {
        "sample_rate": 16_000,
        "n_fft": 400,
        "hop_length": 160,
        "n_mels": 80,
        "mel_scale": "slaney",
        "norm": "slaney",
        "compression": "log10",
        "floor": 1e-10,
    },
    "torchaudio": {"sample_rate": 16_000, "n_fft": 400, "hop_length": 200, "n_mels": 128, "compression": "none"},
    "librosa": {
        "sample_rate": 22_050,
        "n_fft": 2048,
        "hop_length": 512,
        "n_mels": 128,
        "mel_scale": "slaney",
        "norm": "slaney",
        "compression": "none",
    },
}
"""Known front ends, as fields of SpectrogramConfig.

- hifigan: the mel spectrogram of HiFi-GAN and its descendants, at 22.05 kHz. Its caller first pads the waveform by
  reflection, with (n_fft - hop_length) / 2 = 384 samples at each end. It adds 1e-9 to the power of a bin, which raises
  values next to the floor, by less than 0.14.
- whisper: the log-mel spectrogram of Whisper. Its caller pads or cuts the waveform to 30 s, drops the last frame,
  raises values to 8 below the highest of the clip, adds 4 and divides by 4. ``n_mels=128`` for large-v3 and later.
- torchaudio: ``torchaudio.transforms.MelSpectrogram`` with its defaults.
- librosa: ``librosa.feature.melspectrogram`` with its defaults, but for ``pad_mode="reflect"``. By default it pads with
  zeros, so that the frames at both ends differ.
"""
