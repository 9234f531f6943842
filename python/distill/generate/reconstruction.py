"""Sounds by way of a trained run: what the model hears in them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.audio.chunking import FAINT, SILENCE_PEAK
from distill.audio.wav import write_wav
from distill.audio.windows import WindowedFile
from distill.errors import AudioFileError, ConfigError, NothingUsableError
from distill.features.mel import MelSpec
from distill.plots.sounds import Film, save_sound_picture
from distill.runs.instrument import BATCH_WINDOWS, Synthesizer
from distill.storage import check_room, make_folder
from distill.text import printable
from distill.types import PathLike, ProgressCallback, WavFormat

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconstructed:
    """What `reconstruct` wrote.

    Attributes
    ----------
    sources, files, pictures : list of Path
        In the same order.
    gains : list of float
        What each file was multiplied by so as not to clip; 1 for one that would not have.
    skipped : list of (str, str)
        Files that could not be used, each with the reason.
    sample_rate : int
        Hz.
    seconds : float
        What it took.
    """

    sources: list[Path]
    files: list[Path]
    pictures: list[Path]
    gains: list[float]
    skipped: list[tuple[str, str]]
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
    """Take sounds through a trained run: OUT/NAME.wav, as long and as loud as NAME, and OUT/NAME.png.

    As loud, but for what the model loses, and where a peak that it adds would clip: then the whole is made quieter.
    A file that cannot be used is logged, and the rest goes on. Memory does not grow with a file's length. Nothing is
    drawn at random: the latent vectors are those that the model holds most likely.

    Parameters
    ----------
    run_dir : path
        The run folder.
    sources : sequence of path
        The files; two of the same name without its ending become NAME and NAME-2.
    out : path
        Where to; made if missing.
    wav_format : {"pcm16", "pcm24", "float"}
        How a sample is kept. Default: "pcm24".
    force : bool
        Replace files that are there. Default: False.
    device : str
        Where the model runs. Default: "auto".
    progress : callable, optional
        Called with ("reconstruct NAME", windows done, windows in it).

    Returns
    -------
    Reconstructed

    Raises
    ------
    ConfigError
        If a file that is to be written is there already, or is one of `sources`. Nothing has been written.
    RunError
        If this is no run with a trained model.
    DeviceError
        If there is no such device.
    NothingUsableError
        If no source can be used. Nothing has been written.
    StorageError
        If a file cannot be written.
    """
    began = time.monotonic()
    if not sources:
        raise ConfigError(["no sound was given"], "name the files after the run folder")
    paths = [Path(source) for source in sources]
    targets = [Path(out) / name for name in _names(paths)]
    written = [Path(f"{target}{ending}") for target in targets for ending in (".wav", ".png")]
    if own := [path for path in written if any(_is_same(path, source) for source in paths)]:
        raise ConfigError([f"{path}: is one of the sounds to reconstruct" for path in own], "choose another --out")
    check_room(written, force=force)
    synthesizer = Synthesizer.load(run_dir, device)
    done, failed = [], []
    told = 0
    for source, target in zip(paths, targets, strict=True):
        try:
            gain = _reconstruct(synthesizer, source, target, wav_format, progress or (lambda *figures: None))
        except AudioFileError as error:
            failed.append(error)
        else:
            done.append((source, target, gain))
        # Where none can be used, the error names them.
        while done and told < len(failed):
            logger.warning("%s: %s", printable(failed[told].path), failed[told].reason)
            told += 1
    if not done:
        reasons = "\n".join(f"  {printable(error.path)}: {error.reason}" for error in failed)
        tips = dict.fromkeys(error.tip for error in failed if error.tip)
        raise NothingUsableError(f"no sound can be reconstructed:\n{reasons}", "; ".join(tips))
    files, pictures = ([Path(f"{target}{ending}") for _, target, _ in done] for ending in (".wav", ".png"))
    return Reconstructed(
        [source for source, _, _ in done],
        files,
        pictures,
        [gain for _, _, gain in done],
        [(error.path, error.reason) for error in failed],
        synthesizer.sample_rate,
        time.monotonic() - began,
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """A name of its own for each, also where a file system takes a for A."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def _is_same(path: Path, source: Path) -> bool:
    try:
        return path.samefile(source)
    except OSError:
        return False


def _reconstruct(
    synthesizer: Synthesizer, source: Path, target: Path, wav_format: WavFormat, progress: ProgressCallback
) -> float:
    """Write the sound and its picture; what the sound was multiplied by so as not to clip."""
    rate, config = synthesizer.sample_rate, synthesizer.config
    file = WindowedFile(source, rate, config.chunk_samples, synthesizer.step_samples, config.normalize)
    if file.peak < SILENCE_PEAK:
        logger.warning("%s: %s; what is made of it is as quiet", printable(os.fspath(source)), FAINT)
    film = Film(file.samples // synthesizer.hop_length + 1)
    stage = f"reconstruct {printable(source.name)}"
    rows = _rows(synthesizer, file, lambda current, total: progress(stage, current, total))
    joined = synthesizer.join(rows)
    sound = synthesizer.to_sound(_filmed(joined, film), file.samples)
    # Undone and not matched by its peak: a click that the model blurs, or adds, says nothing of how loud the rest is.
    gain = np.float32(1.0 if config.normalize == "none" else file.peak)
    make_folder(target.parent)
    written = write_wav(Path(f"{target}.wav"), (gain * block for block in sound), rate, wav_format)
    features = film.develop()
    channels = len(features) // 2
    save_sound_picture(
        features[:channels],
        features[channels:],
        Path(f"{target}.png"),
        centres=MelSpec.of(config.features).centres_hz(),
        duration_s=file.samples / rate,
        title=source.name,
    )
    return written.gain


def _rows(synthesizer: Synthesizer, file: WindowedFile, progress: Callable[[int, int], None]) -> Iterator[Tensor]:
    """Features of the windows and behind them their reconstruction, [b, 2·C, M, T]."""
    count = synthesizer.windows_of(file.samples)
    for number, windows in enumerate(file.batches(count, BATCH_WINDOWS)):
        progress(number * BATCH_WINDOWS, count)
        features = synthesizer.features(windows.waveforms)
        pair = torch.stack([features, synthesizer.decode(synthesizer.encode(features))], dim=1)
        gain = torch.from_numpy(windows.levels).to(pair)[:, None, None, None]
        pair[:, :, 0] = (pair[:, :, 0].expm1() * gain**2).log1p()
        yield pair.flatten(1, 2)


def _filmed(joined: Iterator[Tensor], film: Film) -> Iterator[Tensor]:
    for part in joined:
        film.add(part.cpu().numpy())
        yield part[len(part) // 2 :]
