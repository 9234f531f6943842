"""Generated sound: samples of a trained run, interpolations between sounds, and variations of one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.audio.sound_file import write_sounds
from distill.audio.sound_format import SoundFormat
from distill.errors import ConfigError
from distill.generate.maker import SoundMaker
from distill.generate.output import make_out_folder
from distill.generate.power import Hold
from distill.generate.recipe import Recipe
from distill.runs.instrument import Instrument
from distill.storage import check_room
from distill.types import FileFormat, PathLike, ProgressCallback, SampleFormat, no_progress


@dataclass(frozen=True)
class Generated:
    """The result of `generate`.

    Attributes
    ----------
    files : list of Path
        The sound files.
    gains : list of float
        Factor that each file was multiplied by to avoid clipping; 1 if that was not necessary. It is the same for all.
    held_db : list of float
        By how much the power of each sound was changed: of an interpolation to the line between the levels of its ends,
        in dB; of others to the levels of the sounds that they are drawn from.
    limited, limited_db : list of float
        Share of the samples of each file that the limiter turned down, and its greatest reduction, dB.
    seed : int
        The seed that gives the same sounds again.
    sample_rate : int
        Hz.
    duration_s : float
        Length of each file, seconds.
    seconds : float
        Time that it took.

    Examples
    --------
    >>> from distill.generate import generate
    >>> made = generate("runs/first", "samples", force=True)
    >>> len(made.files), made.sample_rate
    (4, 48000)
    """

    files: list[Path]
    gains: list[float]
    held_db: list[float]
    limited: list[float]
    limited_db: list[float]
    seed: int
    sample_rate: int
    duration_s: float
    seconds: float


def generate(
    run_dir: PathLike,
    out: PathLike,
    recipe: Recipe | None = None,
    *,
    seed: int | None = None,
    file_format: FileFormat = "wav",
    sample_format: SampleFormat | None = None,
    sample_rate: int | None = None,
    force: bool = False,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Generated:
    """Generate sounds from a trained run. Threads may do so at once, each with an `out` of its own.

    Parameters
    ----------
    run_dir : path
        The run folder.
    out : path
        Folder of the files; created if missing.
    recipe : Recipe, optional
        What to generate. Default: four samples, each as long as a chunk.
    seed : int, optional
        Not negative. Each sound has its own draws, which do not depend on how many sounds there are. Default: chosen
        at random.
    file_format : {"wav", "flac", "ogg", "mp3"}
        Kind of the files. Default: "wav".
    sample_format : {"pcm16", "pcm24", "float"}, optional
        Sample format of the files, for "wav" and "flac". Default: "pcm24".
    sample_rate : int, optional
        Sample rate of the files, Hz. Default: that of the model.
    force : bool
        Replace existing files. Default: False.
    device : str
        Device of the model. Default: "auto". On a CPU the same seed gives the same bytes.
    progress : callable, optional
        Called with ("encode", windows done, windows) for each different sound to start from, then with ("generate",
        windows done, windows of all sounds).

    Returns
    -------
    Generated

    Raises
    ------
    ConfigError
        If the recipe has faults (all are named), names an unknown axis or the same axis twice, or the files cannot have
        the form that is asked for, or exist already. Nothing has been written.
    RunError
        If `run_dir` holds no run with a trained model, or the recipe moves along axes and the run was not analysed.
    AudioFileError
        If a sound to start from cannot be used. Nothing has been written.
    DeviceError
        If the machine has no such device.
    StorageError
        If a file cannot be written.

    Examples
    --------
    >>> from distill.generate import Recipe, generate
    >>> made = generate("runs/first", "new", Recipe(count=2, duration=1.5), seed=0, force=True)
    >>> [file.name for file in made.files], made.duration_s
    (['sample-001.wav', 'sample-002.wav'], 1.5)
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    recipe.check()
    sound_format = SoundFormat(file_format=file_format, sample_format=sample_format, sample_rate=sample_rate)
    sound_format.check()
    seed = secrets.randbelow(2**31) if seed is None else seed
    if seed < 0:
        raise ConfigError([f"--seed {seed} must be at least 0"])
    files = [Path(out) / f"{name}{sound_format.suffix}" for name in recipe.names]
    check_room(files, force=force)
    instrument = Instrument.load(run_dir, device)
    sound_format.check(instrument.sample_rate)
    made = SoundMaker(run_dir, instrument).make(recipe, seed, progress or no_progress)
    make_out_folder(Path(out), run_dir)
    holds: list[Hold] = []

    def sounds() -> Iterator[Iterator[np.ndarray]]:
        for sound in made.sounds():
            holds.append(sound.hold)
            yield sound.blocks

    written = write_sounds(files, sounds(), instrument.sample_rate, sound_format)
    return Generated(
        files,
        [sound.gain for sound in written],
        [hold.change_db for hold in holds],
        [sound.limited for sound in written],
        [sound.limited_db for sound in written],
        seed,
        sound_format.sample_rate or instrument.sample_rate,
        made.samples / instrument.sample_rate,
        time.monotonic() - began,
    )
