"""The runs that can be played: one, or those of a folder."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from distill.errors import DistillError, NotFoundError
from distill.play.analysed import analysis_state
from distill.play.analysis import Analyses
from distill.play.folders import RUN_FILE, check_library, is_run, run_folders
from distill.play.view import unplayable_reason
from distill.play.watch import PICTURES, is_training, read_metrics
from distill.types import PathLike


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
        check_library(self.path)
        self.single = is_run(self.path)
        # Also if its run.json is damaged or lost while it is shown.
        self._alone = run_folders(self.path) if self.single else None

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
        """Return the runs by name."""
        return self._alone or run_folders(self.path)

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


def _date(folder: Path) -> str | None:
    """Return when the weights were written, or else the run was begun: ISO, UTC."""
    for name in ("model.safetensors", RUN_FILE):
        try:
            seconds = (folder / name).stat().st_mtime
        except OSError:
            continue
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
    return None
