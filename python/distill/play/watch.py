"""A run while it trains: its figures, previews and pictures, as they appear."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from statistics import mean
from typing import Any

from distill.errors import NotFoundError
from distill.models.store import WEIGHTS_NAME
from distill.play.analysed import analysis_state
from distill.play.analysis import Analyses
from distill.play.inside import read_inside
from distill.play.stamps import KeptByStamp, stamp_of
from distill.runs.folder import RunFolder
from distill.runs.lock import is_locked

PICTURES = (("reconstruction.png",), ("latent", "map.png"), ("loss.png",))
"""Pictures that show what a run is like, the best first: the parts of their paths in the run folder."""

_METRICS = "metrics.jsonl"
_PREVIEWS = "previews"
_PREVIEW_PICTURE = "picture"
_FOLDER = re.compile(r"epoch-(\d{3,12})")
_SOUND = re.compile(r"((?:sample|reconstruction|original)-\d{1,3})\.wav")
_PICTURE_FILE = "previews.png"
# Epochs may differ, as those that write previews do.
_TIMED_EPOCHS = 5

read_metrics = KeptByStamp(lambda run_dir: RunFolder(run_dir).metrics(), (_METRICS,), 1000)
"""Return the lines of metrics.jsonl of a run; see `RunFolder.metrics`."""


def is_training(run_dir: Path, analyses: Analyses | None = None) -> bool:
    """Whether a process trains a run: its lock is held, and not by an analysis of this process."""
    return not (analyses and analyses.is_running(run_dir)) and is_locked(run_dir)


def training(run_dir: Path, after: int, analyses: Analyses | None = None) -> dict[str, Any]:
    """Describe how far the training of a run is.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    after : int
        Lines of metrics.jsonl are returned from the epoch after this one.
    analyses : Analyses, optional
        The analyses that this process runs.

    Returns
    -------
    dict
        state: "training" or "idle". epoch: how many are complete; one that is smaller than `after` tells that the run
        was resumed from an earlier checkpoint. epochs: how many there will be. seconds_left: about, or None. metrics.
        previews: epoch, names of sounds, and whether there is a picture. weights. analysis.

    Raises
    ------
    RunError
        If config.toml or metrics.jsonl is damaged.
    """
    epochs, lines = RunFolder(run_dir).config().epochs, read_metrics(run_dir)
    epoch = lines[-1]["epoch"] if lines else 0
    is_active = is_training(run_dir, analyses)
    return {
        "state": "training" if is_active else "idle",
        "epoch": epoch,
        "epochs": epochs,
        "seconds_left": _seconds_left(run_dir, lines, epochs) if is_active else None,
        "metrics": [line for line in lines if line["epoch"] > after],
        "previews": _previews(run_dir),
        "weights": stamp_of(run_dir / WEIGHTS_NAME),
        "analysis": analyses.state(run_dir) if analyses else analysis_state(run_dir),
    }


def _seconds_left(run_dir: Path, lines: list[dict[str, Any]], epochs: int | None) -> float | None:
    """Return about how long the remaining epochs take, from how long the last ones took; None before the first."""
    took = [line["seconds"] for line in lines[-_TIMED_EPOCHS:] if line.get("seconds") is not None]
    if not took or epochs is None:
        return None
    each = mean(took)
    try:
        since = time.time() - (run_dir / _METRICS).stat().st_mtime
    except OSError:
        since = 0.0
    left = max(0, epochs - lines[-1]["epoch"]) * each
    # The epoch that has begun is never counted as more than complete.
    return float(max(0.0, left - min(max(since, 0.0), each)))


def _previews(run_dir: Path) -> list[dict[str, Any]]:
    previews = []
    for epoch, folder in sorted(_preview_folders(run_dir).items()):
        names = _names(folder)
        sounds = [match[1] for name in names if (match := _SOUND.fullmatch(name))]
        previews.append({"epoch": epoch, "sounds": sounds, "picture": _PICTURE_FILE in names})
    return previews


def _preview_folders(run_dir: Path) -> dict[int, Path]:
    place = run_dir / _PREVIEWS
    try:
        with os.scandir(place) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return {}
    return {int(match[1]): place / name for name in names if (match := _FOLDER.fullmatch(name))}


def _names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry.name for entry in entries if entry.is_file(follow_symlinks=False)), key=_in_order)
    except OSError:
        return []


def _in_order(name: str) -> tuple[str, int, str]:
    """Sort sample-10 after sample-9."""
    kind, _, rest = name.partition("-")
    digits = rest.partition(".")[0]
    return kind, int(digits) if digits.isdecimal() and len(digits) < 10 else 0, name


def preview(run_dir: Path, epoch: int, name: str) -> bytes:
    """Return a preview of a run: a WAV file or, for the name "picture", a PNG.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    epoch : int
        Epoch of the preview.
    name : str
        Name of a sound, as in `training`, or "picture".

    Raises
    ------
    NotFoundError
        If there is none.
    """
    file = _PICTURE_FILE if name == _PREVIEW_PICTURE else f"{name}.wav"
    folder = _preview_folders(run_dir).get(epoch)
    if folder is None or not (file == _PICTURE_FILE or _SOUND.fullmatch(file)):
        raise NotFoundError(
            f"{name!r:.80} of epoch {epoch}: no such preview in {run_dir / _PREVIEWS}", "reload the page"
        )
    return read_inside(run_dir, _PREVIEWS, folder.name, file)


def picture(run_dir: Path) -> bytes:
    """Return a picture of what a run is like, PNG: reconstructions, else the map of its sounds, else its losses.

    Raises
    ------
    NotFoundError
        If there is none yet.
    """
    for parts in PICTURES:
        try:
            return read_inside(run_dir, *parts)
        except NotFoundError:
            continue
    raise NotFoundError(f"{run_dir}: no picture yet", "it is drawn when training ends")
