"""``distill status``, ``verify`` and ``clean``: the commands that look after a cache. None imports torch."""

from __future__ import annotations

from distill.cache.compaction import clean as clean_cache
from distill.cli.options import CleanArguments, StatusArguments, VerifyArguments
from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.result import reason_entries, say_json
from distill.preprocess.status import dataset_status
from distill.preprocess.verify import repair
from distill.preprocess.verify import verify as verify_cache
from distill.text import counted, printable


def status(arguments: StatusArguments) -> int:
    """Run ``distill status``."""
    with ProgressView(json=arguments.json) as view:
        found = dataset_status(arguments.to_dataset(), progress=view.progress)
    if arguments.json:
        say_json(found)
        return 0
    counts = ", ".join(f"{found[kind]} {kind}" for kind in ("unchanged", "added", "changed", "renamed", "removed"))
    say(f"{arguments.dataset}: {counted(found['files'], 'audio file')} ({counts})")
    unused = f" and {counted(found['dead_rows'], 'unused row')}" if found["dead_rows"] else ""
    say(f"cache: {counted(found['rows'], 'row')}{unused}, {found['bytes'] / 1e6:.1f} MB in {found['cache_dir']}")
    if found["damage"]:
        say(f"  damaged: manifest.json: {printable(found['damage'])}; all features will be computed again")
    for entry in found["skipped_files"]:
        say(f"  skipped: {printable(entry['path'])}: {entry['reason']}")
    return 0


def verify(arguments: VerifyArguments) -> int:
    """Run ``distill verify``; its exit status is 1 if damage is left."""
    dataset, workers = arguments.to_dataset(), arguments.workers
    with ProgressView(json=arguments.json) as view:
        found = verify_cache(dataset, workers=workers, progress=view.progress)
        for path, reason in found.damaged:
            view.line(f"damaged: {printable(path)}: {printable(reason)}")
        left = found
        if arguments.repair and found.damaged:
            repair(dataset, workers=workers, progress=view.progress).log()
            left = verify_cache(dataset, workers=workers, progress=view.progress)
    repaired = len(found.damaged) - len(left.damaged)
    if arguments.json:
        counts = {"rows": found.rows, "packs": found.packs, "files": found.files}
        say_json({**counts, "damaged": reason_entries(found.damaged), "repaired": repaired})
    else:
        rows, packs, files = counted(left.rows, "row"), counted(left.packs, "pack"), counted(left.files, "file")
        say(f"checked {rows} in {packs} and {files}: {_verdict(len(left.damaged), repaired, arguments.repair)}")
    return 1 if left.damaged else 0


def _verdict(damaged: int, repaired: int, was_repaired: bool) -> str:
    if damaged and was_repaired:
        return f"{damaged} still damaged, {repaired} repaired"
    if damaged:
        return f"{damaged} damaged; distill verify --repair computes their features again"
    return f"no damage left, {repaired} repaired" if repaired else "no damage"


def clean(arguments: CleanArguments) -> int:
    """Run ``distill clean``."""
    dataset = arguments.to_dataset()
    dataset.check()
    with ProgressView():
        cleaned = clean_cache(dataset.cache_path)
    say(f"removed {counted(cleaned.rows, 'unused row')}, freed {cleaned.bytes / 1e6:.1f} MB")
    return 0
