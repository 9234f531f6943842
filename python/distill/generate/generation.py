"""New sound from a trained run: samples of it, the way from one sound to another, variations of one."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill.audio.wav import write_wav
from distill.audio.windows import WindowedFile
from distill.errors import ConfigError
from distill.generate.recipe import Recipe
from distill.runs.axes import Axes, read_axes
from distill.runs.instrument import BATCH_WINDOWS, Synthesizer
from distill.storage import check_room, make_folder
from distill.types import ProgressCallback, WavFormat

# Of the noise, in chunks. In sounds of several chunks (sonic-pi's), latent vectors a chunk apart correlate by 0.52 and
# five apart by 0.31.
_WALK_CHUNKS = 2.0
# From one sound to be near to the next.
_ANCHOR_CHUNKS = 4.0
_LONGEST_BY_ITSELF_S = 60.0
# A cut amid a sound must not click.
_FADE_OUT_S = 0.01
_SAME_DIRECTION = 1e-4


@dataclass(frozen=True)
class Generated:
    """What `generate` wrote.

    Attributes
    ----------
    files : list of Path
    gains : list of float
        What each file was multiplied by so as not to clip; 1 for one that would not have.
    seed : int
        Give it again for the same sounds.
    sample_rate : int
        Hz.
    duration_s : float
        Of each file.
    seconds : float
        What it took.
    """

    files: list[Path]
    gains: list[float]
    seed: int
    sample_rate: int
    duration_s: float
    seconds: float


def generate(
    run_dir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: Recipe | None = None,
    *,
    seed: int | None = None,
    wav_format: WavFormat = "pcm24",
    force: bool = False,
    device: str = "auto",
    progress: ProgressCallback | None = None,
) -> Generated:
    """Generate sounds from a trained run, as WAV files.

    Parameters
    ----------
    run_dir : path
        The run folder.
    out : path
        Where to; made if missing.
    recipe : Recipe, optional
        What. Default: four samples, a chunk each.
    seed : int, optional
        Not negative. Each sound has draws of its own: asking for more of them changes none. Default: chosen at random.
    wav_format : {"pcm16", "pcm24", "float"}
        How a sample is kept. Default: "pcm24".
    force : bool
        Replace files that are there. Default: False.
    device : str
        Where the model runs. Default: "auto". On a CPU the same seed gives the same bytes.
    progress : callable, optional
        Called with ("encode", windows done, windows), for each sound to start from, and then with ("generate", windows
        done, windows of all sounds).

    Returns
    -------
    Generated

    Raises
    ------
    ConfigError
        All faults of the recipe; an axis that there is not, or that is given twice; files that are there already.
        Nothing has been written.
    RunError
        If this is no run with a trained model, or it has not been analysed and is to move along axes.
    AudioFileError
        If a sound to start from cannot be used. Nothing has been written.
    DeviceError
        If there is no such device.
    StorageError
        If a file cannot be written.
    """
    began = time.monotonic()
    recipe = recipe or Recipe()
    recipe.check()
    seed = secrets.randbelow(2**31) if seed is None else seed
    if seed < 0:
        raise ConfigError([f"--seed {seed} must be at least 0"])
    files = [Path(out) / f"{name}.wav" for name in recipe.names]
    check_room(files, force=force)
    synthesizer = Synthesizer.load(run_dir, device)
    axes = read_axes(run_dir) if recipe.axis else None
    progress = progress or (lambda *figures: None)
    paths, samples = _paths(synthesizer, recipe, axes, seed, progress)
    rate = synthesizer.sample_rate
    make_folder(Path(out))
    gains = []
    for number, (file, path) in enumerate(zip(files, paths, strict=True)):
        before, total = number * len(path), len(files) * len(path)
        blocks = _played(synthesizer, path, samples, before, total, progress)
        gains.append(write_wav(file, blocks, rate, wav_format).gain)
    return Generated(files, gains, seed, rate, samples / rate, time.monotonic() - began)


def _played(
    synthesizer: Synthesizer, path: Tensor, samples: int, before: int, total: int, progress: ProgressCallback
) -> Iterator[np.ndarray]:
    done = 0
    progress("generate", before, total)
    for block in synthesizer.play(path, samples, _FADE_OUT_S):
        yield block
        done += block.size
        progress("generate", before + min(len(path), done // synthesizer.step_samples), total)


def _paths(
    synthesizer: Synthesizer, recipe: Recipe, axes: Axes | None, seed: int, progress: ProgressCallback
) -> tuple[Iterator[Tensor], int]:
    """A path through latent space [N, L], a vector a window, for each sound; and the samples of each."""
    rate, config = synthesizer.sample_rate, synthesizer.config
    sources = [
        WindowedFile(path, rate, config.chunk_samples, synthesizer.step_samples, config.normalize)
        for path in (recipe.start, recipe.end, recipe.around)
        if path is not None
    ]
    if recipe.duration is not None:
        samples = round(recipe.duration * rate)
    else:
        lengths = [min(source.samples, round(_LONGEST_BY_ITSELF_S * rate)) for source in sources]
        samples = max(lengths, default=config.chunk_samples)
    count = synthesizer.windows_of(samples)
    encoded = [_encode(synthesizer, source, count, progress) for source in sources]
    moves = _moves(recipe, axes) if axes is not None else []
    numbers, sounds = recipe.numbers, len(recipe.names)
    walks = (_walk(synthesizer, count, seed, number) for number in range(sounds))
    density = synthesizer.density
    if recipe.kind == "interpolation":
        shares = np.linspace(0.0, 1.0, sounds).tolist()
        paths: Iterable[Tensor] = (between(encoded[0], encoded[1], share) for share in shares)
    elif recipe.kind == "variation":
        paths = (density.around(encoded[0], walk, numbers["radius"]) for walk in walks)
    else:
        anchors = (_anchors(synthesizer, count, seed, number) for number in range(sounds))
        paths = (density.near(*near, numbers["temperature"]) for near in zip(anchors, walks, strict=True))
    return (_moved(path, axes, moves) for path in paths), samples


def _moves(recipe: Recipe, axes: Axes) -> list[tuple[int, float]]:
    moves: dict[int, float] = {}
    given: dict[int, str] = {}
    faults = []
    for text, (name, value) in zip(recipe.axis, recipe.moves, strict=True):
        axis = axes.index(name)
        if axis in moves:
            faults.append(f"--axis {given[axis]} and --axis {text} move along the same axis: give one of them")
        moves[axis], given[axis] = value, text
    if faults:
        raise ConfigError(faults)
    return list(moves.items())


def _moved(path: Tensor, axes: Axes | None, moves: list[tuple[int, float]]) -> Tensor:
    for axis, value in moves:
        assert axes is not None
        path = axes.move(path, axis, value)
    return path


def _encode(synthesizer: Synthesizer, source: WindowedFile, count: int, progress: ProgressCallback) -> Tensor:
    """Latent vectors [count, L] of a file's first windows; silence behind its end."""
    encoded: list[Tensor] = []
    for number, windows in enumerate(source.batches(count, BATCH_WINDOWS)):
        progress("encode", number * BATCH_WINDOWS, count)
        encoded.append(synthesizer.encode(synthesizer.features(windows.waveforms)).cpu())
    return torch.cat(encoded)


def _walk(synthesizer: Synthesizer, count: int, seed: int, number: int) -> np.ndarray:
    """A stationary walk [count, L], each step of which is noise of the density.

    An Ornstein-Uhlenbeck process at the windows' starts: a longer one begins as the shorter one does.
    """
    density = synthesizer.density
    kept = math.exp(-_chunks_a_window(synthesizer) / _WALK_CHUNKS)
    steps = density.noise(np.random.default_rng([seed, number]).standard_normal((count, density.n_draws)))
    steps[1:] *= math.sqrt(1 - kept * kept)
    for step in range(1, count):
        steps[step] += kept * steps[step - 1]
    return steps


def _anchors(synthesizer: Synthesizer, count: int, seed: int, number: int) -> np.ndarray:
    """What a sample is near to, [count, L]: one latent vector of the density's, then the way to another, and so on."""
    place = torch.arange(count, dtype=torch.float64)[:, None] * (_chunks_a_window(synthesizer) / _ANCHOR_CHUNKS)
    last = place[:, 0].long()
    known = synthesizer.density.anchors
    chosen = torch.from_numpy(known[np.random.default_rng([seed, number, 1]).integers(len(known), size=count + 1)])
    return between(chosen[last], chosen[last + 1], place - last[:, None]).numpy()


def _chunks_a_window(synthesizer: Synthesizer) -> float:
    return synthesizer.step_samples / synthesizer.config.chunk_samples


def between(start: Tensor, end: Tensor, share: float | Tensor) -> Tensor:
    """Vectors on the way from `start` to `end`: their direction turns evenly, their length changes evenly.

    On the straight way, vectors half-way between two unlike sounds are shorter than either, and so nearer to the
    average sound than any sound is.

    Parameters
    ----------
    start, end : Tensor [N, L]
        Latent vectors; where one is 0, or they point in the same or in opposite directions, the way is straight.
    share : float or Tensor [N, 1]
        From 0 to 1.

    Returns
    -------
    Tensor [N, L]
    """
    straight = torch.lerp(start, end, share)
    lengths = torch.linalg.vector_norm(torch.stack([start, end]), dim=-1, keepdim=True)
    cosine = (start * end).sum(-1, keepdim=True) / lengths.prod(dim=0).clamp(min=torch.finfo(start.dtype).tiny)
    angle = torch.acos(cosine.clamp(-1.0, 1.0))
    is_turn = (lengths.amin(dim=0) > 0) & (torch.sin(angle) > _SAME_DIRECTION)
    one, other = torch.sin((1 - share) * angle), torch.sin(share * angle)
    turned = (one * start / lengths[0] + other * end / lengths[1]) / torch.sin(angle)
    return torch.where(is_turn, turned * torch.lerp(lengths[0], lengths[1], share), straight)
