"""``distill generate`` and ``distill reconstruct``: the commands that make sound."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill.entry import say
from distill.files import printable

if TYPE_CHECKING:
    from distill.generation import Generated
    from distill.options import GenerateArguments, ReconstructArguments
    from distill.reconstruction import Reconstructed


def generate(argv: Sequence[str]) -> int:
    """``distill generate``; returns its exit status."""
    from distill.console import ProgressView  # noqa: PLC0415 - Ctrl-C is answered while these are imported
    from distill.options import generate_arguments  # noqa: PLC0415

    arguments = generate_arguments(argv)
    arguments.check()
    from distill.generation import generate as run  # noqa: PLC0415 - torch takes seconds; --help and faults need none

    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        result = run(arguments.run, arguments.out, arguments, seed=arguments.seed, **_options(arguments, view))
    if arguments.json:
        settings = _settings(arguments) | arguments.numbers
        told = {"files": _shown(result.files), "seed": result.seed, "duration_s": result.duration_s}
        _say_json(result, settings, **told)
        return 0
    for file in _shown(result.files):
        say(f"  {printable(file)}")
    each = f"{result.duration_s:.2f} s each, at {result.sample_rate} Hz"
    say(f"{len(result.files)} sounds, {each}, in {result.seconds:.1f} s; the same again with --seed {result.seed}")
    return 0


def reconstruct(argv: Sequence[str]) -> int:
    """``distill reconstruct``; returns its exit status: 0 if any of the files could be used."""
    from distill.console import ProgressView  # noqa: PLC0415 - as above
    from distill.options import reconstruct_arguments  # noqa: PLC0415

    arguments = reconstruct_arguments(argv)
    from distill.reconstruction import reconstruct as run  # noqa: PLC0415 - as above

    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        result = run(arguments.run, arguments.files, arguments.out, **_options(arguments, view))
    if arguments.json:
        told = {name: _shown(getattr(result, name)) for name in ("files", "pictures", "sources")}
        skipped = [{"path": path, "reason": reason} for path, reason in result.skipped]
        _say_json(result, _settings(arguments), **told, skipped=skipped, seed=arguments.seed)
        return 0
    for file in _shown(result.files):
        say(f"  {printable(file)}")
    say(f"{len(result.files)} sounds in {result.seconds:.1f} s, each with a picture of what went in and came out")
    return 0


def _options(arguments: GenerateArguments | ReconstructArguments, view: Any) -> dict[str, Any]:
    return {
        "wav_format": arguments.format,
        "force": arguments.force,
        "device": arguments.device,
        "progress": view.progress,
    }


def _shown(paths: Sequence[object]) -> list[str]:
    return [str(path) for path in paths]


def _settings(arguments: GenerateArguments | ReconstructArguments) -> dict[str, Any]:
    names = {"start": "from", "end": "to"}
    apart = {"files", "json", "seed"}
    return {names.get(name, name): value for name, value in vars(arguments).items() if name not in apart}


def _say_json(result: Generated | Reconstructed, settings: dict[str, Any], **figures: Any) -> None:
    figures |= {"sample_rate": result.sample_rate, "seconds": result.seconds, "settings": settings}
    say(json.dumps(figures, default=str))
