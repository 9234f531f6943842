"""``distill preprocess``: computes the features. Without torch, which takes a second, where nothing has changed."""

from __future__ import annotations

from distill.cli.options import PreprocessArguments
from distill.cli.progress import ProgressView
from distill.cli.result import reason_entries, say_json
from distill.cli.signals import interrupted_by_signals
from distill.preprocess.pipeline import preprocess as preprocess_dataset
from distill.preprocess.ray_engine import RayEngine
from distill.preprocess.shares import Shard


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
