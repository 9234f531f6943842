"""Recipes made into sound with one instrument, to be written by ``generate``, or to be played as they are made."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from pathlib import Path
from threading import Lock
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from distill.audio.windows import WindowedFile
from distill.errors import ConfigError
from distill.features.level import level_of
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
from distill.runs.axes import Axes, read_axes
from distill.runs.instrument import BATCH_WINDOWS, Instrument
from distill.types import PathLike, ProgressCallback, no_progress

_LONGEST_DEFAULT_S = 60.0
# The end may cut a sound off; longer than the fade of `Instrument`, which is meant for sounds that end in silence.
_FADE_OUT_S = 0.01

V = TypeVar("V")


class Sound(NamedTuple):
    """A sound that is about to be made."""

    latents: Tensor
    """Its latent vectors [S, k], moved along the axes of the recipe."""
    hold: Hold
    """What was done to its level, once `blocks` has ended."""
    blocks: Iterator[np.ndarray]
    """Its samples, blocks [n], float32, made as they are taken."""


@dataclass(frozen=True)
class Made:
    """The sounds of a recipe, whose sources are encoded.

    Attributes
    ----------
    count : int
        How many sounds.
    samples : int
        Length of each, samples.
    n_windows : int
        Windows of each.
    """

    count: int
    samples: int
    n_windows: int
    _make: Callable[[], Iterator[Sound]]

    def sounds(self) -> Iterator[Sound]:
        """Yield the sounds in order, each made as its blocks are taken."""
        return self._make()


class SoundMaker:
    """Makes the sounds of recipes with one instrument.

    Sounds to start from are measured and encoded when they are first used; those used last are kept. Several threads
    may use a maker at once.

    Parameters
    ----------
    run_dir : path
        The run folder, where the axes are read from when they are first needed.
    instrument : Instrument
        The instrument of that run.
    kept : int
        How many measured files, and how many encoded sounds, are kept. Default: 16.
    """

    def __init__(self, run_dir: PathLike, instrument: Instrument, *, kept: int = 16) -> None:
        self.run_dir, self.instrument = run_dir, instrument
        self._files: _Kept[WindowedFile] = _Kept(kept)
        self._encoded: _Kept[tuple[Tensor, Tensor]] = _Kept(kept)

    @cached_property
    def axes(self) -> Axes:
        """The axes of the run.

        Raises
        ------
        RunError
            See `read_axes`.
        """
        return read_axes(self.run_dir)

    def make(self, recipe: Recipe, seed: int, progress: ProgressCallback = no_progress) -> Made:
        """Encode the sounds that a recipe starts from, and return those that are to be made.

        Parameters
        ----------
        recipe : Recipe
            A recipe without faults; see `Recipe.check`.
        seed : int
            Not negative. The same seed gives the same sounds.
        progress : callable, optional
            Called with ("encode", windows done, windows) for each sound that is encoded, then, as the sounds are
            made, with ("generate", windows done, windows of all sounds).

        Returns
        -------
        Made

        Raises
        ------
        ConfigError
            If the recipe names an unknown axis, or the same axis twice.
        RunError
            If it moves along axes and the run was not analysed.
        AudioFileError
            If a sound to start from cannot be used.
        """
        moves = self._moves(recipe) if recipe.axis else []
        offsets = recipe.offset or (0.0,) * len(recipe.sources)
        sources = [self._open(path, offset_s) for path, offset_s in zip(recipe.sources, offsets, strict=True)]
        samples = self._duration_samples(recipe, [source.file for source in sources])
        n_windows = self.instrument.count_windows(samples)
        encoded = [self._encode(source, n_windows, progress) for source in sources]
        count = len(recipe.names)

        def make() -> Iterator[Sound]:
            for number, (latents, levels) in enumerate(_paths(recipe, encoded, self.instrument, n_windows, seed)):
                moved = reduce(lambda z, move: move(z), moves, latents)
                report = partial(_report, progress, number * n_windows, n_windows, count)
                yield self._sound(latents, moved, levels, samples, report)

        return Made(count, samples, n_windows, make)

    def _moves(self, recipe: Recipe) -> list[Callable[[Tensor], Tensor]]:
        """Return the functions that move latent vectors as each --axis of the recipe says."""
        options: dict[int, str] = {}
        faults: list[str] = []
        moves: list[Callable[[Tensor], Tensor]] = []
        for option, (name, value) in zip(recipe.axis, recipe.moves, strict=True):
            axis = self.axes.index(name)
            if axis in options:
                faults.append(f"--axis {options[axis]} and --axis {option} move along the same axis: give one of them")
            options[axis] = option
            moves.append(partial(self.axes.move, axis=axis, value=value))
        if faults:
            raise ConfigError(faults)
        return moves

    def _open(self, path: Path, offset_s: float) -> _Source:
        instrument, config = self.instrument, self.instrument.config
        state = _state_of(path)
        sizes = (config.chunk_samples, instrument.step_samples)
        opened = partial(WindowedFile, path, instrument.sample_rate, *sizes, config.normalize)
        return _Source(self._files.get(state, opened).starting_at(offset_s), (state, offset_s))

    def _duration_samples(self, recipe: Recipe, sources: Sequence[WindowedFile]) -> int:
        instrument = self.instrument
        if recipe.duration is not None:
            return round(recipe.duration * instrument.sample_rate)
        longest = round(_LONGEST_DEFAULT_S * instrument.sample_rate)
        return max((min(source.samples, longest) for source in sources), default=instrument.config.chunk_samples)

    def _encode(self, source: _Source, n_windows: int, progress: ProgressCallback) -> tuple[Tensor, Tensor]:
        """Return the latents [S, k] and levels [n_windows] of the first windows of a file; see `_encode`."""
        encode = partial(_encode, self.instrument, source.file, n_windows, progress)
        return self._encoded.get((source.key, n_windows), encode)

    def _sound(
        self, latents: Tensor, moved: Tensor, levels: Tensor, samples: int, report: Callable[[int], object]
    ) -> Sound:
        instrument, hold = self.instrument, Hold(self.instrument)
        before, after = (instrument.split_latents(z) for z in (latents, moved))
        features = hold.features(before, after, levels)
        blocks = instrument.to_sound(instrument.join(features), samples, _FADE_OUT_S)
        return Sound(moved, hold, _reported(blocks, instrument.step_samples, report))


class _Source(NamedTuple):
    """A sound to start from."""

    file: WindowedFile
    key: Hashable
    """What sounds with the same samples have in common: the state of the file when it was opened, and the offset."""


class _Kept(Generic[V]):
    """The values that were used last, by their keys. What is wanted by several threads at once may be made by each."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = make()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


def _state_of(path: Path) -> Hashable:
    """Return what changes if a file does, or is replaced."""
    try:
        found = path.stat()
    except OSError:
        return object()  # equal to no other; opening the file says why
    return os.fspath(path), found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


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
        positions = path_positions(len(encoded), count) if recipe.at is None else [recipe.at]
        for position in positions:
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


def _report(progress: ProgressCallback, before: int, n_windows: int, count: int, done: int) -> None:
    """Report `done` windows of a sound, after `before` windows of others."""
    progress("generate", before + min(done, n_windows), count * n_windows)


def _reported(blocks: Iterator[np.ndarray], step_samples: int, report: Callable[[int], object]) -> Iterator[np.ndarray]:
    """Yield blocks of a waveform, reporting the number of windows that have been played."""
    done = 0
    report(0)
    for block in blocks:
        yield block
        done += block.size
        report(done // step_samples)
