"""``distill preprocess``: computes the features. Without torch, which takes a second, where nothing has changed."""

from __future__ import annotations

from distill.cli.options import PreprocessArguments
from distill.cli.progress import ProgressView
from distill.cli.result import reason_entries, say_json
from distill.cli.signals import interrupted_by_signals
from distill.preprocess.result import PreprocessResult
from distill.preprocess.unchanged import unchanged_result


def preprocess(arguments: PreprocessArguments) -> int:
    """Run ``distill preprocess``."""
    with interrupted_by_signals(), ProgressView(json=arguments.json, yes=arguments.yes) as view:
        result = _unchanged(arguments, view) or _computed(arguments, view)
        result.log()
    if arguments.json:
        names = ("decoded", "adopted", "rows", "normalization_stats", "seconds")
        figures = {name: getattr(result, name) for name in names}
        lists = {"skipped": reason_entries(result.skipped), "partial": reason_entries(result.partial)}
        kinds = {"unread": result.unread, "channels": result.channels}
        say_json({"cache_dir": result.cache_dir, **lists, **kinds, **figures})
    return 0


def _unchanged(arguments: PreprocessArguments, view: ProgressView) -> PreprocessResult | None:
    if arguments.ray is not None or arguments.shard is not None:
        return None
    dataset, config = arguments.to_dataset(), arguments.training
    return unchanged_result(dataset, config, workers=arguments.workers, progress=view.progress)


def _computed(arguments: PreprocessArguments, view: ProgressView) -> PreprocessResult:
    # Only now: they import numpy and what decodes.
    from distill.preprocess.pipeline import preprocess as preprocess_dataset  # noqa: PLC0415
    from distill.preprocess.ray_engine import RayEngine  # noqa: PLC0415
    from distill.preprocess.shares import Shard  # noqa: PLC0415

    return preprocess_dataset(
        arguments.to_dataset(),
        arguments.training,
        workers=arguments.workers,
        engine=None if arguments.ray is None else RayEngine(arguments.ray, arguments.workers),
        shard=None if arguments.shard is None else Shard.parse(arguments.shard),
        progress=view.progress,
        confirm=view.confirm,
    )
