"""``distill verify``: checks the cache of a dataset. Without torch, unless something is repaired."""

from __future__ import annotations

from distill.cli.options import VerifyArguments
from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.result import reason_entries, say_json
from distill.cli.signals import interrupted_by_signals
from distill.preprocess.verify import UNCHECKED, repair
from distill.preprocess.verify import verify as verify_cache
from distill.text import counted, printable


def verify(arguments: VerifyArguments) -> int:
    """Run ``distill verify``; its exit status is 1 if damage is left."""
    dataset, workers = arguments.to_dataset(), arguments.workers
    with interrupted_by_signals(), ProgressView(json=arguments.json) as view:
        found = verify_cache(dataset, workers=workers, progress=view.progress)
        for path, reason in found.damaged:
            kind = "not checked" if reason.code in UNCHECKED else "damaged"
            view.line(f"{kind}: {printable(path)}: {printable(reason)}")
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
        unchecked = sum(reason.code in UNCHECKED for _, reason in left.damaged)
        verdict = _verdict(len(left.damaged) - unchecked, unchecked, repaired, was_repaired=arguments.repair)
        say(f"checked {rows} in {packs} and {files}: {verdict}")
    return 1 if left.damaged else 0


def _verdict(damaged: int, unchecked: int, repaired: int, *, was_repaired: bool) -> str:
    found = [f"{damaged} still damaged" if was_repaired else f"{damaged} damaged"] if damaged else []
    found += [f"{unchecked} could not be checked"] if unchecked else []
    if not found:
        return f"no damage left, {repaired} repaired" if repaired else "no damage"
    if was_repaired:
        return ", ".join([*found, f"{repaired} repaired"])
    remedy = "; distill verify --repair computes their features again" if damaged else ""
    return ", ".join(found) + remedy
