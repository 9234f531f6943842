"""The sounds of a run as its page plays them: those that `generate` writes, each with a spectrogram."""

from __future__ import annotations

import json
import math
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.audio.sound_file import levelled, write_sound
from distill.audio.sound_format import SoundFormat
from distill.audio.windows import WindowedFile
from distill.config import Normalize
from distill.errors import ConfigError, DistillError, RunError, StorageError
from distill.features.inversion.limits import plain_features
from distill.features.mel import MelSpec
from distill.generate.maker import SoundMaker
from distill.generate.output import level_notes
from distill.generate.recipe import Recipe
from distill.models.store import WEIGHTS_NAME
from distill.play.analysed import require_own
from distill.play.settings import FileForm, Settings, Source, locate
from distill.play.stamps import stamp_of
from distill.play.view import LONGEST_S
from distill.runs.axes import LATENT_NAME, TENSORS_NAME, Axes, read_axes
from distill.runs.instrument import Instrument
from distill.storage import storage_error, temporary_file
from distill.types import ProgressCallback

_SHOWN_DB = 80.0
_SILENCE_DB = -200.0
# Channel 1 is clamped to this, on either side of the centre of a band.
_WIDEST = 2.0
_AXES_SHOWN = 32
_UNWRITABLE_TIP = "make room in the run folder, or make it writable"


@dataclass(frozen=True)
class Reply:
    """A sound, and what is known about it.

    Attributes
    ----------
    header : dict
        What docs/play.md says of the message with a sound, but for its "id".
    samples : ndarray [S], float32
    spectrogram : ndarray [C, M, T], uint8
    """

    header: dict[str, Any]
    samples: np.ndarray
    spectrogram: np.ndarray

    def message(self, number: int) -> bytes:
        """Return the message of the websocket, as docs/play.md describes it, for the request of that number."""
        header = json.dumps({"id": number, **self.header}, allow_nan=False).encode()
        header += b" " * (-(4 + len(header)) % 4)
        samples = np.ascontiguousarray(self.samples, "<f4").tobytes()
        return b"".join([struct.pack("<I", len(header)), header, samples, self.spectrogram.tobytes()])


class Engine:
    """Makes the sounds of one run. One thread at a time may use it.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    device : str
        Device of the model.
    """

    def __init__(self, run_dir: Path, device: str) -> None:
        self.run_dir = run_dir
        self._device = device
        self._stamp: str | None = None
        self._analysis_stamp: str | None = None
        self._axes: Axes | None = None

    def refresh(self) -> bool:
        """Load the model if that has not been done, or its weights were replaced; return whether they were replaced.

        Raises
        ------
        RunError
            If there is no trained model.
        """
        stamp = stamp_of(self.run_dir / WEIGHTS_NAME)
        analysis = stamp_of(self.run_dir / LATENT_NAME / TENSORS_NAME)
        if not self.run_dir.is_dir():
            raise RunError(f"{self.run_dir}: not there any more", "put the folder back, or choose another run")
        if stamp is None:
            raise RunError(f"{self.run_dir}: no trained model yet", "wait until the first epoch has ended")
        before = self._stamp
        if (stamp, analysis) == (before, self._analysis_stamp):
            return False
        if stamp != before:
            self._instrument = Instrument.load(self.run_dir, self._device)
            self._spec = MelSpec.of(self._instrument.config.features)
        # A new one also for a new analysis: it keeps the axes.
        self._maker, self._axes = SoundMaker(self.run_dir, self._instrument), None
        with suppress(RunError):  # not analysed, or before it was trained on
            require_own(self.run_dir)
            self._axes = self._maker.axes
        self._stamp, self._analysis_stamp = stamp, analysis
        return before is not None and stamp != before

    def sound(self, settings: Settings, *, both_channels: bool, progress: ProgressCallback) -> Reply:
        """Make the sound of the settings.

        Raises
        ------
        DistillError
            As `distill.generate.generate`.
        """
        began = time.monotonic()
        recipe = self._recipe(settings)
        made = self._maker.make(recipe, settings.seed, progress)
        if made.samples > LONGEST_S * self._instrument.sample_rate:
            raise ConfigError([f"duration: a sound of more than {LONGEST_S} s"], "use distill generate for it")
        (sound,) = made.sounds()
        samples = np.concatenate(list(sound.blocks))
        samples, written = levelled(samples, self._instrument.sample_rate)
        notes = level_notes(sound.hold.change_db, written.gain, written.limited, written.limited_db)
        header = {
            "kind": "sound",
            "command": settings.command(self.run_dir, self._locate),
            "settings": settings.record(),
            "coordinates": self._coordinates(sound.latents),
        }
        return self._reply(samples, header, notes, both_channels, began)

    def original(self, source: Source, duration: float | None, *, both_channels: bool) -> Reply:
        """Return the recording itself, as the model is given it.

        Raises
        ------
        DistillError
            If it cannot be read.
        """
        began = time.monotonic()
        self.refresh()
        config, rate = self._instrument.config, self._instrument.sample_rate
        path = self._locate(source)
        size = round((LONGEST_S if duration is None else duration) * rate)
        file = _measured(path, stamp_of(path), rate, size, config.normalize).starting_at(source.offset)
        samples = next(file.batches(1, 1)).waveforms[0, 0]
        if duration is None:
            samples = samples[: file.samples]
        raised_db = -20 * math.log10(file.peak)
        raised = {"none": 0.0, "file": raised_db, "chunk": raised_db}[config.normalize]
        notes = [f"the original, {raised:+.1f} dB as for training"] if round(raised, 1) else ["the original"]
        header = {"kind": "original", "command": None, "settings": None, "coordinates": None}
        return self._reply(samples, header, notes, both_channels, began)

    def save(self, settings: Settings, form: FileForm) -> bytes:
        """Return the file of a sound, as `distill generate` writes it.

        Raises
        ------
        DistillError
            As `distill.generate.generate`.
        """
        recipe = self._recipe(settings)
        sound_format = SoundFormat(**form._asdict())
        sound_format.check(self._instrument.sample_rate)
        (sound,) = self._maker.make(recipe, settings.seed).sounds()
        try:
            # Its name is removed by the next writer of the run if this process is killed.
            with temporary_file(self.run_dir) as (path, _):
                write_sound(path, sound.blocks, self._instrument.sample_rate, sound_format)
                return path.read_bytes()
        except OSError as error:
            raise storage_error(self.run_dir, error, _UNWRITABLE_TIP) from error
        except StorageError as error:
            raise StorageError(str(error), _UNWRITABLE_TIP) from error

    def _recipe(self, settings: Settings) -> Recipe:
        """Load what the sound needs, and return its recipe, checked."""
        self.refresh()
        if settings.axes and self._axes is None:
            require_own(self.run_dir)
            read_axes(self.run_dir)  # says why there are none
        recipe = settings.recipe(self._locate)
        recipe.check()
        return recipe

    def _locate(self, source: Source) -> Path:
        return locate(self.run_dir, source)

    def _coordinates(self, latents: torch.Tensor) -> list[float] | None:
        """Return where a sound [S, k] is on the first axes: the mean over its windows, in standard deviations."""
        axes = self._axes
        if axes is None:
            return None
        rows = self._instrument.split_latents(latents).flatten(1)
        values = (rows - axes.mean) @ axes.components[:_AXES_SHOWN].T / axes.scale[:_AXES_SHOWN]
        return [round(value, 4) for value in values.mean(0).tolist()]

    def _reply(
        self, samples: np.ndarray, header: dict[str, Any], notes: list[str], both_channels: bool, began: float
    ) -> Reply:
        shades, high_db = self._spectrogram(samples, both_channels)
        channels, bands, frames = shades.shape
        size = {"channels": channels, "bands": bands, "frames": frames}
        header |= {
            "samples": len(samples),
            "sample_rate": self._instrument.sample_rate,
            "spectrogram": size | {"low_db": high_db - _SHOWN_DB, "high_db": high_db},
            "made_ms": round(1000 * (time.monotonic() - began), 1),
            "notes": notes,
        }
        return Reply(header, samples, shades)

    def _spectrogram(self, samples: np.ndarray, both_channels: bool) -> tuple[np.ndarray, float]:
        """Return the features of a sound in shades of grey, [C, M, T], and the level of the lightest one, dB."""
        # A frame may not be longer than the sound.
        short = self._instrument.config.features.n_fft - len(samples)
        waveform = np.pad(samples, (0, short)) if short > 0 else samples
        features = self._instrument.features(np.ascontiguousarray(waveform)[None, None]).cpu()
        magnitude, _ = plain_features(features, self._spec)
        db = 10 * magnitude[0, 0].clamp_min(0).expm1().clamp_min(10 ** (_SILENCE_DB / 10)).log10()
        high_db = round(float(db.max()), 1)
        channels = [(db - high_db + _SHOWN_DB) / _SHOWN_DB]
        if both_channels and features.shape[1] > 1:
            channels.append((features[0, 1] + _WIDEST) / (2 * _WIDEST))
        shades = (255 * torch.stack(channels)).round().clamp(0, 255).to(torch.uint8)
        return shades.numpy(), high_db


@lru_cache(16)
def _measured(path: Path, stamp: str | None, rate: int, size: int, normalize: Normalize) -> WindowedFile:
    """Return a file as one window; its levels are measured anew if the stamp is another one."""
    return WindowedFile(path, rate, size, size, normalize)


class Engines:
    """The engines of the runs that were played last.

    Parameters
    ----------
    device : str
        Device of the models.
    """

    _MOST = 3

    def __init__(self, device: str) -> None:
        self._device = device
        self._engines: dict[Path, Engine] = {}

    def of(self, run_dir: Path) -> Engine:
        """Return the engine of a run. The engine that was used least recently is dropped if there are too many."""
        engine = self._engines.pop(run_dir, None) or Engine(run_dir, self._device)
        self._engines[run_dir] = engine
        while len(self._engines) > self._MOST:
            del self._engines[next(iter(self._engines))]
        return engine


def error_record(error: DistillError) -> dict[str, Any]:
    """Return an error as the page and scripts are told it."""
    return {"error": str(error), "tip": error.tip}
