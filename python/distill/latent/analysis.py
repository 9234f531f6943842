"""Analysis of the latent space of a run, written to RUN/latent."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save

from distill.errors import NothingUsableError
from distill.index import Dataset
from distill.latent.decomposition import sequence_axes
from distill.latent.encoding import encode, unit_effects
from distill.latent.pictures import save_pictures
from distill.latent.report import Findings, summarize
from distill.latent.rows import Rows, open_rows
from distill.preprocess.pipeline import preprocess
from distill.preprocess.result import log_skipped
from distill.runs.axes import LATENT_NAME, REPORT_NAME, TENSORS_NAME, axes_metadata
from distill.runs.folder import RunFolder
from distill.runs.trained import TrainedRun
from distill.storage import remove_leftovers, storage_error, write_atomically
from distill.types import ConfirmCallback, PathLike, ProgressCallback, no_progress


@dataclass(frozen=True)
class Analysis(Findings):
    """The result of `analyze`: the numbers, and the folder that they were written to.

    Attributes
    ----------
    folder : Path
        RUN/latent.
    """

    folder: Path


def analyze(
    run_dir: PathLike,
    dataset_dir: PathLike | None = None,
    *,
    cache_dir: PathLike | None = None,
    device: str = "auto",
    seed: int = 0,
    progress: ProgressCallback | None = None,
    confirm: ConfirmCallback | None = None,
) -> Analysis:
    """Analyse the latent space of a run on the sounds of a dataset, and write the result to RUN/latent.

    It replaces an earlier analysis, and with it the axes that `generate` moves along.

    The rows are those of the cache, including augmented variants; missing ones are computed first. For a one-channel
    run the dataset is decoded instead. One caller at a time may analyse or train a run; others get a RunError.

    Parameters
    ----------
    run_dir : path
        The run folder.
    dataset_dir : path, optional
        The folder of audio. Default: that of the run.
    cache_dir : path, optional
        The folder of the dataset's cache. Default: that of the run if the dataset is the run's, else DATASET/.cache.
    device : str
        Device of the model: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".
    seed : int
        Seed that chooses the sounds on the map if there are over 5000. Nothing else is random. Default: 0.
    progress : callable, optional
        Called with (stage, current, total): the stages of preprocessing, then "encode" ("decode" for a one-channel
        run), "effect" and "neighbours".
    confirm : callable, optional
        Called with a question before more than 100 MB of features are computed; returning False cancels.

    Returns
    -------
    Analysis

    Raises
    ------
    PreprocessingCancelled
        If `confirm` returned False.
    RunError
        If `run_dir` holds no run with a trained model, or another process trains or analyses it.
    DatasetError, NothingUsableError
        If there are fewer than two rows, or all of them have the same latent vector.
    CacheError
        If the cache is damaged or cannot be read.
    DeviceError
        If the machine has no such device.
    StorageError
        If the cache or the result cannot be written.
    """
    folder = RunFolder(run_dir)
    folder.dataset()  # nothing is written to a folder that is no run
    with folder.lock():
        run = TrainedRun.load(run_dir, device)
        progress = progress or no_progress
        dataset = _dataset(run, dataset_dir, cache_dir)
        dataset.check()
        if run.config.complex_spectrogram.enabled:
            preprocess(dataset, replace(run.config, device=device), progress=progress, confirm=confirm).log()
        return analyze_rows(run, open_rows(run, dataset, log_skipped), seed=seed, progress=progress)


def analyze_rows(run: TrainedRun, rows: Rows, *, seed: int = 0, progress: ProgressCallback | None = None) -> Analysis:
    """Analyse the latent space of a run on rows that are ready, as `analyze` does, and write the result to RUN/latent.

    Parameters
    ----------
    run : TrainedRun
        The run.
    rows : Rows
        From `open_rows`.
    seed : int
        As for `analyze`. Default: 0.
    progress : callable, optional
        As for `analyze`.

    Returns
    -------
    Analysis

    Raises
    ------
    DatasetError, NothingUsableError
        If there are fewer than two rows, or all of them have the same latent vector.
    CacheError
        If the rows do not fit the model, or the cache is damaged.
    StorageError
        If the result cannot be written.
    """
    progress = progress or no_progress
    encoded = encode(run, rows, progress)
    effects = unit_effects(run.model, encoded.latents, progress)
    principal = sequence_axes(encoded.latents, effects)
    if not len(principal.scale):
        n = len(encoded.latents)
        found = f"{n} rows, all alike to the model," if n > 1 else "one row of features"
        raise NothingUsableError(f"{rows.dataset.path}: {found} cannot be analysed", "give two sounds that differ")
    findings = summarize(encoded, effects, principal, rows.dataset, progress)
    folder = run.path / LATENT_NAME
    try:
        _write(findings, run, folder, seed)
    except OSError as error:
        tip = "make it writable, or analyse a copy of the run"
        raise storage_error(Path(error.filename or folder), error, tip, tip_if_full="make room") from error
    return Analysis(findings.report, findings.tensors, folder)


def _dataset(run: TrainedRun, dataset_dir: PathLike | None, cache_dir: PathLike | None) -> Dataset:
    """Return the run's dataset, or another one with the defaults, with the cache in `cache_dir` if that is given."""
    if dataset_dir is None or os.path.realpath(dataset_dir) == os.path.realpath(run.dataset.folder):
        dataset = run.dataset
    else:
        dataset = Dataset(dataset_dir, follow_links=run.dataset.follow_links)
    return dataset if cache_dir is None else replace(dataset, cache_dir=cache_dir)


def _write(findings: Findings, run: TrainedRun, folder: Path, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    tensors = save(findings.tensors, axes_metadata(findings.report["names"], run.path))
    write_atomically(folder / TENSORS_NAME, tensors)
    write_atomically(folder / REPORT_NAME, _readable_json(findings.report).encode())
    save_pictures(findings, run, folder, seed)


def _readable_json(report: dict[str, Any]) -> str:
    """Format a report as JSON with a line for each field."""
    lines = (f"  {json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in report.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
