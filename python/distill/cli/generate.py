"""``distill generate``: new sounds. Imports what makes sound, and nothing that draws or trains."""

from __future__ import annotations

from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.result import say_json
from distill.cli.run_options import GenerateArguments
from distill.cli.sounds import common_figures, level_notes_of, line_about, settings_of, sound_options
from distill.generate.generation import generate as generate_sounds
from distill.text import counted


def generate(arguments: GenerateArguments) -> int:
    """Run ``distill generate``."""
    with ProgressView(json=arguments.json) as view:
        result = generate_sounds(
            arguments.run, arguments.out, arguments, seed=arguments.seed, **sound_options(arguments, view)
        )
    if arguments.json:
        figures = {"files": result.files, "seed": result.seed, "duration_s": result.duration_s}
        say_json(figures | common_figures(result, settings_of(arguments) | arguments.numbers))
        return 0
    for index, file in enumerate(result.files):
        say(line_about(file, level_notes_of(result, index)))
    each = f"{result.duration_s:.2f} s each, at {result.sample_rate} Hz"
    # Interpolations do not depend on the seed.
    again = "" if arguments.kind == "interpolation" else f"; repeat with --seed {result.seed}"
    say(f"{counted(len(result.files), 'sound')}, {each}, in {result.seconds:.1f} s{again}")
    return 0
