"""A dataset to a trained model: the one place that composes cache to model."""

from __future__ import annotations

import logging
import math
import os
import shlex
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.errors import DistillError, PreprocessingCancelled, RunError
from distill.features.spectrogram import AudioSpectrogram
from distill.index import Dataset, Manifest, Trust
from distill.latent.analysis import analyze_rows
from distill.latent.rows import open_rows
from distill.preprocess.pipeline import preprocess
from distill.preprocess.result import log_skipped, nothing_usable
from distill.runs.folder import RunFolder
from distill.runs.trained import TrainedRun
from distill.text import counted, differences
from distill.training.cached import CachedSpectrogramDataset
from distill.training.defaults import resolve_training
from distill.training.loaders import create_complex_data_loaders, create_data_loaders
from distill.training.tensorboard import check_tensorboard
from distill.training.trainer import Material, Session, TrainEvent, TrainResult
from distill.types import ConfirmCallback, PathLike

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
    tensorboard: bool = False,
    analyze: bool = True,
) -> TrainResult:
    """Train a VAE on a folder of audio, preprocessing what is not in its cache yet.

    Parameters
    ----------
    dataset_dir : path or None
        The folder; None to take the run's own when resuming.
    output_dir : path
        The run folder: new, or that of the run to resume.
    config : TrainingConfig, optional
        Default: ``TrainingConfig()``, or that of the run to resume.
    files : sequence of path, optional
        Files of the dataset to use. Default: all.
    resume : bool
        Go on with the run in `output_dir`. Default: False.
    on_event : callable, optional
        Called with a TrainEvent as things happen.
    cancel_event : threading.Event, optional
        Set it to stop after the step in hand, with everything saved; a run that is trained is then not analysed.
    cache_dir : path, optional
        Default: DATASET/.cache.
    trust : {"stat", "content"}
        When a file counts as unchanged: by its stamps, or by its bytes, which are then all read. Default: "stat".
    follow_links : bool
        Follow symbolic links that lead out of the dataset, and links to folders. Default: False, or as in the run to
        resume.
    confirm_callback : callable, optional
        Asked with a message before more than 100 MB are preprocessed.
    tensorboard : bool
        Show metrics and previews in OUTPUT/tensorboard, too. Default: False.
    analyze : bool
        At the end, analyse the latent space as `distill.latent.analysis.analyze` does; what keeps it from that is
        logged as a warning. Default: True.

    Returns
    -------
    TrainResult

    Raises
    ------
    ConfigError, DatasetError, DeviceError, RunError
        If what was asked for cannot be done, as without tensorboard; nothing has been written then.
    NothingUsableError
        If no file gives a single chunk.
    StorageError
        If cache or run cannot be written.
    """
    if tensorboard:
        check_tensorboard()
    run = RunFolder(output_dir)
    if resume:
        before = run.dataset()
        config = config or run.config()
        _check_resumable(run, config)
        dataset_dir = dataset_dir if dataset_dir is not None else before.folder
        cache_dir = cache_dir if cache_dir is not None else before.cache_dir
        files = files if files is not None else before.files
        follow_links = follow_links or before.follow_links
    if dataset_dir is None:
        raise RunError("no dataset was given", "give a folder, or resume a run")
    config = config or TrainingConfig()
    resolve_device(config.device)
    dataset = Dataset(dataset_dir, files=files, cache_dir=cache_dir, follow_links=follow_links, trust=trust)
    dataset.check()
    source = _Source(dataset, confirm_callback)
    if not resume:
        run.create(config, dataset)
    session = Session(run, config, on_event, cancel_event, tensorboard=tensorboard)
    try:
        material = source.prepare(session)
    except DistillError as error:
        if isinstance(error, PreprocessingCancelled) and session.cancel.is_set():
            return TrainResult(run.path, "interrupted", 0, {})
        if not resume:
            # What is left would stand in the way of the next try.
            run.discard()
        raise
    try:
        result = session.run(material, dataset)
    except BrokenPipeError:  # from the caller's own output, in `on_event`
        raise
    except OSError as error:
        raise run.storage_error(error) from error
    return _analyzed(session, result, dataset) if analyze and not session.cancel.is_set() else result


def _analyzed(session: Session, result: TrainResult, dataset: Dataset) -> TrainResult:
    """Return the result with the analysis of the latent space, or without one if that fails or is cancelled.

    The rows are those that were trained on: nothing is preprocessed, and files that were skipped are not logged again.
    """

    def report(stage: str, current: int, total: int) -> None:
        if session.cancel.is_set():
            raise PreprocessingCancelled("stopped")
        session.tell("analyze", stage=stage, current=current, total=total)

    logger.info("analysing the latent space")
    try:
        run = TrainedRun.load(result.run_dir, session.config.device)
        analysis = analyze_rows(run, open_rows(run, dataset), progress=report)
    except DistillError as error:
        if not session.cancel.is_set():
            command = f"distill analyze {shlex.quote(str(result.run_dir))}"
            remedy = f"{error.tip}, then {command}" if error.tip else f"run: {command}"
            logger.warning("the latent space was not analysed: %s (%s)", error, remedy)
        return result
    return replace(result, latent_dir=analysis.folder)


_FREE_ON_RESUME = {
    *("batch_size", "epochs", "learning_rate", "weight_decay", "dropout", "if_weight", "kl_weight", "kl_warmup_epochs"),
    *("free_bits", "gradient_clip", "patience", "preview_epochs", "keep_checkpoints", "device", "device_budget_mb"),
}


def _check_resumable(run: RunFolder, config: TrainingConfig) -> None:
    """Raise RunError if weights exist and `config` would have others, or other features or another split."""
    if not run.has_state():
        return
    before, now = (
        {name: value for name, value in asdict(each).items() if name not in _FREE_ON_RESUME}
        for each in (run.config(), config)
    )
    changed = differences(before, now)
    if changed:
        raise RunError(
            f"{run.path}: cannot go on with another configuration: {'; '.join(changed)}",
            "resume without these options, or start a new run",
        )


@dataclass(frozen=True)
class _Source:
    """Where the sounds of a run come from."""

    dataset: Dataset
    confirm: ConfirmCallback | None

    def prepare(self, session: Session) -> Material:
        """Preprocess, make the loaders, and settle what the session's configuration left open."""
        is_cached = session.config.complex_spectrogram.enabled
        material = self._cached(session) if is_cached else self._waveforms(session)
        if material.is_shared:
            logger.warning("there is only one chunk: it is trained on and validated on, so R² says nothing new")
        rows, held_out = material.batches.length, len(material.val.dataset)  # type: ignore[arg-type]
        session.config, chosen = resolve_training(session.config, rows)
        logger.info("%s, %d held out, on %s", counted(rows, "training row"), held_out, session.device)
        if chosen:
            logger.info("chosen for this size: %s", ", ".join(chosen))
        return material

    def _tell_progress(self, session: Session, stage: str, current: int, total: int) -> None:
        if session.cancel.is_set():
            raise PreprocessingCancelled("cancelled; what was finished is kept")
        session.tell("preprocess", stage=stage, current=current, total=total)

    def _cached(self, session: Session) -> Material:
        result = preprocess(
            self.dataset,
            session.config,
            progress=lambda *figures: self._tell_progress(session, *figures),
            confirm=self.confirm,
        )
        result.log()
        session.config = replace(session.config, augmentation_expansion=result.augmentation_expansion)
        loaders = create_complex_data_loaders(
            result.cache_dir, session.config, normalization_stats=session.normalization_stats
        )
        dataset = loaders[0].dataset
        assert isinstance(dataset, CachedSpectrogramDataset)
        return Material(*loaders, None, dataset.normalization_stats, dataset.is_shared, dataset.content_key)

    def _waveforms(self, session: Session) -> Material:
        found, skipped = _list_files(self.dataset)
        logger.info("%s: %s", self.dataset.path, counted(len(found) + len(skipped), "audio file"))
        train_loader, val_loader = create_data_loaders(
            found,
            session.config,
            progress=lambda current, total: self._tell_progress(session, "decode", current, total),
        )
        parts = train_loader.dataset, val_loader.dataset
        waveforms = parts[0].dataset  # type: ignore[attr-defined]
        skipped += waveforms.skipped
        if not len(waveforms):
            raise nothing_usable(self.dataset.path, skipped)
        logger.info("%s decoded", counted(len(waveforms), "chunk"))
        log_skipped(skipped)
        is_shared = parts[0].indices == parts[1].indices  # type: ignore[attr-defined]
        spectrogram = AudioSpectrogram(session.config.spectrogram)
        stats = {"mag_mean": 0.0, "mag_std": 1.0}
        material = Material(train_loader, val_loader, spectrogram, stats, is_shared, waveforms.content_key)
        material.stats = session.normalization_stats or _magnitude_stats(material.features(train_loader))
        return material


def _list_files(dataset: Dataset) -> tuple[list[str], list[tuple[str, str]]]:
    """Audio files of a dataset, and those that its index leaves out, each with the reason.

    Raises
    ------
    DatasetError
        If there are none.
    """
    scan = dataset.scan(Manifest(), hash_added=False)
    dataset.require_audio(scan)
    return [os.path.join(dataset.folder, path) for path in scan.added], [*scan.skipped, *scan.faults]


def _magnitude_stats(batches: Iterator[Tensor]) -> dict[str, float]:
    sums = torch.zeros(3, dtype=torch.float64)
    for batch in batches:
        values = batch.double()
        sums += torch.stack([torch.tensor(values.numel()), values.sum(), values.square().sum()])
    n, total, squares = sums.tolist()
    mean = total / n
    return {"mag_mean": mean, "mag_std": math.sqrt(max(squares / n - mean * mean, 0.0)) or 1.0}
