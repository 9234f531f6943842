"""The analysis of a run, as RUN/latent holds it: whether it is valid, its report, and the map of the sounds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from distill.documents import check_table, load_json, read_document
from distill.errors import ConfigError, RunError
from distill.faults import Key, Rule, Table, at_least
from distill.models.store import DESCRIPTION_NAME, WEIGHTS_NAME
from distill.play.stamps import KeptByStamp
from distill.runs.axes import LATENT_NAME, REPORT_NAME, TENSORS_NAME, read_axes, weights_hash
from distill.text import printable

MAPPED_ROWS = 20_000
_MAPPED_AXES = 6
_ROWS_AT_ONCE = 4096
REPORT = os.path.join(LATENT_NAME, REPORT_NAME)
"""Path in a run folder of the report of its analysis."""
_TENSORS = os.path.join(LATENT_NAME, TENSORS_NAME)


def _all(kinds: tuple[type, ...]) -> Rule:
    return Rule(lambda values: all(type(value) in kinds for value in values), f"a list of {kinds[0].__name__}")


_NUMBERS = Key(list, _all((float, int)))
_TABLE = Table(
    {
        "dataset": Key(str),
        "n": Key(int, at_least(1)),
        "names": Key(list, _all((str,))),
        # Not in analyses of earlier versions.
        "is_course": Key(list, _all((bool,)), is_required=False),
        "variance_explained": _NUMBERS,
        "correlations": Key(dict),
        "units": Key(dict),
        "ranges": Key(list, _all((dict,))),
        "files": Key(list, _all((str,))),
        "rows": Table({"file": Key(list, _all((int,))), "offset_s": _NUMBERS, "variant": Key(list, _all((int,)))}),
    }
)
_RANGE = Table({"low": Key(float), "high": Key(float)})


def _tip(run_dir: Path) -> str:
    return f"run: distill analyze {run_dir}"


def require_own(run_dir: Path) -> None:
    """Raise RunError if the folder of the analysis, or a file in it, is a link, which would lead out of the run."""
    for name in (LATENT_NAME, REPORT, _TENSORS):
        if (run_dir / name).is_symlink():
            raise RunError(f"{run_dir / name}: a link, which is not followed here", "put what it leads to in its place")


def _read_report(run_dir: Path) -> dict[str, Any]:
    require_own(run_dir)
    return read_document(run_dir / REPORT, _parse_report, _tip(run_dir))


def _parse_report(content: bytes) -> dict[str, Any]:
    report = check_table(load_json(content), _TABLE)
    report.setdefault("is_course", [False] * len(report["names"]))
    for values in report["ranges"]:
        check_table(values, _RANGE)
    check_table(report["correlations"], Table({}, others=_NUMBERS))
    check_table(report["units"], Table({}, others=Key(str)))
    axes: list[Sequence[Any]] = [report[name] for name in ("is_course", "variance_explained", "ranges")]
    rows = report["rows"]
    if any(len(values) != len(report["names"]) for values in (*axes, *report["correlations"].values())):
        raise ConfigError(["it has not one value for each axis"])
    if any(len(rows[name]) != report["n"] for name in ("file", "offset_s", "variant")):
        raise ConfigError([f"n={report['n']} rows, but not so many values"])
    if not all(0 <= file < len(report["files"]) for file in rows["file"]):
        raise ConfigError(["a row of no file"])
    return report


read_report = KeptByStamp(_read_report, (REPORT,), 8)
"""Return what analysis.json of a run says, checked; also of an analysis of earlier weights. RunError if it cannot."""


def _read_state(run_dir: Path) -> dict[str, Any]:
    """Return `state` and `reason` of the analysis on disk."""
    try:
        require_own(run_dir)
        if not (run_dir / _TENSORS).exists():
            return {"state": "missing", "reason": None}
        axes, report = read_axes(run_dir), read_report(run_dir)
    except RunError as error:
        return {"state": "outdated" if _is_outdated(run_dir) else "missing", "reason": str(error)}
    if report["names"] != axes.names:
        # As between the two writes of an analysis.
        return {"state": "missing", "reason": f"{run_dir / REPORT}: not of the same analysis as {TENSORS_NAME}"}
    return {"state": "ready", "reason": None}


def _is_outdated(run_dir: Path) -> bool:
    """Whether the analysis is of other weights."""
    try:
        with safe_open(run_dir / _TENSORS, "np") as file:
            of = (file.metadata() or {}).get("weights")
        return of is not None and of != weights_hash(run_dir)
    except (OSError, SafetensorError, RunError):
        return False


_kept_state = KeptByStamp(_read_state, (REPORT, _TENSORS, WEIGHTS_NAME, DESCRIPTION_NAME), 1000)


def analysis_state(run_dir: Path) -> dict[str, Any]:
    """Return whether the analysis on disk is valid for the weights.

    Returns
    -------
    dict
        state: "ready", "missing" (or damaged) or "outdated" (of other weights); reason: str or None; progress: None.
    """
    return {**_kept_state(run_dir), "progress": None}


def _read_map(run_dir: Path) -> dict[str, Any]:
    report = read_report(run_dir)
    path = run_dir / _TENSORS
    originals = np.flatnonzero(np.array(report["rows"]["variant"]) == 0)
    shown = min(len(originals), MAPPED_ROWS)
    rows = originals[np.arange(shown) * len(originals) // max(shown, 1)]
    try:
        coordinates, features = _tensors_of(path, rows, (report["n"], len(report["units"])))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{path}: damaged: {printable(str(error)[:200])}", _tip(run_dir)) from error
    if not (np.isfinite(coordinates).all() and np.isfinite(features).all()):
        raise RunError(f"{path}: damaged: it holds values that are not finite", _tip(run_dir))
    of_row = np.array(report["rows"]["file"])[rows]
    used, file = np.unique(of_row, return_inverse=True)
    names = list(report["units"])
    return {
        "of": len(originals),
        "shown": shown,
        "files": [report["files"][index] for index in used.tolist()],
        "file": file.tolist(),
        "offset": _rounded(np.array(report["rows"]["offset_s"], float)[rows]),
        "coordinates": [_rounded(values) for values in coordinates.T],
        "features": {
            name: {"unit": report["units"][name], "values": _rounded(values)}
            for name, values in zip(names, features.T, strict=True)
        },
    }


read_map = KeptByStamp(_read_map, (REPORT, _TENSORS), 4)
"""Return the map of the last analysis of a run, without `chunk_s`; see `distill.play.view.sound_map`."""


def _tensors_of(path: Path, rows: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the coordinates of rows on the first axes, [n, up to 6], and their features, [n, F], float64.

    `shape` is that of the features of all rows.
    """
    count = shape[0]
    with safe_open(path, "np") as file:
        axes = file.get_tensor("components")[:_MAPPED_AXES].astype(float).T
        mean, scale = (file.get_tensor(name).astype(float) for name in ("mean", "scale"))
        latents, features = file.get_slice("latents"), file.get_tensor("features")
        if latents.get_shape()[0] != count or features.shape != shape:
            raise ValueError(f"not of the same analysis as {REPORT_NAME}")
        parts = []
        # The latent vectors of a million rows take gigabytes.
        for start in range(0, count, _ROWS_AT_ONCE):
            of_block = rows[(rows >= start) & (rows < start + _ROWS_AT_ONCE)] - start
            block = latents[start : min(start + _ROWS_AT_ONCE, count)][of_block]
            parts.append((block.reshape(len(block), mean.size) - mean) @ axes / scale[: axes.shape[1]])
    return np.concatenate(parts), features[rows].astype(float)


def _rounded(values: np.ndarray) -> list[float]:
    rounded: list[float] = np.round(values.astype(float), 4).tolist()
    return rounded
