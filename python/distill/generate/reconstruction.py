"""Reconstructions: sounds encoded and decoded by a trained run, each with a picture of input and output."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.audio.levels import FAINT, SILENCE_PEAK, decibels
from distill.audio.wav import Written, write_wav
from distill.audio.windows import WindowedFile
from distill.errors import AudioFileError, ConfigError, NothingUsableError
from distill.features.mel import MelSpec
from distill.generate.output import make_out_folder
from distill.plots.sounds import TimeAverage, save_sound_picture
from distill.runs.instrument import BATCH_WINDOWS, Instrument
from distill.storage import check_room, storage_error
from distill.text import printable
from distill.types import PathLike, ProgressCallback, Reason, WavFormat, no_progress

logger = logging.getLogger(__name__)

# Most file systems allow names of 255 bytes.
_LONGEST_NAME_BYTES = 255
_WAV, _PNG = ".wav", ".png"


@dataclass(frozen=True)
class Reconstructed:
    """The result of `reconstruct`.

    Attributes
    ----------
    sources, files, pictures : list of Path
        The files that were read, and what was written for each, in the same order.
    gains : list of float
        Factor that each file was multiplied by to avoid clipping; 1 if that was not necessary.
    limited, limited_db : list of float
        Share of the samples of each file that the limiter turned down, and its greatest reduction, dB.
    skipped : list of (str, str)
        Files that could not be used, each with the reason.
    partial : list of (str, str)
        Files of which only a part could be decoded, each with the reason.
    sample_rate : int
        Hz.
    seconds : float
        Time that it took.
    """

    sources: list[Path]
    files: list[Path]
    pictures: list[Path]
    gains: list[float]
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
    wav_format: WavFormat = "pcm24",
    force: bool = False,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Reconstructed:
    """Encode and decode sounds with a trained run, and write OUT/NAME.wav and OUT/NAME.png for each.

    A reconstruction has the length and the level of its source, apart from what the model loses. Peaks that the model
    adds and that would clip are limited; the whole sound is made quieter only if they are very high, or many. Files
    that cannot be used are logged and skipped. Memory does not grow with the length of a file. Nothing is random:
    sounds are encoded to their posterior means.

    Parameters
    ----------
    run_dir : path
        The run folder.
    sources : sequence of path
        The files. Two with the same name apart from the extension become NAME and NAME-2. A name that would be too
        long with the new extension is shortened.
    out : path
        Folder of the files; created if missing.
    wav_format : {"pcm16", "pcm24", "float"}
        Sample format of the files. Default: "pcm24".
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
        If a file to write exists already, or is one of `sources`. Nothing has been written.
    RunError
        If `run_dir` holds no run with a trained model.
    DeviceError
        If the machine has no such device.
    NothingUsableError
        If no source can be used. Nothing has been written.
    StorageError
        If a file cannot be written.
    """
    began = time.monotonic()
    paths = [Path(source) for source in sources]
    targets = _check_targets(paths, Path(out), force=force)
    instrument = Instrument.load(run_dir, device)
    progress = progress or no_progress
    done: list[tuple[Path, Path, Written]] = []
    used_in_part: list[tuple[str, str]] = []
    failed: list[AudioFileError] = []
    logged = 0
    # Made for the first sound that can be reconstructed.
    make_out = cache(lambda: make_out_folder(Path(out), run_dir))
    for source, target in zip(paths, targets, strict=True):
        try:
            written, partial = _reconstruct(
                instrument, source, target, wav_format, make_out=make_out, progress=progress
            )
        except AudioFileError as error:
            failed.append(error)
        else:
            done.append((source, target, written))
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
        [source for source, _, _ in done],
        [_wav_path(target) for _, target, _ in done],
        [_picture_path(target) for _, target, _ in done],
        [written.gain for _, _, written in done],
        [written.limited for _, _, written in done],
        [written.limited_db for _, _, written in done],
        [(error.path, error.reason) for error in failed],
        used_in_part,
        instrument.sample_rate,
        time.monotonic() - began,
    )


def _check_targets(sources: Sequence[Path], out: Path, *, force: bool) -> list[Path]:
    """Return the path without extension of what is written for each source, after checking that it can be written."""
    if not sources:
        raise ConfigError(["no sound was given"], "name the files after the run folder")
    targets = [out / name for name in _distinct_names(sources)]
    written = [path for target in targets for path in (_wav_path(target), _picture_path(target))]
    if conflicts := [path for path in written if any(_is_same_file(path, source) for source in sources)]:
        raise ConfigError(
            [f"{path}: is one of the sounds to reconstruct" for path in conflicts], "choose another --out"
        )
    check_room(written, force=force)
    return targets


def _wav_path(target: Path) -> Path:
    return Path(f"{target}{_WAV}")


def _picture_path(target: Path) -> Path:
    return Path(f"{target}{_PNG}")


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path, all different even where the file system ignores case."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = _fitting(path.stem, ""), 1
        while name.casefold() in taken:
            number += 1
            name = _fitting(path.stem, f"-{number}")
        taken.add(name.casefold())
        names.append(name)
    return names


def _fitting(stem: str, suffix: str) -> str:
    """Return `stem` and `suffix`, shortened at the end of the stem if a file name would otherwise be too long."""
    longest = _LONGEST_NAME_BYTES - len(_WAV) - len(suffix)
    while len(os.fsencode(stem)) > longest:
        stem = stem[:-1]
    return stem + suffix


def _is_same_file(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return False


def _reconstruct(
    instrument: Instrument,
    source: Path,
    target: Path,
    wav_format: WavFormat,
    *,
    make_out: Callable[[], object],
    progress: ProgressCallback,
) -> tuple[Written, Reason | None]:
    """Write a reconstruction and its picture.

    Returns
    -------
    written : Written
        What was written.
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
    average = TimeAverage(file.samples // instrument.hop_length + 1)
    features = instrument.join(_input_and_output(instrument, file, progress, f"reconstruct {printable(source.name)}"))
    sound = instrument.to_sound(_outputs(features, average), file.samples)
    # The level follows from undoing the normalisation. Matching the peaks would be wrong: a click that the model blurs,
    # or adds, says nothing about the level of the rest.
    level = np.float32(1.0 if config.normalize == "none" else file.peak)
    make_out()
    written = write_wav(_wav_path(target), (level * block for block in sound), rate, wav_format)
    inputs, outputs = np.split(average.columns(), 2)
    picture = _picture_path(target)
    try:
        save_sound_picture(
            inputs,
            outputs,
            picture,
            centres=MelSpec.of(config.features).centres_hz(),
            duration_s=file.samples / rate,
            title=source.name,
        )
    except OSError as error:
        raise storage_error(picture, error, "choose another --out") from error
    return written, file.partial


def _input_and_output(
    instrument: Instrument, file: WindowedFile, progress: ProgressCallback, stage: str
) -> Iterator[Tensor]:
    """Yield the features of windows, followed by those of their reconstruction in the channel axis, [b, 2·C, M, T]."""
    count = instrument.count_windows(file.samples)
    for number, windows in enumerate(file.batches(count, BATCH_WINDOWS)):
        progress(stage, number * BATCH_WINDOWS, count)
        features = instrument.features(windows.waveforms)
        pair = torch.stack([features, instrument.decode(instrument.encode(features))], dim=1)
        # Windows are normalised one at a time; the magnitude is brought back to the levels that they have in the file.
        level = torch.from_numpy(windows.levels).to(pair)[:, None, None, None]
        pair[:, :, 0] = (pair[:, :, 0].expm1() * level**2).log1p()
        yield pair.flatten(1, 2)


def _outputs(features: Iterator[Tensor], average: TimeAverage) -> Iterator[Tensor]:
    """Yield the second half of the channels, the reconstruction, and add all channels to `average`."""
    for part in features:
        average.add(part.cpu().numpy())
        yield part[len(part) // 2 :]
