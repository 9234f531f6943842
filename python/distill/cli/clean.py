"""``distill clean``: frees space in the cache of a dataset. Without torch."""

from __future__ import annotations

import sys
from pathlib import Path

from distill.cache.compaction import clean as clean_cache
from distill.cache.removal import choose_removals, remove
from distill.cli.options import CleanArguments
from distill.cli.process import ask, is_terminal, say
from distill.cli.progress import ProgressView
from distill.errors import ConfigError
from distill.text import counted


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
