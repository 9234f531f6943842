"""The runs that can be played: one, or those of a folder."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from distill.errors import DistillError, NotFoundError, RunError
from distill.play.analysed import analysis_state
from distill.play.analysis import Analyses
from distill.play.view import name_of, unplayable_reason
from distill.play.watch import PICTURES, is_training, read_metrics
from distill.types import PathLike

_RUN_FILE = "run.json"
_TIP = "give the folder of a run, as distill train printed it, or one that holds runs"


class Library:
    """The runs in a folder.

    Parameters
    ----------
    path : path
        A run, or a folder with runs.
    analyses : Analyses, optional
        The analyses that this process runs: a run that one of them holds is not training.

    Attributes
    ----------
    path : Path
    single : bool
        Whether the path is one run.

    Raises
    ------
    RunError
        If it is neither a run nor a folder with runs.
    """

    def __init__(self, path: PathLike, analyses: Analyses | None = None) -> None:
        self.path = Path(path)
        self._analyses = analyses
        if not self.path.is_dir():
            raise RunError(f"{self.path}: {'not a folder' if self.path.exists() else 'no such folder'}", _TIP)
        self.single = _is_run(self.path)
        if not self._folders():
            raise RunError(f"{self.path}: not a run, and no folder in it is one: no {_RUN_FILE}", _TIP)

    def runs(self) -> list[dict[str, Any]]:
        """Describe each run in a few figures, the newest first; one that is damaged has an `error`.

        Raises
        ------
        RunError
            If the folder cannot be read any more.
        """
        found = [self._summary(name, folder) for name, folder in self._folders().items()]
        return sorted(found, key=lambda run: run["date"] or "", reverse=True)

    def find(self, name: str) -> Path:
        """Return the folder of a run.

        Parameters
        ----------
        name : str
            Its name in the listing. It is never used as a path.

        Raises
        ------
        NotFoundError
            If no run is listed with this name.
        RunError
            If the folder cannot be read any more.
        """
        folder = self._folders().get(name)
        if folder is None:
            raise NotFoundError(f"{name!r}: no run of this name in {self.path}", "reload the list of runs")
        return folder

    def paths(self) -> list[Path]:
        """Return the folders of the runs, in the order of their names.

        Raises
        ------
        RunError
            If the folder cannot be read any more.
        """
        return list(self._folders().values())

    def _folders(self) -> dict[str, Path]:
        """Return the runs by name. Links are left out: what they lead to is not in the folder."""
        if self.single:
            return {name_of(self.path): self.path}
        try:
            with os.scandir(self.path) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
        except OSError as error:
            raise RunError(f"{self.path}: cannot be read: {error.strerror or error}", _TIP) from error
        return {name_of(self.path / name): self.path / name for name in names if _is_run(self.path / name)}

    def _summary(self, name: str, folder: Path) -> dict[str, Any]:
        summary: dict[str, Any] = {
            "name": name,
            "date": _date(folder),
            **dict.fromkeys(("epochs", "val_loss", "magnitude_r2", "if_r2")),
            "state": "training" if is_training(folder, self._analyses) else "idle",
            "analysis": "missing",
            "playable": False,
            "picture": any(folder.joinpath(*parts).is_file() for parts in PICTURES),
            "error": None,
        }
        try:
            lines = read_metrics(folder)
            if lines:
                best = min(lines, key=lambda line: line["val_loss"])
                summary |= {"epochs": lines[-1]["epoch"], "val_loss": best["val_loss"]}
                summary |= {"magnitude_r2": best["val_magnitude_r2"], "if_r2": best["val_if_r2"]}
            summary["playable"] = unplayable_reason(folder) is None
            summary["analysis"] = analysis_state(folder)["state"]
        except DistillError as error:
            summary["error"] = str(error)
        return summary


def _is_run(folder: Path) -> bool:
    try:
        return (folder / _RUN_FILE).is_file()
    except OSError:
        return False


def _date(folder: Path) -> str | None:
    """Return when the weights were written, or else the run was begun: ISO, UTC."""
    for name in ("model.safetensors", _RUN_FILE):
        try:
            seconds = (folder / name).stat().st_mtime
        except OSError:
            continue
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    return None
