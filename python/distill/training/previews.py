"""Previews: reconstructions, beside their originals, and samples that a run writes as sounds while it is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from distill.audio.sound_file import write_sound
from distill.audio.sound_format import SoundFormat
from distill.features.mel import MelSpec
from distill.plots.sounds import save_preview_picture
from distill.runs.instrument import Instrument
from distill.storage import remove_leftovers

_SOUNDS = 4
_FORMAT = SoundFormat(sample_format="pcm16")


@dataclass(frozen=True)
class Previews:
    """The previews of an epoch, as they were written.

    Attributes
    ----------
    folder : Path
    sample_rate : int
        In Hz.
    sounds : dict of str to Path
        Files by name: "original-1" and so on, as far as there are originals, and so with "reconstruction" and "sample".
    picture : ndarray [height, width, 3], uint8
    """

    folder: Path
    sample_rate: int
    sounds: dict[str, Path]
    picture: np.ndarray


def save_previews(
    run_dir: str | os.PathLike[str],
    instrument: Instrument,
    held_out: Tensor,
    *,
    names: Sequence[str],
    originals: Sequence[np.ndarray | None],
    epoch: int,
    seed: int,
) -> Previews:
    """Write up to four reconstructions, their originals, and four samples, to RUN/previews/epoch-NNN.

    They are 16-bit WAV; a picture shows them.

    Parameters
    ----------
    run_dir : path
        The run folder.
    instrument : Instrument
        The run's model.
    held_out : Tensor [N, C, M, T]
        Validation rows before normalisation, N at least 1; the first four are reconstructed.
    names : sequence of str
        The sounds that these are from, for the picture.
    originals : sequence of ndarray [S] or None
        Their waveforms; None where there is none any more.
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
    made = {f"original-{number}": sound for number, sound in enumerate(originals[:_SOUNDS], 1) if sound is not None}
    for kind, rows in features.items():
        for number, row in enumerate(rows, 1):
            (made[f"{kind}-{number}"],) = instrument.to_sound([row], samples)
    sounds = {name: folder / f"{name}.wav" for name in made}
    for name, sound in made.items():
        is_original = name.startswith("original")
        write_sound(sounds[name], [sound], instrument.sample_rate, _FORMAT, keeps_level=is_original)
    shown = [("validation", chunks), *features.items()]
    picture = save_preview_picture(
        [(name, rows.cpu().numpy()) for name, rows in shown],
        folder / "previews.png",
        centres=MelSpec.of(instrument.config.features).centres_hz(),
        duration_s=samples / instrument.sample_rate,
        titles=names[:_SOUNDS],
    )
    return Previews(folder, instrument.sample_rate, sounds, picture)
