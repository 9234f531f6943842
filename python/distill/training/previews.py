"""Previews: reconstructions and samples that a run writes as sounds while it is trained."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor

from distill.audio.sound_file import write_sound
from distill.audio.sound_format import SoundFormat
from distill.features.mel import MelSpec
from distill.plots.sounds import save_preview_picture
from distill.runs.instrument import Instrument
from distill.storage import remove_leftovers

_SOUNDS = 4


@dataclass(frozen=True)
class Previews:
    """The previews of an epoch, as they were written.

    Attributes
    ----------
    folder : Path
    sample_rate : int
        In Hz.
    sounds : dict of str to ndarray [S], float32
        "reconstruction-1" and so on and "sample-1" and so on, within ±1.
    picture : ndarray [height, width, 3], uint8
    """

    folder: Path
    sample_rate: int
    sounds: dict[str, np.ndarray]
    picture: np.ndarray


def save_previews(
    run_dir: str | os.PathLike[str], instrument: Instrument, held_out: Tensor, *, epoch: int, seed: int
) -> Previews:
    """Write up to four reconstructions and four samples as 16-bit WAV, and a picture, to RUN/previews/epoch-NNN.

    Parameters
    ----------
    run_dir : path
        The run folder.
    instrument : Instrument
        The run's model.
    held_out : Tensor [N, C, M, T]
        Validation rows before normalisation, N at least 1; the first four are reconstructed.
    epoch : int
        Number of the epoch, from 1.
    seed : int
        Seed of the samples. Epochs with the same seed can be compared. Torch's global generator is not used.

    Returns
    -------
    Previews

    Raises
    ------
    OSError, StorageError
        If a file cannot be written.
    """
    folder = Path(run_dir) / "previews" / f"epoch-{epoch:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    chunks = held_out[:_SOUNDS]
    z = instrument.density.sample(_SOUNDS, np.random.default_rng([seed, 0]))
    features = {
        "reconstruction": instrument.decode(instrument.encode(chunks)),
        "sample": instrument.decode(z),
    }
    samples = instrument.config.chunk_samples
    sounds = {}
    for kind, rows in features.items():
        for number, row in enumerate(rows, 1):
            (sound,) = instrument.to_sound([row], samples)
            path = folder / f"{kind}-{number}.wav"
            write_sound(path, [sound], instrument.sample_rate, SoundFormat(sample_format="pcm16"))
            sounds[f"{kind}-{number}"] = soundfile.read(path, dtype="float32")[0]
    shown = [("validation", chunks), *features.items()]
    picture = save_preview_picture(
        [(name, rows.cpu().numpy()) for name, rows in shown],
        folder / "previews.png",
        centres=MelSpec.of(instrument.config.features).centres_hz(),
        duration_s=samples / instrument.sample_rate,
    )
    return Previews(folder, instrument.sample_rate, sounds, picture)
