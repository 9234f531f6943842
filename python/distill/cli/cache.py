"""``distill status``, ``verify`` and ``clean``: the commands that look after a cache. None imports torch."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from distill.cache.compaction import clean as clean_cache
from distill.cache.removal import choose_removals, remove
from distill.cli.options import CleanArguments, StatusArguments, VerifyArguments
from distill.cli.process import ask, is_terminal, say
from distill.cli.progress import ProgressView
from distill.cli.result import reason_entries, say_json
from distill.cli.signals import interrupted_by_signals
from distill.errors import ConfigError
from distill.extensions import unread_lines
from distill.preprocess.status import dataset_status
from distill.preprocess.verify import UNCHECKED, repair
from distill.preprocess.verify import verify as verify_cache
from distill.text import counted, listed, printable


def status(arguments: StatusArguments) -> int:
    """Run ``distill status``."""
    with ProgressView(json=arguments.json) as view:
        found = dataset_status(arguments.to_dataset(), progress=view.progress)
    if arguments.json:
        say_json(found)
        return 0
    counts = ", ".join(f"{found[kind]} {kind}" for kind in ("unchanged", "added", "changed", "renamed", "removed"))
    say(f"{arguments.dataset}: {counted(found['files'], 'audio file')} ({counts})")
    total = sum(slot["bytes"] for slot in found["slots"])
    say(f"cache: {counted(len(found['slots']), 'slot')}, {total / 1e6:.1f} MB in {found['cache_dir']}")
    for slot in found["slots"]:
        say(f"  {_slot_line(slot)}")
    if found["leftover"]:
        left = found["leftover"]
        files = f"{counted(left['files'], 'file')} of an earlier program, {left['bytes'] / 1e6:.1f} MB"
        say(f"  {left['name']}: {files}; not used, and left alone until distill clean --slot {left['name']}")
    if found["left_out"]:
        say(f"  left out, because distill wrote them: {printable(listed(found['left_out'], 3))}")
    for entry in found["skipped_files"]:
        say(f"  skipped: {printable(entry['path'])}: {entry['reason']}")
    for entry in found["partial"]:
        say(f"  used in part: {printable(entry['path'])}: {printable(entry['reason'])}")
    for line in unread_lines(found["unread"]):
        say(f"  {line}")
    return 0


def _slot_line(slot: dict[str, Any]) -> str:
    if slot["damage"]:
        return f"{slot['name']}: {slot['bytes'] / 1e6:.1f} MB, {printable(slot['configuration'])}"
    unused = f" and {counted(slot['dead_rows'], 'unused row')}" if slot["dead_rows"] else ""
    rows = f"{counted(slot['rows'], 'row')}{unused}, {slot['bytes'] / 1e6:.1f} MB"
    used = datetime.fromisoformat(slot["last_used"]).astimezone()
    return f"{slot['name']}: {rows}, used {used:%Y-%m-%d %H:%M}: {slot['configuration']}"


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


def clean(arguments: CleanArguments) -> int:
    """Run ``distill clean``."""
    dataset = arguments.to_dataset()
    if arguments.cache_dir is None:
        dataset.check()
    if arguments.slot or arguments.older_than:
        return _remove_slots(dataset.cache_path, arguments)
    with ProgressView():
        cleaned = clean_cache(dataset.cache_path)
    say(f"removed {counted(cleaned.rows, 'unused row')}, freed {cleaned.bytes / 1e6:.1f} MB")
    return 0


def _remove_slots(cache_dir: Path, arguments: CleanArguments) -> int:
    chosen = choose_removals(cache_dir, arguments.slot, arguments.oldest_s)
    if not chosen:
        say(f"nothing to remove: no slot was unused for {arguments.older_than}")
        return 0
    for removal in chosen:
        say(f"to be removed: {removal.name}: {removal.words}, {removal.bytes / 1e6:.1f} MB")
    if not arguments.yes:
        if not is_terminal(sys.stdin):
            raise ConfigError(["nothing was removed: there is no terminal to ask on"], "answer in advance with --yes")
        if not ask("Remove?", sys.stderr):
            say("nothing was removed")
            return 0
    with ProgressView():
        removed = remove(cache_dir, chosen)
    say(f"removed {counted(len(removed), 'slot')}, freed {sum(removal.bytes for removal in removed) / 1e6:.1f} MB")
    return 0
