"""The settings of a sound that is played: what they must hold, and the `distill generate` command that makes it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

from distill.documents import check_table
from distill.errors import ConfigError
from distill.faults import Key, Rule, Table, between, shown
from distill.generate.recipe import Recipe
from distill.play.view import LONGEST_S, dataset_file, dropped_file
from distill.types import FileFormat, PathLike, SampleFormat

_LONGEST_NAME = 4096
_MOST_AXES = 64


class Source(NamedTuple):
    """A sound to start from."""

    kind: Literal["dataset", "dropped"]
    """Whether it is a file of the run's dataset, or one that was dropped on the page and is kept with the run."""
    name: str
    """Its path in the dataset, or its name."""
    offset: float
    """Where it begins, seconds."""


def locate(run_dir: Path, source: Source) -> Path:
    """Return the file of a source.

    Raises
    ------
    NotFoundError
        If there is no such file in the dataset, or among those that were dropped.
    """
    find = dataset_file if source.kind == "dataset" else dropped_file
    return find(run_dir, source.name)


Locate = Callable[[Source], Path]
"""Returns the file of a source; raises a DistillError if there is none."""


@dataclass(frozen=True)
class Settings:
    """What makes one sound: the settings of `distill generate`, and nothing else.

    Attributes
    ----------
    seed : int
        From 0 to 2**31 - 1.
    duration : float or None
        Length in seconds; None for what `generate` does without --duration.
    axes : dict
        Standard deviations to move along axes, by the number of the axis, from 1.
    start : {"sample", "around", "between"}
        What the sound starts from.
    sources : tuple of Source
        None, one, or two.
    amount : float
        The temperature, the radius, or the position between both sources.
    """

    seed: int
    duration: float | None
    axes: dict[int, float]
    start: Literal["sample", "around", "between"]
    sources: tuple[Source, ...]
    amount: float

    @property
    def moves(self) -> tuple[str, ...]:
        """The values of --axis."""
        return tuple(f"{number}={value!r}" for number, value in sorted(self.axes.items()))

    @property
    def name(self) -> str:
        """A name for a file of the sound, without an extension."""
        names = [PurePath(source.name).stem for source in self.sources]
        if self.start == "between":
            return f"{names[0]} to {names[1]} {self.amount:.2f}"
        if self.start == "sample":
            return f"sample-{self.seed}"
        return f"{names[0]}-{self.seed}" if self.amount else names[0]

    def recipe(self, locate: Locate) -> Recipe:
        """Return the recipe, with the files of the sources."""
        files = [locate(source) for source in self.sources]
        make = partial(Recipe, duration=self.duration, axis=self.moves)
        if self.start == "sample":
            return make(count=1, temperature=self.amount)
        offsets = tuple(source.offset for source in self.sources)
        make = partial(make, offset=offsets if any(offsets) else ())
        if self.start == "around":
            return make(count=1, around=files[0], radius=self.amount)
        return make(start=files[0], end=files[1], at=self.amount)

    def command(self, run_dir: PathLike, locate: Locate) -> str:
        """Return the command line that writes this sound."""
        files = [os.fspath(locate(source)) for source in self.sources]
        words = ["distill", "generate", os.fspath(run_dir), "--out", "sounds"]
        if self.start == "sample":
            words += ["--count", "1", "--temperature", repr(self.amount)]
        elif self.start == "around":
            words += ["--count", "1", "--around", *files, "--radius", repr(self.amount)]
        else:
            words += ["--from", files[0], "--to", files[1], "--at", repr(self.amount)]
        if any(source.offset for source in self.sources):
            words += ["--offset", *(repr(source.offset) for source in self.sources)]
        words += [] if self.duration is None else ["--duration", repr(self.duration)]
        for move in self.moves:
            words += ["--axis", move]
        # Interpolations do not depend on it.
        words += [] if self.start == "between" else ["--seed", str(self.seed)]
        return shlex.join(words)

    def record(self) -> dict[str, Any]:
        """Return the settings as `parse_settings` takes them."""
        sources = [source._asdict() for source in self.sources]
        _, names, amount = _STARTS[self.start]
        start = dict(zip(names, sources, strict=True)) | {amount: self.amount}
        axes = {str(number): value for number, value in sorted(self.axes.items())}
        return {"seed": self.seed, "duration": self.duration, "axes": axes, self.start: start}


_SOURCE = Table(
    {
        "kind": Key(Literal["dataset", "dropped"]),
        "name": Key(str, Rule(lambda name: 0 < len(name) <= _LONGEST_NAME, "the name of a sound")),
        "offset": Key(float, between(0, 1e6), is_required=False),
    },
    others=None,
)


class _Start(NamedTuple):
    """What a sound may start from."""

    table: Table
    sources: tuple[str, ...]
    """The keys of its sources."""
    amount: str
    """The key of its number."""


_STARTS = {
    "sample": _Start(Table({"temperature": Key(float, between(0, 20))}, others=None), (), "temperature"),
    "around": _Start(
        Table({"source": _SOURCE, "radius": Key(float, between(0, 20))}, others=None), ("source",), "radius"
    ),
    "between": _Start(
        Table({"from": _SOURCE, "to": _SOURCE, "at": Key(float, between(0, 1))}, others=None), ("from", "to"), "at"
    ),
}
_COMMON: dict[str, Key | Table] = {
    "seed": Key(int, between(0, 2**31 - 1)),
    "duration": Key(float | None, between(0.01, LONGEST_S), is_required=False),
    "axes": Table({}, others=Key(float, between(-20, 20))),
}


def parse_settings(values: Any) -> Settings:
    """Return the settings in a JSON value; docs/play.md describes it.

    Raises
    ------
    ConfigError
        If it has faults; all are named.
    """
    starts = [name for name in _STARTS if isinstance(values, Mapping) and name in values]
    if isinstance(values, Mapping) and len(starts) != 1:
        found = f"they hold {' and '.join(starts)}" if starts else "they hold none of these"
        raise ConfigError([f"settings must hold one of {', '.join(_STARTS)}; {found}"])
    checked = check_table(values, Table(_COMMON | {name: _STARTS[name].table for name in starts}, others=None))
    (name,) = starts
    start, kind = checked[name], _STARTS[name]
    return Settings(
        checked["seed"],
        None if checked.get("duration") is None else float(checked["duration"]),
        _axes(checked["axes"]),
        name,  # type: ignore[arg-type]
        tuple(_source(start[key]) for key in kind.sources),
        float(start[kind.amount]),
    )


def parse_source(values: Any) -> Source:
    """Return the source in a JSON value.

    Raises
    ------
    ConfigError
        If it has faults; all are named.
    """
    return _source(check_table(values, _SOURCE))


def _source(values: Mapping[str, Any]) -> Source:
    return Source(values["kind"], values["name"], float(values.get("offset", 0.0)))


def _axes(values: Mapping[str, float]) -> dict[int, float]:
    is_number = {name: name.isascii() and name.isdecimal() and len(name) < 10 and int(name) > 0 for name in values}
    faults = [f"axes.{shown(name)} must be the number of an axis, from 1" for name in values if not is_number[name]]
    if len(values) > _MOST_AXES:
        faults.append(f"axes hold {len(values)} values, where at most {_MOST_AXES} are taken")
    if faults:
        raise ConfigError(faults[:3])
    # A move by zero is none, and would be left out of the command.
    return {int(name): float(value) for name, value in values.items() if value}


class FileForm(NamedTuple):
    """In what form a sound is saved; see `distill.generate.generate`."""

    file_format: FileFormat
    sample_format: SampleFormat | None
    sample_rate: int | None


_SAVE = Table(
    {
        "settings": Key(dict),
        "format": Key(FileFormat, is_required=False),
        "sample_format": Key(SampleFormat | None, is_required=False),
        "sample_rate": Key(int | None, is_required=False),
    },
    others=None,
)


def parse_save(values: Any) -> tuple[Settings, FileForm]:
    """Return the settings, and the form of the file, in a JSON value.

    Raises
    ------
    ConfigError
        If it has faults.
    """
    checked = check_table(values, _SAVE)
    form = FileForm(checked.get("format", "wav"), checked.get("sample_format"), checked.get("sample_rate"))
    return parse_settings(checked["settings"]), form
