"""``distill preprocess`` and ``distill export``: the commands that compute features and write them out."""

from __future__ import annotations

from distill.cache.export import export as export_features
from distill.cache.slots import choose_slot
from distill.cli.options import ExportArguments, PreprocessArguments
from distill.cli.process import say
from distill.cli.progress import ProgressView
from distill.cli.result import reason_entries, say_json
from distill.cli.signals import interrupted_by_signals
from distill.preprocess.pipeline import preprocess as preprocess_dataset
from distill.preprocess.ray_engine import RayEngine
from distill.preprocess.shard import Shard
from distill.text import counted


def preprocess(arguments: PreprocessArguments) -> int:
    """Run ``distill preprocess``."""
    with interrupted_by_signals(), ProgressView(json=arguments.json, yes=arguments.yes) as view:
        result = preprocess_dataset(
            arguments.to_dataset(),
            arguments.training,
            workers=arguments.workers,
            engine=None if arguments.ray is None else RayEngine(arguments.ray, arguments.workers),
            shard=None if arguments.shard is None else Shard.parse(arguments.shard),
            progress=view.progress,
            confirm=view.confirm,
        )
        result.log()
    if arguments.json:
        names = ("decoded", "adopted", "rows", "normalization_stats", "seconds")
        figures = {name: getattr(result, name) for name in names}
        lists = {"skipped": reason_entries(result.skipped), "partial": reason_entries(result.partial)}
        kinds = {"unread": result.unread, "channels": result.channels}
        say_json({"cache_dir": result.cache_dir, **lists, **kinds, **figures})
    return 0


def export(arguments: ExportArguments) -> int:
    """Run ``distill export``."""
    dataset = arguments.to_dataset()
    dataset.check()
    with ProgressView() as view:
        slot = choose_slot(dataset.cache_path, arguments.slot)
        rows = export_features(slot, arguments.output, arguments.format, view.progress)
    say(f"{counted(rows, 'row')} in {arguments.output}")
    return 0
