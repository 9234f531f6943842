"""Reconstructions: sounds encoded and decoded by a trained run, each with a picture of input and output."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.audio.decode import decode_blocks
from distill.audio.levels import FAINT, SILENCE_PEAK, decibels
from distill.audio.sound_file import Written, write_sound
from distill.audio.sound_format import SoundFormat
from distill.audio.windows import WindowedFile
from distill.errors import AudioFileError, ConfigError, NothingUsableError
from distill.features.level import level_of
from distill.features.mel import MelSpec
from distill.generate.output import make_out_folder
from distill.generate.power import Hold
from distill.plots.sounds import TimeAverage, save_sound_picture
from distill.runs.instrument import BATCH_WINDOWS, Instrument
from distill.storage import check_room, storage_error
from distill.text import printable
from distill.types import FileFormat, PathLike, ProgressCallback, Reason, SampleFormat, no_progress

logger = logging.getLogger(__name__)

# Most file systems allow names of 255 bytes.
_LONGEST_NAME_BYTES = 255
_ORIGINAL = " (original)"


@dataclass(frozen=True)
class Reconstructed:
    """The result of `reconstruct`.

    Attributes
    ----------
    sources, files, originals, pictures : list of Path
        The files that were read, and what was written for each, in the same order.
    gains : list of float
        Factor that each file was multiplied by to avoid clipping; 1 if that was not necessary.
    held_db : list of float
        By how much the power of each reconstruction was changed to that of its source.
    limited, limited_db : list of float
        Share of the samples of each file that the limiter turned down, and its greatest reduction, dB.
    skipped : list of (str, str)
        Files that could not be used, each with the reason.
    partial : list of (str, str)
        Files of which only a part could be decoded, each with the reason.
    sample_rate : int
        Of the files, Hz.
    seconds : float
        Time that it took.

    Examples
    --------
    >>> from distill.generate import reconstruct
    >>> back = reconstruct("runs/first", ["recordings/bell.wav"], "back", force=True)
    >>> for source, file in zip(back.sources, back.files):
    ...     print(source, "->", file)
    recordings/bell.wav -> back/bell.wav
    """

    sources: list[Path]
    files: list[Path]
    originals: list[Path]
    pictures: list[Path]
    gains: list[float]
    held_db: list[float]
    limited: list[float]
    limited_db: list[float]
    skipped: list[tuple[str, str]]
    partial: list[tuple[str, str]]
    sample_rate: int
    seconds: float


def reconstruct(
    run_dir: PathLike,
    sources: Sequence[PathLike],
    out: PathLike,
    *,
    file_format: FileFormat = "wav",
    sample_format: SampleFormat | None = None,
    sample_rate: int | None = None,
    force: bool = False,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Reconstructed:
    """Encode and decode sounds with a trained run.

    For each, OUT gets NAME.wav, "NAME (original).wav", and NAME.png, a picture of both. The original is mono and in
    the same form, so that the two can be compared by ear, and has its own level.

    A reconstruction has the length of its source, and its windows have the power of the source's, as far as that needs
    no gain above 30 dB. Peaks that the model adds and that would clip are limited; the whole sound is made quieter only
    if they are very high, or many. Files that cannot be used are logged and skipped. Memory does not grow with the
    length of a file. Nothing is random: sounds are encoded to their posterior means. Threads may call it at once, each
    with an `out` of its own.

    Parameters
    ----------
    run_dir : path
        The run folder.
    sources : sequence of path
        The files. Two with the same name apart from the extension become NAME and NAME-2. A name that would be too
        long with the new extension is shortened.
    out : path
        Folder of the files; created if missing.
    file_format : {"wav", "flac", "ogg", "mp3"}
        Kind of the files. Default: "wav".
    sample_format : {"pcm16", "pcm24", "float"}, optional
        Sample format of the files, for "wav" and "flac". Default: "pcm24".
    sample_rate : int, optional
        Sample rate of the files, Hz. Default: that of the model.
    force : bool
        Replace existing files. Default: False.
    device : str
        Device of the model. Default: "auto".
    progress : callable, optional
        Called with ("reconstruct NAME", windows done, windows of the file).

    Returns
    -------
    Reconstructed

    Raises
    ------
    ConfigError
        If the files cannot have the form that is asked for, or one of them exists already, or is one of `sources`.
        Nothing has been written.
    RunError
        If `run_dir` holds no run with a trained model.
    DeviceError
        If the machine has no such device.
    NothingUsableError
        If no source can be used. Nothing has been written.
    StorageError
        If a file cannot be written.

    Examples
    --------
    >>> from distill.generate import reconstruct
    >>> back = reconstruct("runs/first", ["recordings/bell.wav", "recordings/pad.wav"], "back", force=True)
    >>> [file.name for file in back.originals]
    ['bell (original).wav', 'pad (original).wav']
    """
    began = time.monotonic()
    paths = [Path(source) for source in sources]
    sound_format = SoundFormat(file_format=file_format, sample_format=sample_format, sample_rate=sample_rate)
    sound_format.check()
    targets = _check_targets(paths, Path(out), sound_format.suffix, force=force)
    instrument = Instrument.load(run_dir, device)
    sound_format.check(instrument.sample_rate)
    progress = progress or no_progress
    done: list[tuple[Path, _Target, Written, float]] = []
    used_in_part: list[tuple[str, str]] = []
    failed: list[AudioFileError] = []
    logged = 0
    # Made for the first sound that can be reconstructed.
    make_out = cache(lambda: make_out_folder(Path(out), run_dir))
    for source, target in zip(paths, targets, strict=True):
        try:
            written, held_db, partial = _reconstruct(
                instrument, source, target, sound_format, make_out=make_out, progress=progress
            )
        except AudioFileError as error:
            failed.append(error)
        else:
            done.append((source, target, written, held_db))
            if partial is not None:
                used_in_part.append((os.fspath(source), partial))
        # If no source can be used, the error below names them instead.
        while done and logged < len(failed):
            logger.warning("%s: %s", printable(failed[logged].path), failed[logged].reason)
            logged += 1
    if not done:
        reasons = "\n".join(f"  {printable(error.path)}: {error.reason}" for error in failed)
        tips = dict.fromkeys(error.tip for error in failed if error.tip)
        raise NothingUsableError(f"no sound can be reconstructed:\n{reasons}", "; ".join(tips))
    return Reconstructed(
        [source for source, _, _, _ in done],
        [target.sound for _, target, _, _ in done],
        [target.original for _, target, _, _ in done],
        [target.picture for _, target, _, _ in done],
        [written.gain for _, _, written, _ in done],
        [held_db for _, _, _, held_db in done],
        [written.limited for _, _, written, _ in done],
        [written.limited_db for _, _, written, _ in done],
        [(error.path, error.reason) for error in failed],
        used_in_part,
        sound_format.sample_rate or instrument.sample_rate,
        time.monotonic() - began,
    )


class _Target(NamedTuple):
    """What is written for a source."""

    sound: Path
    original: Path
    picture: Path


def _check_targets(sources: Sequence[Path], out: Path, suffix: str, *, force: bool) -> list[_Target]:
    """Return what is written for each source, after checking that it can be written."""
    if not sources:
        raise ConfigError(["no sound was given"], "name the files after the run folder")
    targets = [
        _Target(out / f"{name}{suffix}", out / f"{name}{_ORIGINAL}{suffix}", out / f"{name}.png")
        for name in _distinct_names(sources, suffix)
    ]
    written = [path for target in targets for path in target]
    if conflicts := [path for path in written if any(_is_same_file(path, source) for source in sources)]:
        raise ConfigError(
            [f"{path}: is one of the sounds to reconstruct" for path in conflicts], "choose another --out"
        )
    check_room(written, force=force)
    return targets


def _distinct_names(paths: Sequence[Path], suffix: str) -> list[str]:
    """Return a name for each path; all names, and those of the originals, differ even if case is ignored."""
    longest = _LONGEST_NAME_BYTES - len(_ORIGINAL) - len(suffix)
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = _fitting(path.stem, "", longest), 1
        while taken & (needed := {name.casefold(), f"{name}{_ORIGINAL}".casefold()}):
            number += 1
            name = _fitting(path.stem, f"-{number}", longest)
        taken |= needed
        names.append(name)
    return names


def _fitting(stem: str, number: str, longest: int) -> str:
    """Return `stem` and `number`, shortened at the end of the stem if there are more bytes than `longest`."""
    while len(os.fsencode(stem + number)) > longest:
        stem = stem[:-1]
    return stem + number


def _is_same_file(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return False


def _reconstruct(
    instrument: Instrument,
    source: Path,
    target: _Target,
    sound_format: SoundFormat,
    *,
    make_out: Callable[[], object],
    progress: ProgressCallback,
) -> tuple[Written, float, Reason | None]:
    """Write a reconstruction, the original and a picture of both.

    Returns
    -------
    written : Written
        What was written.
    held_db : float
        By how much its power was changed to that of the source.
    partial : Reason or None
        Why only a part of the source could be decoded, if so.
    """
    rate, config = instrument.sample_rate, instrument.config
    file = WindowedFile(source, rate, config.chunk_samples, instrument.step_samples, config.normalize)
    if file.peak < SILENCE_PEAK:
        logger.warning("%s: %s; its reconstruction is as quiet", printable(os.fspath(source)), FAINT)
    if file.offset:
        offset = decibels(file.offset)
        logger.info("%s: its constant offset (DC) of %s was removed", printable(os.fspath(source)), offset)
    average = TimeAverage(config.features.n_frames(file.samples))
    hold = Hold(instrument)
    pairs = _input_and_output(instrument, hold, file, progress, f"reconstruct {printable(source.name)}")
    features = instrument.join(pairs)
    sound = instrument.to_sound(_outputs(features, average), file.samples)
    # Windows have the power of the input. Matching the peaks would be wrong: a click that the model blurs, or adds,
    # says nothing about the level of the rest. What is left to undo is the normalisation.
    level = np.float32(1.0 if config.normalize == "none" else file.peak)
    make_out()
    written = write_sound(target.sound, (level * block for block in sound), rate, sound_format)
    originals = (block.samples for block in decode_blocks(source, rate))
    write_sound(target.original, originals, rate, sound_format, keeps_level=True)
    inputs, outputs = np.split(average.columns(), 2)
    try:
        save_sound_picture(
            inputs,
            outputs,
            target.picture,
            centres=MelSpec.of(config.features).centres_hz(),
            duration_s=file.samples / rate,
            title=source.name,
        )
    except OSError as error:
        raise storage_error(target.picture, error, "choose another --out") from error
    return written, hold.change_db, file.partial


def _input_and_output(
    instrument: Instrument, hold: Hold, file: WindowedFile, progress: ProgressCallback, stage: str
) -> Iterator[Tensor]:
    """Yield the features of windows, followed by those of their reconstruction in the channel axis, [b, 2·C, M, T]."""
    count = instrument.count_windows(file.samples)
    for number, windows in enumerate(file.batches(count, BATCH_WINDOWS)):
        progress(stage, number * BATCH_WINDOWS, count)
        features = instrument.features(windows.waveforms)
        latents = instrument.encode(features)
        (output,) = hold.features(latents, latents, level_of(features))
        pair = torch.stack([features, output], dim=1)
        # Windows are normalised one at a time; the magnitude is brought back to the levels that they have in the file.
        level = torch.from_numpy(windows.levels).to(pair)[:, None, None, None]
        pair[:, :, 0] = (pair[:, :, 0].expm1() * level**2).log1p()
        yield pair.flatten(1, 2)


def _outputs(features: Iterator[Tensor], average: TimeAverage) -> Iterator[Tensor]:
    """Yield the second half of the channels, the reconstruction, and add all channels to `average`."""
    for part in features:
        average.add(part.cpu().numpy())
        yield part[len(part) // 2 :]
