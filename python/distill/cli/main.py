"""The ``distill`` command: train, preprocess, and what looks after a cache."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.cli import sounds as sound_commands
from distill.cli import train as train_command
from distill.cli.process import run_command, say
from distill.text import counted, printable

if TYPE_CHECKING:
    from distill.cli.options import CleanArguments, ExportArguments
    from distill.index import Dataset

_USAGE = """usage: distill COMMAND [OPTIONS]

  train DATASET        train a model on a folder of audio (the same as python -m distill.train)
  preprocess DATASET   compute and keep the features that training would use, and no more
  status DATASET       what is in the cache and what has changed, without decoding anything
  verify DATASET       check every row and every file; --repair computes again what is damaged
  clean DATASET        give back the space of rows that no file has any more
  analyze RUN          what the axes of a trained model's latent space are, from the sounds of its dataset
  generate RUN         new sounds: samples, ways from one sound to another, variations of one
  reconstruct RUN ...  sounds by way of a trained model, with a picture of what went in and came out
  export DATASET OUT   write the features as pt, npy or safetensors for other tools

distill COMMAND --help lists a command's options."""


def _preprocess(argv: Sequence[str]) -> int:
    from distill.cli.options import preprocess_arguments  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - Ctrl-C is answered while these are imported

    arguments = preprocess_arguments(argv)
    from distill.preprocess.pipeline import preprocess  # noqa: PLC0415 - torch takes seconds; --help needs none

    # Standard output is for the result alone when it is to be read by a program.
    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        result = preprocess(
            _dataset_of(arguments), arguments.training, workers=arguments.workers, progress=view.progress
        )
        result.log()
    if arguments.json:
        skipped = [{"path": path, "reason": reason} for path, reason in result.skipped]
        figures = {name: getattr(result, name) for name in ("decoded", "rows", "normalization_stats", "seconds")}
        say(json.dumps({"cache_dir": str(result.cache_dir), "skipped": skipped, **figures}))
    return 0


def _status(argv: Sequence[str]) -> int:
    from distill.cli.options import status_arguments  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - as above

    arguments = status_arguments(argv)
    from distill.preprocess.status import dataset_status  # noqa: PLC0415 - as above

    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        status = dataset_status(_dataset_of(arguments), progress=view.progress)
    if arguments.json:
        say(json.dumps(status))
        return 0
    counts = ", ".join(f"{status[kind]} {kind}" for kind in ("unchanged", "added", "changed", "renamed", "removed"))
    say(f"{arguments.dataset}: {counted(status['files'], 'audio file')} ({counts})")
    dead = f" and {status['dead_rows']} that no file has any more" if status["dead_rows"] else ""
    say(f"cache: {counted(status['rows'], 'row')}{dead}, {status['bytes'] / 1e6:.1f} MB in {status['cache_dir']}")
    if status["damage"]:
        say(f"  damaged: manifest.json: {printable(status['damage'])}; its features are computed anew")
    for entry in status["skipped_files"]:
        say(f"  skipped: {printable(entry['path'])}: {entry['reason']}")
    return 0


def _verify(argv: Sequence[str]) -> int:
    from distill.cli.options import verify_arguments  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - as above

    arguments = verify_arguments(argv)
    from distill.preprocess.verify import repair, verify  # noqa: PLC0415 - as above

    dataset, workers = _dataset_of(arguments), arguments.workers
    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        found = verify(dataset, workers=workers, progress=view.progress)
        for path, reason in found.damaged:
            view.line(f"damaged: {printable(path)}: {printable(reason)}")
        left = found
        if arguments.repair and found.damaged:
            repair(dataset, workers=workers, progress=view.progress).log()
            left = verify(dataset, workers=workers, progress=view.progress)
    repaired = len(found.damaged) - len(left.damaged)
    if arguments.json:
        damaged = [{"path": path, "reason": reason} for path, reason in found.damaged]
        counts = {"rows": found.rows, "packs": found.packs, "files": found.files}
        say(json.dumps({**counts, "damaged": damaged, "repaired": repaired}))
    else:
        rows, packs, files = (counted(getattr(left, f"{noun}s"), noun) for noun in ("row", "pack", "file"))
        say(f"checked {rows} in {packs} and {files}: {_verdict(len(left.damaged), repaired, arguments.repair)}")
    return 1 if left.damaged else 0


def _verdict(damaged: int, repaired: int, was_repaired: bool) -> str:
    if damaged and was_repaired:
        return f"{damaged} still damaged, {repaired} repaired"
    if damaged:
        return f"{damaged} damaged; distill verify --repair computes them again"
    return f"all whole, {repaired} of them repaired" if repaired else "all whole"


def _dataset_of(arguments: Any) -> Dataset:
    from distill.index import Dataset  # noqa: PLC0415 - as above

    names = ("cache_dir", "follow_links", "trust")
    return Dataset(arguments.dataset, **{name: getattr(arguments, name) for name in names if hasattr(arguments, name)})


def _cache_of(arguments: CleanArguments | ExportArguments) -> Path:
    dataset = _dataset_of(arguments)
    dataset.check()
    return dataset.cache_path


def _clean(argv: Sequence[str]) -> int:
    from distill.cli.options import clean_arguments  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - as above

    arguments = clean_arguments(argv)
    from distill.cache.compaction import clean  # noqa: PLC0415 - as above

    with ProgressView():
        cleaned = clean(_cache_of(arguments))
    say(f"{counted(cleaned.rows, 'row')} and {cleaned.bytes / 1e6:.1f} MB given back")
    return 0


def _export(argv: Sequence[str]) -> int:
    from distill.cli.options import export_arguments  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - as above

    arguments = export_arguments(argv)
    from distill.cache.export import export  # noqa: PLC0415 - as above

    with ProgressView() as view:
        rows = export(_cache_of(arguments), arguments.output, arguments.format, view.progress)
    say(f"{counted(rows, 'row')} in {arguments.output}")
    return 0


def _analyze(argv: Sequence[str]) -> int:
    from distill.cli.options import analyze_arguments  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - as above

    arguments = analyze_arguments(argv)
    from distill.latent.analysis import analyze  # noqa: PLC0415 - as above

    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        analysis = analyze(
            arguments.run,
            arguments.dataset,
            cache_dir=arguments.cache_dir,
            device=arguments.device,
            seed=arguments.seed,
            progress=view.progress,
        )
    report = analysis.report
    if arguments.json:
        say(json.dumps(report))
        return 0
    active = f"{report['active_units']} of {report['latent_dim']} latent units are active"
    say(f"{counted(report['n'], 'row')} of {counted(len(report['files']), 'file')}; {active}")
    for number, (name, share) in enumerate(zip(report["names"][:8], report["variance_explained"], strict=False), 1):
        r = {feature: values[number - 1] for feature, values in report["correlations"].items()}
        told = ", ".join(f"{feature} {r[feature]:+.2f}" for feature in sorted(r, key=lambda of: -abs(r[of]))[:3])
        say(f"  {number} {name:<18} {100 * share:5.1f} % of the variance; r with {told}")
    say(f"{printable(str(analysis.folder))}: analysis.json, analysis.safetensors, scree.png, map.png, sweep.png")
    if arguments.dataset is not None:
        of = printable(str(arguments.dataset))
        say(f"distill generate --axis moves along these axes, of {of}, until distill analyze RUN finds others")
    return 0


def _train(argv: Sequence[str]) -> int:
    return train_command.main(argv, "distill train")


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": _train,
    "preprocess": _preprocess,
    "status": _status,
    "verify": _verify,
    "clean": _clean,
    "export": _export,
    "analyze": _analyze,
    "generate": sound_commands.generate,
    "reconstruct": sound_commands.reconstruct,
}


def main(argv: Sequence[str] | None = None) -> Any:
    """Run a command; returns its exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        say(_USAGE)
        return 0 if argv else 2
    if argv[0] == "--version":
        from distill import __version__  # noqa: PLC0415

        say(f"distill {__version__}")
        return 0
    if argv[0] not in _COMMANDS:
        say(f"error: no command {argv[0]!r}\n{_USAGE}", sys.stderr)
        return 2
    return run_command(lambda: _COMMANDS[argv[0]](argv[1:]))
