"""``distill status``: what the cache of a dataset holds, and what has changed. Without numpy and torch."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from distill.cli.options import StatusArguments
from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.result import say_json
from distill.extensions import unread_lines
from distill.preprocess.status import dataset_status
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
