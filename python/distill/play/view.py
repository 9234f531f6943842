"""What the page shows of a run: its figures and axes, the map of its sounds, and the sounds to start from."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path
from typing import Any

from distill.cache.manifest import MANIFEST_NAME, read_manifest
from distill.errors import DistillError, NotFoundError, RunError
from distill.features.mel import MelSpec
from distill.index import Dataset, ManifestError
from distill.models.store import WEIGHTS_NAME, load_description
from distill.play.analysed import REPORT, analysis_state, read_map, read_report
from distill.play.analysis import Analyses
from distill.play.folders import name_of
from distill.play.stamps import KeptByStamp, stamp_of
from distill.preprocess.plan import dataset_slot
from distill.runs.folder import RunFolder

LONGEST_S = 60
"""Longest sound that is played, seconds."""
DROPPED_NAME = "dropped"
"""Folder in a run for the files that were dropped on its page."""

_SHOWN_AXES = 32
_SHOWN_CORRELATIONS = 3
_LISTED_SOUNDS = 20_000


def describe(run_dir: Path, analyses: Analyses | None = None) -> dict[str, Any]:
    """Describe a run: what its page shows before a sound is made.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    analyses : Analyses, optional
        The analyses that this process runs.

    Raises
    ------
    RunError
        If run.json, config.toml or the report of a valid analysis cannot be read.
    """
    folder = RunFolder(run_dir)
    dataset, config = folder.dataset(), folder.config()
    feature, reason = config.features, unplayable_reason(run_dir)
    analysis = analyses.state(run_dir) if analyses else analysis_state(run_dir)
    return {
        "name": name_of(run_dir),
        "path": str(run_dir.absolute()),
        "dataset": str(dataset.path),
        "sample_rate": feature.sample_rate,
        "chunk_s": config.chunk_samples / feature.sample_rate,
        "channels": 2 if config.complex_spectrogram.enabled else 1,
        "bands_hz": MelSpec.of(feature).centres_hz().tolist(),
        "hop_s": feature.hop_length / feature.sample_rate,
        "longest_s": LONGEST_S,
        "weights": stamp_of(run_dir / WEIGHTS_NAME),
        "playable": reason is None,
        "reason": reason,
        "analysis": analysis,
        "axes": _axes(read_report(run_dir)) if analysis["state"] == "ready" else [],
    }


def unplayable_reason(run_dir: Path) -> str | None:
    """Return why no sound can be made with a run; None if it can, as far as is known before its weights are loaded.

    Raises
    ------
    RunError
        If run.json or config.toml is damaged.
    """
    folder = RunFolder(run_dir)
    folder.dataset()
    folder.config()
    if not (run_dir / WEIGHTS_NAME).exists():
        return f"{run_dir / WEIGHTS_NAME}: missing: it is written at the end of the first epoch"
    try:
        load_description(run_dir)
    except RunError as error:
        return str(error)
    return None


def _axes(report: dict[str, Any]) -> list[dict[str, Any]]:
    axes = []
    for axis, name in enumerate(report["names"][:_SHOWN_AXES]):
        correlations = {feature: values[axis] for feature, values in report["correlations"].items()}
        strongest = sorted(correlations, key=lambda feature: -abs(correlations[feature]))[:_SHOWN_CORRELATIONS]
        axes.append(
            {
                "number": axis + 1,
                "name": name,
                "share": report["variance_explained"][axis],
                "low": report["ranges"][axis]["low"],
                "high": report["ranges"][axis]["high"],
                "is_course": report["is_course"][axis],
                "correlations": {feature: correlations[feature] for feature in strongest},
            }
        )
    return axes


def sound_map(run_dir: Path) -> dict[str, Any]:
    """Return the map of the sounds: where each chunk of the dataset lies on the first axes, and what it is like.

    Returns
    -------
    dict
        of: chunks that were analysed, without augmented variants. shown: how many of them follow, at most 20 000,
        chosen evenly. files: names of files. file, offset: file and start in seconds of each chunk. chunk_s: their
        length. coordinates: for each of up to 6 axes the coordinate of each chunk, in standard deviations from the
        mean. features: unit, and values for each chunk.

    Raises
    ------
    NotFoundError
        If the run has no analysis that is valid for its weights.
    RunError
        If a file of the run is damaged.
    """
    found = analysis_state(run_dir)
    if found["state"] != "ready":
        reason = found["reason"] or f"{run_dir}: its latent space has not been analysed"
        raise NotFoundError(reason, f"run: distill analyze {run_dir}")
    config = RunFolder(run_dir).config()
    return {**read_map(run_dir), "chunk_s": config.chunk_samples / config.features.sample_rate}


def sound_names(run_dir: Path) -> dict[str, Any]:
    """Return the names of the sounds that one can start from.

    Returns
    -------
    dict
        dataset: at most 20 000 files of the dataset, in order; dataset_of: how many there are. dropped: files that
        were dropped on the page.

    Raises
    ------
    RunError
        If run.json is damaged.
    """
    names = sorted(_dataset_of(run_dir)[1])
    return {"dataset": names[:_LISTED_SOUNDS], "dataset_of": len(names), "dropped": _dropped_names(run_dir)}


def dataset_file(run_dir: Path, name: str) -> Path:
    """Return the path of a file of the dataset.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    name : str
        As `sound_names` or `sound_map` returns it. Other names are no files of the dataset, whatever there is on disk.

    Raises
    ------
    NotFoundError
        If there is no such name, or its file is gone, or a link to a file outside the dataset that the run does not
        follow.
    RunError
        If run.json is damaged.
    """
    folder, names, follows_links = _dataset_of(run_dir)
    if name not in names:
        raise NotFoundError(f"{name!r}: no sound of the run's dataset {folder}", "choose one of the list")
    path = folder / name
    tip = "make it available again, or start from another sound"
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: the run's dataset is not there", tip)
    if not path.is_file():
        raise NotFoundError(f"{path}: not there any more", tip)
    real, real_folder = (Path(os.path.realpath(place)) for place in (path, folder))
    if not follows_links and real_folder not in real.parents:
        raise NotFoundError(f"{path}: leads out of the dataset, to {real}", "start from another sound")
    return path


def dropped_file(run_dir: Path, name: str) -> Path:
    """Return the path of a file that was dropped on the page of a run.

    Raises
    ------
    NotFoundError
        If there is none of this name.
    """
    if name not in _dropped_names(run_dir):
        raise NotFoundError(f"{name!r}: no sound of this name was dropped on this run", "drop the file again")
    return run_dir / DROPPED_NAME / name


def _read_analysed_names(run_dir: Path) -> tuple[Path, frozenset[str]]:
    report = read_report(run_dir)
    return Path(report["dataset"]), frozenset(report["files"])


# A million names take a tenth of a second to read, and each sound that is played looks one up.
_analysed_names = KeptByStamp(_read_analysed_names, (REPORT,), 4)
_dataset = KeptByStamp(lambda run_dir: RunFolder(run_dir).dataset(), ("run.json",), 100)


def _dataset_of(run_dir: Path) -> tuple[Path, frozenset[str], bool]:
    """Return the folder of a run's dataset, the names of its sounds, and whether links out of it are followed.

    An analysis may be of another dataset than the run's; the map then shows the sounds of that one.
    """
    dataset = _dataset(run_dir)
    try:
        return (*_analysed_names(run_dir), dataset.follow_links)
    except RunError:
        return dataset.path, _cached_names(run_dir, dataset), dataset.follow_links


def _cached_names(run_dir: Path, dataset: Dataset) -> frozenset[str]:
    """Return the names of the files that have rows in the cache; none if there is no cache to look into."""
    try:
        path = dataset_slot(dataset, RunFolder(run_dir).config()) / MANIFEST_NAME
        return _names_in(path, stamp_of(path))
    except (DistillError, ManifestError):
        return frozenset()


@lru_cache(4)
def _names_in(manifest_path: Path, stamp: str | None) -> frozenset[str]:
    """Return the names of the files that have rows, by a manifest that has this stamp."""
    manifest = read_manifest(manifest_path)
    return frozenset(str(file["path"]) for file in manifest.files() if file["rows"]) if manifest else frozenset()


def _dropped_names(run_dir: Path) -> list[str]:
    """Return the names of the regular files in RUN/dropped, without those that are being written."""
    folder = run_dir / DROPPED_NAME
    try:
        # A link in its place would lead out of the run.
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return []
        with os.scandir(folder) as entries:
            files = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(name for name in files if not name.startswith("."))
