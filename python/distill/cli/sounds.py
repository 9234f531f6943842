"""``distill generate`` and ``distill reconstruct``: the commands that make sound."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.cli.process import say
from distill.text import counted, printable

if TYPE_CHECKING:
    from distill.cli.options import GenerateArguments, ReconstructArguments
    from distill.generate.generation import Generated
    from distill.generate.reconstruction import Reconstructed


def generate(argv: Sequence[str]) -> int:
    """``distill generate``; returns its exit status."""
    from distill.cli.options import generate_arguments  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - Ctrl-C is answered while these are imported

    arguments = generate_arguments(argv)
    arguments.check()
    from distill.generate.generation import generate as run  # noqa: PLC0415 - torch takes seconds; --help and faults need none

    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        result = run(arguments.run, arguments.out, arguments, seed=arguments.seed, **_options(arguments, view))
    if arguments.json:
        settings = _settings(arguments) | arguments.numbers
        told = {"files": _shown(result.files), "seed": result.seed, "duration_s": result.duration_s}
        _say_json(result, settings, **told)
        return 0
    for file, gain in zip(result.files, result.gains, strict=True):
        say(_line(file, gain))
    each = f"{result.duration_s:.2f} s each, at {result.sample_rate} Hz"
    # A way hangs on no seed.
    again = "" if arguments.kind == "interpolation" else f"; the same again with --seed {result.seed}"
    say(f"{counted(len(result.files), 'sound')}, {each}, in {result.seconds:.1f} s{again}")
    return 0


def reconstruct(argv: Sequence[str]) -> int:
    """``distill reconstruct``; returns its exit status: 0 if any of the files could be used."""
    from distill.cli.options import reconstruct_arguments  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - as above

    arguments = reconstruct_arguments(argv)
    from distill.generate.reconstruction import reconstruct as run  # noqa: PLC0415 - as above

    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        result = run(arguments.run, arguments.files, arguments.out, **_options(arguments, view))
    if arguments.json:
        told = {name: _shown(getattr(result, name)) for name in ("files", "pictures", "sources")}
        skipped = [{"path": path, "reason": reason} for path, reason in result.skipped]
        _say_json(result, _settings(arguments), **told, skipped=skipped, seed=arguments.seed)
        return 0
    for file, gain, source in zip(result.files, result.gains, result.sources, strict=True):
        say(_line(file, gain, source))
    sounds = counted(len(result.files), "sound")
    say(f"{sounds} in {result.seconds:.1f} s, each with a picture of what went in and came out")
    return 0


def _options(arguments: GenerateArguments | ReconstructArguments, view: Any) -> dict[str, Any]:
    return {
        "wav_format": arguments.format,
        "force": arguments.force,
        "device": arguments.device,
        "progress": view.progress,
    }


def _line(file: Path, gain: float, source: Path | None = None) -> str:
    """What is said of a file: its name, that of its source where it is another, and that it was made quieter."""
    notes = [f"of {source}"] if source is not None and source.stem != file.stem else []
    quieter_db = round(-20 * math.log10(gain), 1)
    if quieter_db > 0:
        notes.append(f"{quieter_db} dB quieter, so as not to clip")
    return "  " + printable(", ".join([str(file), *notes]))


def _shown(paths: Sequence[object]) -> list[str]:
    return [str(path) for path in paths]


def _settings(arguments: GenerateArguments | ReconstructArguments) -> dict[str, Any]:
    names = {"start": "from", "end": "to"}
    apart = {"files", "json", "seed"}
    return {names.get(name, name): value for name, value in vars(arguments).items() if name not in apart}


def _say_json(result: Generated | Reconstructed, settings: dict[str, Any], **figures: Any) -> None:
    own = {name: getattr(result, name) for name in ("gains", "sample_rate", "seconds")}
    say(json.dumps(figures | own | {"settings": settings}, default=str))
