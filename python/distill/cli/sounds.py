"""What ``distill generate`` and ``distill reconstruct`` share: options, and what is said about a sound."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.cli.progress import ProgressView
from distill.cli.run_options import SoundArguments
from distill.generate.output import level_notes
from distill.text import printable

if TYPE_CHECKING:
    from distill.generate.generation import Generated
    from distill.generate.reconstruction import Reconstructed


def sound_options(arguments: SoundArguments, view: ProgressView) -> dict[str, Any]:
    """Return the arguments that `generate` and `reconstruct` share."""
    return {
        "file_format": arguments.format,
        "sample_format": arguments.sample_format,
        "sample_rate": arguments.sample_rate,
        "force": arguments.force,
        "device": arguments.device,
        "progress": view.progress,
    }


def line_about(file: Path, notes: list[str]) -> str:
    """Return the line about a written file."""
    return "  " + printable(", ".join([str(file), *notes]))


def level_notes_of(result: Generated | Reconstructed, index: int) -> list[str]:
    """Return in words what was done to the level of a sound, and so that it does not clip."""
    return level_notes(result.held_db[index], result.gains[index], result.limited[index], result.limited_db[index])


def settings_of(arguments: SoundArguments) -> dict[str, Any]:
    """Return the options of a command, by their flags, for its JSON."""
    flags = {"start": "from", "end": "to"}
    left_out = {"files", "json", "seed"}
    return {flags.get(name, name): value for name, value in vars(arguments).items() if name not in left_out}


def common_figures(result: Generated | Reconstructed, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the JSON of both commands has."""
    names = ("gains", "held_db", "limited", "limited_db", "sample_rate", "seconds")
    figures = {name: getattr(result, name) for name in names}
    return figures | {"settings": settings}
