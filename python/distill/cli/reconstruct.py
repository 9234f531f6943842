"""``distill reconstruct``: sounds encoded and decoded by a trained model."""

from __future__ import annotations

from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.result import reason_entries, say_json
from distill.cli.run_options import ReconstructArguments
from distill.cli.sounds import common_figures, level_notes_of, line_about, settings_of, sound_options
from distill.generate.reconstruction import reconstruct as reconstruct_sounds
from distill.text import counted


def reconstruct(arguments: ReconstructArguments) -> int:
    """Run ``distill reconstruct``; it fails only if none of the files can be used."""
    with ProgressView(json=arguments.json) as view:
        result = reconstruct_sounds(arguments.run, arguments.files, arguments.out, **sound_options(arguments, view))
    if arguments.json:
        figures = {name: getattr(result, name) for name in ("files", "originals", "pictures", "sources")}
        lists = {"skipped": reason_entries(result.skipped), "partial": reason_entries(result.partial)}
        figures |= lists | {"seed": arguments.seed}
        say_json(figures | common_figures(result, settings_of(arguments)))
        return 0
    for index, (file, source) in enumerate(zip(result.files, result.sources, strict=True)):
        names = [f"from {source}"] if source.stem != file.stem else []
        say(line_about(file, [*names, *level_notes_of(result, index)]))
    sounds = counted(len(result.files), "sound")
    say(f"{sounds} in {result.seconds:.1f} s, each beside its original, with a picture of both")
    return 0
