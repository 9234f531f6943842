"""What is to be generated, and all that is wrong with it at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from distill.errors import ConfigError

LONGEST_S = 3600.0
_SHORTEST_S = 0.01
_MOST_SOUNDS = 10_000
# Standard deviations; far below, features are noise at the limit of what they can be.
_FARTHEST = 20.0

# What each kind of sound takes, and its value by itself.
_NUMBERS = {
    "sample": {"count": 4, "temperature": 1.0},
    "interpolation": {"steps": 5},
    "variation": {"count": 4, "radius": 0.5},
}
# Why another kind does not take it, and what to do.
_IDLE = {
    "count": "with --from and --to: give --steps instead",
    "temperature": "with --from and --to or --around: leave it out",
    "steps": "without --from and --to: give them, or leave it out",
    "radius": "without --around: give a sound to vary, or leave it out",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is to be generated.

    Without sounds to start from, samples near the sounds that the model knows. With `start` and `end`, the way from one
    sound to the other. With `around`, variations of a sound. Longer than a chunk, latent vectors walk. A number that
    would change nothing is refused.

    Raises
    ------
    ConfigError
        From `check`, not before: a command collects faults first.
    """

    count: int | None = None
    """How many samples, or variations of --around. Default: 4."""
    duration: float | None = None
    """Length in seconds, up to an hour. Default: a chunk, or as long as what it starts from, up to a minute."""
    temperature: float | None = None
    """Of samples: how far they lie from the average sound, over how far known sounds do. Default: 1."""
    start: Path | None = None
    """A sound to begin with."""
    end: Path | None = None
    """The sound to end at."""
    steps: int | None = None
    """Sounds from --from to --to, both among them. Default: 5."""
    around: Path | None = None
    """A sound to vary."""
    radius: float | None = None
    """How far variations lie from it, standard deviations of known sounds' latent vectors. Default: 0.5."""
    axis: tuple[str, ...] = field(default_factory=tuple)
    """NUMBER=VALUE or NAME=VALUE, one an axis: move along an axis that distill analyze found, standard deviations."""

    @property
    def moves(self) -> list[tuple[str, float]]:
        """Axis and value of each `axis`."""
        return [(name, float(value)) for name, _, value in (text.rpartition("=") for text in self.axis)]

    @property
    def kind(self) -> str:
        """Which sounds: "sample", "interpolation" or "variation"."""
        if self.start is not None or self.end is not None:
            return "interpolation"
        return "sample" if self.around is None else "variation"

    @property
    def numbers(self) -> dict[str, float]:
        """Those of count, temperature, steps and radius that its kind takes, as given or by default."""
        given = {name: getattr(self, name) for name in _NUMBERS[self.kind]}
        return _NUMBERS[self.kind] | {name: value for name, value in given.items() if value is not None}

    @property
    def names(self) -> list[str]:
        """Names of the sounds, in order."""
        numbers = self.numbers
        count = int(numbers["steps" if self.kind == "interpolation" else "count"])
        width = max(3, len(str(count)))
        return [f"{self.kind}-{number:0{width}d}" for number in range(1, count + 1)]

    def check(self) -> None:
        """Raise ConfigError with every fault."""
        faults = [*self._range_faults(), *self._axis_faults()]
        if self.start is not None and self.end is None:
            faults.append(f"--from {self.start} needs --to: a sound to end at")
        if self.end is not None and self.start is None:
            faults.append(f"--to {self.end} needs --from: a sound to begin with")
        if self.around is not None and (self.start is not None or self.end is not None):
            faults.append(f"--around {self.around} and --from/--to exclude each other: give one of them")
        faults += [
            f"--{name} {getattr(self, name)} changes nothing {why}"
            for name, why in _IDLE.items()
            if getattr(self, name) is not None and name not in _NUMBERS[self.kind]
        ]
        if faults:
            raise ConfigError(faults)

    def _range_faults(self) -> list[str]:
        numbers = (
            ("count", 1, _MOST_SOUNDS, ""),
            ("duration", _SHORTEST_S, LONGEST_S, " seconds"),
            ("temperature", 0, _FARTHEST, ""),
            ("steps", 2, _MOST_SOUNDS, ""),
            ("radius", 0, _FARTHEST, ""),
        )
        found = ((name, getattr(self, name), low, high, unit) for name, low, high, unit in numbers)
        return [
            f"--{name} {value} must be from {low:g} to {high:g}{unit}"
            for name, value, low, high, unit in found
            if value is not None and not low <= value <= high
        ]

    def _axis_faults(self) -> list[str]:
        faults = []
        for text in self.axis:
            name, _, value = text.rpartition("=")
            if not name or not _is_number(value):
                faults.append(f"--axis {text!r} must be NUMBER=VALUE or NAME=VALUE, as in 1=1.5")
            elif not abs(float(value)) <= _FARTHEST:
                faults.append(f"--axis {text!r} must move by at most {_FARTHEST:g} standard deviations either way")
        return faults


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False
