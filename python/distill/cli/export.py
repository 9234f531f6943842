"""``distill export``: writes cached features to another format."""

from __future__ import annotations

from distill.cache.export import export as export_features
from distill.cache.slots import choose_slot
from distill.cli.options import ExportArguments
from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.signals import interrupted_by_signals
from distill.text import counted


def export(arguments: ExportArguments) -> int:
    """Run ``distill export``."""
    dataset = arguments.to_dataset()
    dataset.check()
    with interrupted_by_signals(), ProgressView() as view:
        slot = choose_slot(dataset.cache_path, arguments.slot)
        try:
            rows = export_features(slot, arguments.output, arguments.format, view.progress)
        except KeyboardInterrupt as interruption:
            interruption.outcome = "what was written is removed"  # type: ignore[attr-defined]
            raise
    say(f"{counted(rows, 'row')} in {arguments.output}")
    return 0
