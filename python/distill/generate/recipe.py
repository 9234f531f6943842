"""What to generate, with a check that reports all faults at once. Does not import torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from distill.errors import ConfigError

LONGEST_S = 3600.0
_SHORTEST_S = 0.01
_MOST_SOUNDS = 10_000
# In standard deviations. Decoded features are noise long before this.
_FARTHEST = 20.0
# Longer files are not read.
_LATEST_S = 48 * 3600.0

# The options of each kind of sound, and their defaults.
_DEFAULTS: dict[str, dict[str, float]] = {
    "sample": {"count": 4, "temperature": 1.0},
    "interpolation": {"steps": 5},
    "variation": {"count": 4, "radius": 0.5},
}
# Steps from one sound of --through to the next.
_STEPS_BETWEEN = 4
# The end of the message for an option that the kind of sound ignores.
_IGNORED = {
    "count": "with --from and --to, or --through: give --steps instead",
    "temperature": "with --from and --to, --through or --around: leave it out",
    "steps": "without --from and --to, or --through: give them, or leave it out",
    "radius": "without --around: give a sound to vary, or leave it out",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to generate.

    Without sounds to start from: samples, close to the sounds that the model was trained on. With `start` and `end`, or
    `through`: an interpolation between two sounds, or through several; with `at`, only one sound of it. With `around`:
    variations of a sound. In samples and variations that are longer than a chunk, the latent vectors change over time.
    An option that would be ignored is a fault.

    Faults are raised by `check` and not when a recipe is made, so that a command can report them with others.

    Examples
    --------
    >>> from pathlib import Path
    >>> from distill.generate import Recipe
    >>> Recipe(start=Path("recordings/bell.wav"), end=Path("recordings/pad.wav"), steps=3).names
    ['interpolation-001', 'interpolation-002', 'interpolation-003']
    """

    count: int | None = None
    """How many samples, or variations of --around. Default: 4."""
    duration: float | None = None
    """Length in seconds, up to an hour. Default: a chunk, or the length of the sound to start from, up to a minute."""
    temperature: float | None = None
    """Distance of samples from the average sound, relative to that of the training sounds. Default: 1."""
    start: Path | None = None
    """The first sound of an interpolation."""
    end: Path | None = None
    """The last sound of an interpolation."""
    through: tuple[Path, ...] = field(default_factory=tuple)
    """Two or more sounds to interpolate through, instead of --from and --to. Each of them is one of the steps."""
    steps: int | None = None
    """How many sounds an interpolation has, including those that are given. Default: 5; of --through, 4 more for each
    sound after the second."""
    at: float | None = None
    """Make one sound instead of all steps: the one at this position between --from, at 0, and --to, at 1."""
    around: Path | None = None
    """A sound to vary."""
    radius: float | None = None
    """Distance of variations from it, in standard deviations of the training sounds' latent vectors. Default: 0.5."""
    offset: tuple[float, ...] = field(default_factory=tuple)
    """Where the sounds to start from begin in their files, seconds: one number for each, that of --from before that of
    --to. Default: at the start."""
    axis: tuple[str, ...] = field(default_factory=tuple)
    """NUMBER=VALUE or NAME=VALUE: move along an axis that distill analyze found, in standard deviations."""

    @property
    def moves(self) -> list[tuple[str, float]]:
        """The name or number, and the value, of each `axis`."""
        return [(name, float(value)) for name, _, value in (text.rpartition("=") for text in self.axis)]

    @property
    def kind(self) -> str:
        """The kind of sounds: "sample", "interpolation" or "variation"."""
        if self.start is not None or self.end is not None or self.through:
            return "interpolation"
        return "sample" if self.around is None else "variation"

    @property
    def numbers(self) -> dict[str, float]:
        """The options of this kind among count, temperature, steps and radius, with defaults filled in.

        With `at` there are none.
        """
        if self.at is not None:
            return {}
        given: dict[str, float | None] = {name: getattr(self, name) for name in _DEFAULTS[self.kind]}
        defaults = dict(_DEFAULTS[self.kind])
        if self.through:
            defaults["steps"] = _STEPS_BETWEEN * (len(self.through) - 1) + 1
        return defaults | {name: value for name, value in given.items() if value is not None}

    @property
    def names(self) -> list[str]:
        """The names of the sounds, in order."""
        numbers = self.numbers
        count = 1 if self.at is not None else int(numbers["steps" if self.kind == "interpolation" else "count"])
        width = max(3, len(str(count)))
        return [f"{self.kind}-{number:0{width}d}" for number in range(1, count + 1)]

    @property
    def sources(self) -> list[Path]:
        """The sounds to start from, in order."""
        return [*(path for path in (self.start, self.end, self.around) if path is not None), *self.through]

    def check(self) -> None:
        """Raise ConfigError if the recipe has faults, naming all of them."""
        faults = [*self._range_faults(), *self._axis_faults(), *self._through_faults()]
        faults += [*self._at_faults(), *self._offset_faults()]
        if self.start is not None and self.end is None:
            faults.append(f"--from {self.start} needs --to: the last sound")
        if self.end is not None and self.start is None:
            faults.append(f"--to {self.end} needs --from: the first sound")
        if self.around is not None and (self.start is not None or self.end is not None):
            faults.append(f"--around {self.around} and --from/--to exclude each other: give one of them")
        faults += [
            f"--{name} {getattr(self, name)} has no effect {why}"
            for name, why in _IGNORED.items()
            if getattr(self, name) is not None and name not in _DEFAULTS[self.kind]
        ]
        if faults:
            raise ConfigError(faults)

    def _range_faults(self) -> list[str]:
        ranges = (
            ("count", 1, _MOST_SOUNDS, ""),
            ("duration", _SHORTEST_S, LONGEST_S, " seconds"),
            ("temperature", 0, _FARTHEST, ""),
            ("steps", 2, _MOST_SOUNDS, ""),
            ("radius", 0, _FARTHEST, ""),
            ("at", 0, 1, ""),
        )
        return [
            f"--{name} {value} must be from {low:g} to {high:g}{unit}"
            for name, low, high, unit in ranges
            if (value := getattr(self, name)) is not None and not low <= value <= high
        ]

    def _through_faults(self) -> list[str]:
        count = len(self.through)
        if not count:
            return []
        faults = []
        if count == 1:
            faults.append(f"--through {self.through[0]} needs two or more sounds; for variations of one, give --around")
        if self.start is not None or self.end is not None or self.around is not None:
            faults.append("--through excludes --from, --to and --around: give all sounds to --through")
        if self.steps is not None and 2 <= self.steps < count:
            faults.append(f"--steps {self.steps} must be at least {count}, the number of sounds of --through")
        return faults

    def _at_faults(self) -> list[str]:
        if self.at is None:
            return []
        faults = []
        if self.steps is not None:
            faults.append(f"--at {self.at} and --steps {self.steps} exclude each other: give one of them")
        if self.through:
            faults.append(f"--at {self.at} excludes --through: give two sounds to --from and --to instead")
        elif self.kind != "interpolation":
            faults.append(f"--at {self.at} has no effect without --from and --to: give them, or leave it out")
        return faults

    def _offset_faults(self) -> list[str]:
        if not self.offset:
            return []
        given, sources = f"--offset {' '.join(map(str, self.offset))}", self.sources
        if not sources:
            return [f"{given} has no effect without a sound to start from: give one, or leave it out"]
        if len(self.offset) != len(sources):
            return [f"{given}: there must be one number for each sound to start from, {len(sources)} in all"]
        return [
            f"--offset {offset} of {path} must be from 0 to {_LATEST_S:g} seconds"
            for offset, path in zip(self.offset, sources, strict=True)
            if not 0 <= offset <= _LATEST_S
        ]

    def _axis_faults(self) -> list[str]:
        faults = []
        for text in self.axis:
            name, _, value = text.rpartition("=")
            if not name or not _is_number(value):
                faults.append(f"--axis {text!r} must be NUMBER=VALUE or NAME=VALUE, as in 1=1.5")
            elif not abs(float(value)) <= _FARTHEST:
                faults.append(
                    f"--axis {text!r} must move by at most {_FARTHEST:g} standard deviations in either direction"
                )
        return faults


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False
