"""``distill analyze``, ``generate`` and ``reconstruct``: the commands that use a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distill.cli.options import AnalyzeArguments, GenerateArguments, ReconstructArguments, SoundArguments
from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.result import reason_entries, say_json
from distill.generate.generation import Generated
from distill.generate.generation import generate as generate_sounds
from distill.generate.output import level_notes
from distill.generate.reconstruction import Reconstructed
from distill.generate.reconstruction import reconstruct as reconstruct_sounds
from distill.latent.analysis import analyze as analyze_latent
from distill.text import counted, printable

_AXES_SHOWN = 8
_CORRELATIONS_SHOWN = 3


def analyze(arguments: AnalyzeArguments) -> int:
    """Run ``distill analyze``."""
    with ProgressView(json=arguments.json, yes=arguments.yes) as view:
        analysis = analyze_latent(
            arguments.run,
            arguments.dataset,
            cache_dir=arguments.cache_dir,
            device=arguments.device,
            seed=arguments.seed,
            progress=view.progress,
            confirm=view.confirm,
        )
    report = analysis.report
    if arguments.json:
        say_json(report)
        return 0
    active = f"{report['active_units']} of {report['latent_dim']} latent units are active"
    say(f"{counted(report['n'], 'row')} of {counted(len(report['files']), 'file')}; {active}")
    axes = zip(report["names"][:_AXES_SHOWN], report["variance_explained"], strict=False)
    for index, (name, share) in enumerate(axes):
        r = {feature: values[index] for feature, values in report["correlations"].items()}
        strongest = sorted(r, key=lambda feature: -abs(r[feature]))[:_CORRELATIONS_SHOWN]
        shown = ", ".join(f"{feature} {r[feature]:+.2f}" for feature in strongest)
        say(f"  {index + 1} {name:<18} {100 * share:5.1f} % of the variance; r with {shown}")
    say(f"{printable(str(analysis.folder))}: analysis.json, analysis.safetensors, scree.png, map.png, sweep.png")
    if arguments.dataset is not None:
        dataset = printable(str(arguments.dataset))
        say(f"distill generate --axis now uses these axes, of {dataset}; distill analyze RUN brings back the run's own")
    return 0


def generate(arguments: GenerateArguments) -> int:
    """Run ``distill generate``."""
    with ProgressView(json=arguments.json) as view:
        result = generate_sounds(
            arguments.run, arguments.out, arguments, seed=arguments.seed, **_sound_options(arguments, view)
        )
    if arguments.json:
        figures = {"files": result.files, "seed": result.seed, "duration_s": result.duration_s}
        say_json(figures | _common_figures(result, _settings(arguments) | arguments.numbers))
        return 0
    for index, file in enumerate(result.files):
        say(_line(file, _level_notes(result, index)))
    each = f"{result.duration_s:.2f} s each, at {result.sample_rate} Hz"
    # Interpolations do not depend on the seed.
    again = "" if arguments.kind == "interpolation" else f"; repeat with --seed {result.seed}"
    say(f"{counted(len(result.files), 'sound')}, {each}, in {result.seconds:.1f} s{again}")
    return 0


def reconstruct(arguments: ReconstructArguments) -> int:
    """Run ``distill reconstruct``; it fails only if none of the files can be used."""
    with ProgressView(json=arguments.json) as view:
        result = reconstruct_sounds(arguments.run, arguments.files, arguments.out, **_sound_options(arguments, view))
    if arguments.json:
        figures = {name: getattr(result, name) for name in ("files", "originals", "pictures", "sources")}
        lists = {"skipped": reason_entries(result.skipped), "partial": reason_entries(result.partial)}
        figures |= lists | {"seed": arguments.seed}
        say_json(figures | _common_figures(result, _settings(arguments)))
        return 0
    for index, (file, source) in enumerate(zip(result.files, result.sources, strict=True)):
        names = [f"from {source}"] if source.stem != file.stem else []
        say(_line(file, [*names, *_level_notes(result, index)]))
    sounds = counted(len(result.files), "sound")
    say(f"{sounds} in {result.seconds:.1f} s, each beside its original, with a picture of both")
    return 0


def _sound_options(arguments: SoundArguments, view: ProgressView) -> dict[str, Any]:
    return {
        "file_format": arguments.format,
        "sample_format": arguments.sample_format,
        "sample_rate": arguments.sample_rate,
        "force": arguments.force,
        "device": arguments.device,
        "progress": view.progress,
    }


def _line(file: Path, notes: list[str]) -> str:
    """Return the line about a written file."""
    return "  " + printable(", ".join([str(file), *notes]))


def _level_notes(result: Generated | Reconstructed, index: int) -> list[str]:
    """Return in words what was done to the level of a sound, and so that it does not clip."""
    return level_notes(result.held_db[index], result.gains[index], result.limited[index], result.limited_db[index])


def _settings(arguments: SoundArguments) -> dict[str, Any]:
    flags = {"start": "from", "end": "to"}
    left_out = {"files", "json", "seed"}
    return {flags.get(name, name): value for name, value in vars(arguments).items() if name not in left_out}


def _common_figures(result: Generated | Reconstructed, settings: dict[str, Any]) -> dict[str, Any]:
    names = ("gains", "held_db", "limited", "limited_db", "sample_rate", "seconds")
    figures = {name: getattr(result, name) for name in names}
    return figures | {"settings": settings}
