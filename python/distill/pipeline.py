"""From a dataset to a trained model: preprocessing, training and analysis, composed."""

from __future__ import annotations

import logging
import shlex
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.errors import ConfigError, DatasetError, DistillError, PreprocessingCancelled, RunError
from distill.index import Dataset, Trust
from distill.latent.analysis import analyze_rows
from distill.latent.rows import open_rows
from distill.preprocess.parts import Engine
from distill.preprocess.pipeline import preprocess
from distill.runs.folder import RunFolder
from distill.runs.trained import TrainedRun
from distill.text import counted, differences
from distill.training.cached import CachedSpectrogramDataset
from distill.training.data import TrainingData
from distill.training.defaults import resolve_training
from distill.training.events import TrainEvent, TrainResult
from distill.training.resume import unchanged_result
from distill.training.split import FEW_CHUNKS, fixed_limit
from distill.training.tensorboard import check_tensorboard
from distill.training.trainer import Trainer
from distill.training.world import World, joined
from distill.types import ConfirmCallback, PathLike, ProgressCallback

logger = logging.getLogger(__name__)


def train(
    dataset_dir: PathLike | None,
    output_dir: PathLike,
    config: TrainingConfig | None = None,
    *,
    files: Sequence[PathLike] | None = None,
    resume: bool = False,
    on_event: Callable[[TrainEvent], None] | None = None,
    cancel_event: threading.Event | None = None,
    cache_dir: PathLike | None = None,
    trust: Trust = "stat",
    follow_links: bool = False,
    confirm_callback: ConfirmCallback | None = None,
    engine: Engine | None = None,
    tensorboard: bool = False,
    analyze: bool = True,
) -> TrainResult:
    """Train a VAE on a folder of audio, after preprocessing what is not in its cache yet.

    Processes that torchrun starts train one model together: each calls this function with the same arguments. The first
    one preprocesses, writes the run and returns the complete result; those of the others have no figures.

    Parameters
    ----------
    dataset_dir : path or None
        The folder; None to use that of the run to resume.
    output_dir : path
        Folder of the new run, or of the run to resume.
    config : TrainingConfig, optional
        Default: ``TrainingConfig()``, or that of the run to resume.
    files : sequence of path, optional
        Files of the dataset to use. Default: all.
    resume : bool
        Continue the run in `output_dir`. Default: False.
    on_event : callable, optional
        Called with a TrainEvent on progress.
    cancel_event : threading.Event, optional
        Set it to stop after the current step, with everything saved. If training has finished, it is not analysed.
    cache_dir : path, optional
        Default: DATASET/.cache.
    trust : {"stat", "content"}
        How unchanged files are recognised: by size and timestamps, or by content, for which every file is read.
        Default: "stat".
    follow_links : bool
        Follow symbolic links that lead out of the dataset, and links to folders. Default: False, or as in the run to
        resume.
    confirm_callback : callable, optional
        Called with a question before more than 100 MB are preprocessed; preprocessing is cancelled if it returns False.
    engine : callable, optional
        What computes the features, such as a `RayEngine`. Default: threads of this process.
    tensorboard : bool
        Also write metrics and previews to OUTPUT/tensorboard. Default: False.
    analyze : bool
        Analyse the latent space afterwards, as `distill.latent.analysis.analyze` does. If that fails, the reason is
        logged as a warning. Default: True.

    Returns
    -------
    TrainResult

    Raises
    ------
    ConfigError, DatasetError, DeviceError, RunError
        If the arguments cannot be used, tensorboard is not installed, `output_dir` already holds a run that is not to
        be resumed, or another process trains or analyses it. Nothing has been written then.
    NothingUsableError
        If no file gives a single chunk.
    StorageError
        If cache or run folder cannot be written.
    TrainingDivergedError
        If a loss or a weight is no longer finite.
    ProcessLostError
        If another one of several processes ends.

    Examples
    --------
    >>> from distill.training import TrainingConfig, train
    >>> config = TrainingConfig(epochs=1, augmentation_expansion=0, preview_epochs=0)
    >>> result = train("recordings", "runs/short", config, analyze=False)
    >>> result.status
    'finished'
    """
    if tensorboard:
        check_tensorboard()
    cancel = cancel_event or threading.Event()
    on_event = on_event or (lambda event: None)
    run = RunFolder(output_dir)
    dataset, config = _dataset_and_config(
        run if resume else None, dataset_dir, config, files=files, cache_dir=cache_dir, follow_links=follow_links
    )
    if fault := config.features.training_fault():
        raise ConfigError(
            [fault], "distill preprocess and CachedSpectrogramDataset take this feature, for a model of your own"
        )
    dataset = replace(dataset, trust=trust)
    resolve_device(config.device)
    dataset.check()

    def progress(stage: str, current: int, total: int) -> None:
        if cancel.is_set():
            raise PreprocessingCancelled("cancelled; finished work is kept")
        on_event(TrainEvent("preprocess", {"stage": stage, "current": current, "total": total}))

    with joined(config.device, cancel) as world:
        if not world.is_first:
            return _follow(world, run, dataset)
        with run.lock():
            if not resume:
                run.create(config, dataset)
            checkpoint = run.load_state() if resume else None
            try:
                data, config = _load_data(dataset, config, checkpoint, progress, confirm_callback, engine)
            except DistillError as error:
                if isinstance(error, PreprocessingCancelled) and cancel.is_set():
                    return unchanged_result(run, checkpoint)
                if not resume:
                    # An empty run folder would prevent another try with the same name.
                    run.discard()
                raise
            world.tell(lambda: _Task.of(run, config, data))
            trainer = Trainer(run, config, data, checkpoint, on_event=on_event, world=world, tensorboard=tensorboard)
            result = _trained(trainer, dataset)
            world.end()
            return _analyzed(trainer, result, dataset) if analyze and not cancel.is_set() else result


@dataclass(frozen=True)
class _Task:
    """What the first of several processes tells the others before training."""

    run: Path
    config: TrainingConfig
    cache_dir: Path | None
    """The slot of the cache; None for one channel, for which every process decodes the dataset."""
    stats: dict[str, float]
    val_limit: int
    content_key: str
    order_key: str

    @classmethod
    def of(cls, run: RunFolder, config: TrainingConfig, data: TrainingData) -> _Task:
        rows = data.train.dataset
        cache_dir = Path(rows.cache_dir) if isinstance(rows, CachedSpectrogramDataset) else None
        return cls(run.path, config, cache_dir, data.stats, data.val_limit, data.content_key, data.order_key)

    def load(self, dataset: Dataset) -> TrainingData:
        """Open the data that the first process trains on."""
        if self.cache_dir is None:
            data = TrainingData.from_audio(dataset, self.config, self.stats, val_limit=self.val_limit)
        else:
            data = TrainingData.from_cache(self.cache_dir, self.config, self.stats, val_limit=self.val_limit)
        if (data.content_key, data.order_key) != (self.content_key, self.order_key):
            where = self.cache_dir or dataset.path
            raise DatasetError(
                f"{where}: this process finds other features there than the first one, or in another order",
                "all machines need the same folder, and nothing may change it while training starts",
            )
        return data


def _follow(world: World, run: RunFolder, dataset: Dataset) -> TrainResult:
    """Train together with the first process, which writes the run folder and returns the complete result."""
    task: _Task | None = world.hear()
    if task is None:
        return TrainResult(run.path, "interrupted", 0, {})
    data, run = task.load(dataset), RunFolder(task.run)
    trainer = Trainer(run, task.config, data, None, on_event=lambda event: None, world=world)
    result = trainer.train(dataset)
    world.end()
    return result


def _dataset_and_config(
    resumed: RunFolder | None,
    dataset_dir: PathLike | None,
    config: TrainingConfig | None,
    *,
    files: Sequence[PathLike] | None,
    cache_dir: PathLike | None,
    follow_links: bool,
) -> tuple[Dataset, TrainingConfig]:
    """Return the dataset and configuration to train with; those of a resumed run where an argument is not given."""
    if resumed:
        before = resumed.dataset()
        config = config or resumed.config()
        if config.shuffle == "auto":
            config = replace(config, shuffle=resumed.config().shuffle)
        _check_resumable(resumed, config)
        dataset_dir = before.folder if dataset_dir is None else dataset_dir
        cache_dir = before.cache_dir if cache_dir is None else cache_dir
        files = before.files if files is None else files
        follow_links = follow_links or before.follow_links
    if dataset_dir is None:
        raise RunError("no dataset was given", "give a folder, or resume a run")
    dataset = Dataset(dataset_dir, files=files, cache_dir=cache_dir, follow_links=follow_links)
    return dataset, config or TrainingConfig()


def _load_data(
    dataset: Dataset,
    config: TrainingConfig,
    checkpoint: dict[str, Any] | None,
    progress: ProgressCallback,
    confirm: ConfirmCallback | None,
    engine: Engine | None,
) -> tuple[TrainingData, TrainingConfig]:
    """Preprocess a dataset, or decode it for one channel (the v1.0 path), and choose what depends on its size.

    Returns
    -------
    data : TrainingData
    config : TrainingConfig
        With the fields set that `resolve_training` and preprocessing choose.
    """
    # A run keeps the statistics that it began with, because its weights depend on them, and what it holds out.
    stats, val_limit = None, None
    if checkpoint:
        stats, val_limit = checkpoint["normalization_stats"], checkpoint.get("val_limit")
        val_limit = fixed_limit(config.val_fraction) if val_limit is None else val_limit
        # A run of an earlier version: the rest of its epoch must be what it has not seen.
        config = replace(config, shuffle="blocks" if config.shuffle == "blocks" else "rows")
    if config.complex_spectrogram.enabled:
        preprocessed = preprocess(dataset, config, engine=engine, progress=progress, confirm=confirm)
        preprocessed.log()
        config = replace(config, augmentation_expansion=preprocessed.augmentation_expansion)
        load = partial(progress, "load")
        data = TrainingData.from_cache(preprocessed.cache_dir, config, stats, load, val_limit=val_limit)
    else:
        data = TrainingData.from_audio(dataset, config, stats, partial(progress, "decode"), val_limit)
    if data.is_shared:
        logger.warning(
            "there is only one %s: it is used for training and validation, so R² is meaningless", config.split_by
        )
    rows, held_out = len(data.train.dataset), len(data.val.dataset)  # type: ignore[arg-type]
    if not data.is_shared and held_out < FEW_CHUNKS:
        logger.warning(
            "R² rests on only %s, so it is uncertain: more recordings or a larger --val-fraction make it reliable",
            counted(held_out, "validation chunk"),
        )
    config = replace(config, shuffle=data.sampler.shuffle)
    config, chosen = resolve_training(config, rows)
    device = resolve_device(config.device)
    logger.info("%s, %d held out for validation, on %s", counted(rows, "training row"), held_out, device)
    if chosen:
        logger.info("chosen for this size: %s", ", ".join(chosen))
    return data, config


def _trained(trainer: Trainer, dataset: Dataset) -> TrainResult:
    """Train; what cannot be written to the run folder is a StorageError."""
    try:
        return trainer.train(dataset)
    except BrokenPipeError:  # from the caller's own output, in `on_event`
        raise
    except OSError as error:
        raise trainer.run.storage_error(error, Path(error.filename) if error.filename else None) from error


def _analyzed(trainer: Trainer, result: TrainResult, dataset: Dataset) -> TrainResult:
    """Return the result with the analysis of the latent space, or without one if that fails or is cancelled.

    The rows are those that were trained on: nothing is preprocessed, and files that were skipped are not logged again.
    """

    def progress(stage: str, current: int, total: int) -> None:
        if trainer.world.is_told_to_stop:
            raise PreprocessingCancelled("stopped")
        trainer.emit("analyze", stage=stage, current=current, total=total)

    logger.info("analysing the latent space")
    try:
        run = TrainedRun.load(result.run_dir, trainer.config.device)
        analysis = analyze_rows(run, open_rows(run, dataset), progress=progress)
    except DistillError as error:
        if not trainer.world.is_told_to_stop:
            command = f"distill analyze {shlex.quote(str(result.run_dir))}"
            remedy = f"{error.tip}, then {command}" if error.tip else f"run: {command}"
            logger.warning("the latent space was not analysed: %s (%s)", error, remedy)
        return result
    return replace(result, latent_dir=analysis.folder)


_FREE_ON_RESUME = {
    *("batch_size", "epochs", "learning_rate", "weight_decay", "dropout", "kl_weight", "kl_warmup_epochs"),
    *("if_weight", "loud_share"),
    *("free_bits", "gradient_clip", "patience", "preview_epochs", "keep_checkpoints", "device", "device_budget_mb"),
}


def _check_resumable(run: RunFolder, config: TrainingConfig) -> None:
    """Raise RunError if the run has checkpoints and `config` changes its architecture, features or split."""
    if not run.has_state():
        return
    before, now = (
        {name: value for name, value in asdict(each).items() if name not in _FREE_ON_RESUME}
        for each in (run.config(), config)
    )
    changed = differences(before, now)
    if changed:
        raise RunError(
            f"{run.path}: cannot resume with another configuration: {'; '.join(changed)}",
            "resume without these options, or start a new run",
        )
