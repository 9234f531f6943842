"""The ``distill`` command: train, preprocess, status."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from distill import train as train_command
from distill.entry import run_command, say
from distill.files import printable

_USAGE = """usage: distill COMMAND [OPTIONS]

  train DATASET        train a model on a folder of audio (the same as python -m distill.train)
  preprocess DATASET   compute and keep the features that training would use, and no more
  status DATASET       what is in the cache and what has changed, without decoding anything

distill COMMAND --help lists a command's options."""
_STATUS_FIGURES = ("files", "unchanged", "added", "changed", "renamed", "removed", "skipped", "rows", "bytes")


def _preprocess(argv: Sequence[str]) -> int:
    from distill.console import ProgressView  # noqa: PLC0415 - Ctrl-C is answered while these are imported
    from distill.options import preprocess_arguments  # noqa: PLC0415

    arguments = preprocess_arguments(argv)
    from distill.audio.preprocessing import preprocess  # noqa: PLC0415 - torch takes seconds; --help needs none

    # Standard output is for the result alone when it is to be read by a program.
    with ProgressView(sys.stderr if arguments.json else sys.stdout) as view:
        result = preprocess(
            arguments.dataset,
            arguments.training,
            cache_dir=arguments.cache_dir,
            workers=arguments.workers,
            progress=view.preprocess,
        )
        result.log()
    if arguments.json:
        skipped = [{"path": path, "reason": reason} for path, reason in result.skipped]
        figures = {name: getattr(result, name) for name in ("decoded", "rows", "normalization_stats", "seconds")}
        say(json.dumps({"cache_dir": str(result.cache_dir), "skipped": skipped, **figures}))
    return 0


def _status(argv: Sequence[str]) -> int:
    from distill.options import status_arguments  # noqa: PLC0415 - as above

    arguments = status_arguments(argv)
    from distill.cache.status import dataset_status  # noqa: PLC0415 - as above

    status = dataset_status(arguments.dataset, arguments.cache_dir)
    if arguments.json:
        say(json.dumps({name: status[name] for name in _STATUS_FIGURES}))
        return 0
    counts = ", ".join(f"{status[kind]} {kind}" for kind in ("unchanged", "added", "changed", "renamed", "removed"))
    say(f"{arguments.dataset}: {status['files']} audio files ({counts})")
    say(f"cache: {status['rows']} rows, {status['bytes'] / 1e6:.1f} MB in {status['cache_dir']}")
    for entry in status["skipped_files"]:
        say(f"  skipped: {printable(entry['path'])}: {entry['reason']}")
    return 0


def _train(argv: Sequence[str]) -> int:
    return train_command.main(argv, "distill train")


_COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"train": _train, "preprocess": _preprocess, "status": _status}


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
