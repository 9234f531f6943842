"""Generated sound: samples of a trained run, interpolations between sounds, and variations of one."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.audio.sound_file import write_sounds
from distill.audio.sound_format import SoundFormat
from distill.audio.windows import WindowedFile
from distill.errors import ConfigError
from distill.features.level import level_of
from distill.generate.output import make_out_folder
from distill.generate.paths import RandomPaths, interpolate, path_positions
from distill.generate.power import (
    Hold,
    audible_levels,
    filled_latents,
    interpolated_levels,
    sampled_levels,
    varied_levels,
)
from distill.generate.recipe import Recipe
from distill.runs.axes import read_axes
from distill.runs.instrument import BATCH_WINDOWS, Instrument
from distill.storage import check_room
from distill.types import FileFormat, PathLike, ProgressCallback, SampleFormat, no_progress

_LONGEST_DEFAULT_S = 60.0
# The end may cut a sound off; longer than the fade of `Instrument`, which is meant for sounds that end in silence.
_FADE_OUT_S = 0.01


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
        Called with ("encode", windows done, windows) for each sound to start from, then with ("generate", windows
        done, windows of all sounds).

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
    moves = _axis_moves(recipe, run_dir) if recipe.axis else []
    progress = progress or no_progress
    sources = [_open(path, instrument) for path in recipe.sources]
    samples = _duration_samples(recipe, sources, instrument)
    n_windows = instrument.count_windows(samples)
    encoded = [_encode(instrument, source, n_windows, progress) for source in sources]
    make_out_folder(Path(out), run_dir)

    def report(windows_before: int, windows: int) -> None:
        progress("generate", windows_before + windows, len(files) * n_windows)

    holds = [Hold(instrument) for _ in files]

    def sounds() -> Iterator[Iterator[np.ndarray]]:
        for number, (latents, levels) in enumerate(_paths(recipe, encoded, instrument, n_windows, seed)):
            moved = reduce(lambda z, move: move(z), moves, latents) if moves else latents
            before, after = (instrument.split_latents(z) for z in (latents, moved))
            features = holds[number].features(before, after, levels)
            blocks = instrument.to_sound(instrument.join(features), samples, _FADE_OUT_S)
            yield _reported(blocks, instrument, n_windows, partial(report, number * n_windows))

    written = write_sounds(files, sounds(), instrument.sample_rate, sound_format)
    return Generated(
        files,
        [sound.gain for sound in written],
        [hold.change_db for hold in holds],
        [sound.limited for sound in written],
        [sound.limited_db for sound in written],
        seed,
        sound_format.sample_rate or instrument.sample_rate,
        samples / instrument.sample_rate,
        time.monotonic() - began,
    )


def _axis_moves(recipe: Recipe, run_dir: PathLike) -> list[Callable[[Tensor], Tensor]]:
    """Return the functions that move latent vectors as each --axis of the recipe says."""
    axes = read_axes(run_dir)
    options: dict[int, str] = {}
    faults: list[str] = []
    moves: list[Callable[[Tensor], Tensor]] = []
    for option, (name, value) in zip(recipe.axis, recipe.moves, strict=True):
        axis = axes.index(name)
        if axis in options:
            faults.append(f"--axis {options[axis]} and --axis {option} move along the same axis: give one of them")
        options[axis] = option
        moves.append(partial(axes.move, axis=axis, value=value))
    if faults:
        raise ConfigError(faults)
    return moves


def _open(path: Path, instrument: Instrument) -> WindowedFile:
    config = instrument.config
    return WindowedFile(path, instrument.sample_rate, config.chunk_samples, instrument.step_samples, config.normalize)


def _duration_samples(recipe: Recipe, sources: Sequence[WindowedFile], instrument: Instrument) -> int:
    if recipe.duration is not None:
        return round(recipe.duration * instrument.sample_rate)
    longest = round(_LONGEST_DEFAULT_S * instrument.sample_rate)
    return max((min(source.samples, longest) for source in sources), default=instrument.config.chunk_samples)


def _encode(
    instrument: Instrument, source: WindowedFile, n_windows: int, progress: ProgressCallback
) -> tuple[Tensor, Tensor]:
    """Encode the first windows of a file, which are silent after its end.

    Returns
    -------
    latents : Tensor [S, k]
    levels : Tensor [n_windows]
        In dB.
    """
    encoded: list[Tensor] = []
    levels: list[Tensor] = []
    for number, windows in enumerate(source.batches(n_windows, BATCH_WINDOWS)):
        progress("encode", number * BATCH_WINDOWS, n_windows)
        features = instrument.features(windows.waveforms)
        encoded.append(instrument.encode(features).cpu())
        levels.append(level_of(features).cpu())
    return instrument.join_latents(torch.cat(encoded)), audible_levels(torch.cat(levels))


def _paths(
    recipe: Recipe, encoded: Sequence[tuple[Tensor, Tensor]], instrument: Instrument, n_windows: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the latent vectors [S, k] and levels [n_windows] of each sound.

    `encoded` are those of the sounds to start from.
    """
    count, numbers = len(recipe.names), recipe.numbers
    if recipe.kind == "interpolation":
        for position in path_positions(len(encoded), count):
            before = min(int(position), len(encoded) - 2)
            (start, start_levels), (end, end_levels) = encoded[before : before + 2]
            fraction = position - before
            if 0 < fraction < 1:
                windows = [(instrument.split_latents(z), z_levels) for z, z_levels in encoded[before : before + 2]]
                start, end = map(instrument.join_latents, filled_latents(*windows))
            yield interpolate(start, end, fraction), interpolated_levels(start_levels, end_levels, fraction)
        return
    known = audible_levels(instrument.anchor_levels)
    random = RandomPaths(instrument, n_windows=n_windows, seed=seed)
    for number in range(count):
        if recipe.kind == "variation":
            ((latents, levels),) = encoded
            radius = numbers["radius"]
            yield random.variation(number, latents, radius), varied_levels(levels, known, radius)
        else:
            temperature = numbers["temperature"]
            levels = sampled_levels(random.anchor_levels(number, known), known, temperature)
            yield random.sample(number, temperature), levels


def _reported(
    blocks: Iterator[np.ndarray], instrument: Instrument, n_windows: int, report: Callable[[int], object]
) -> Iterator[np.ndarray]:
    """Yield blocks of a waveform, reporting the number of windows that have been played."""
    done = 0
    report(0)
    for block in blocks:
        yield block
        done += block.size
        report(min(n_windows, done // instrument.step_samples))
