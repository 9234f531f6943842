"""Analyses of runs in the background, with their progress."""

from __future__ import annotations

import logging
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.errors import DistillError, PreprocessingCancelled, RunBusyError
from distill.latent.analysis import analyze
from distill.play.analysed import analysis_state, require_own
from distill.runs.lock import is_locked

logger = logging.getLogger(__name__)


@dataclass
class _Job:
    thread: threading.Thread | None = None
    progress: dict[str, Any] | None = None
    error: DistillError | None = None
    is_cancelled: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)


class Analyses:
    """The analyses that this process runs, each in a thread, at most one for a run.

    Parameters
    ----------
    device : str
        Device of the models: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._jobs: dict[str, _Job] = {}
        self._lock = threading.Lock()

    def start(self, run_dir: Path) -> dict[str, Any]:
        """Begin to analyse a run, unless that has begun already; return its state.

        Raises
        ------
        RunBusyError
            If another process trains or analyses the run.
        RunError
            If the folder for its result is a link.
        """
        key = _key(run_dir)
        with self._lock:
            job = self._jobs.get(key)
            if job is None or job.is_over.is_set():
                require_own(run_dir)
                if is_locked(run_dir):
                    tip = "wait until it has ended, or end it and try again"
                    raise RunBusyError(f"{run_dir}: another process is training or analysing this run", tip)
                job = self._jobs[key] = _Job()
                # A daemon, so that Ctrl-C need not wait for it. What it writes is replaced atomically.
                job.thread = threading.Thread(target=self._run, args=(job, run_dir), name="analysis", daemon=True)
                job.thread.start()
        return self.state(run_dir)

    def state(self, run_dir: Path) -> dict[str, Any]:
        """Return the state of a run's analysis: that of the thread, or else of what is on disk.

        Returns
        -------
        dict
            state: "running", "failed", or as `analysis_state`. reason, tip: of what failed, or None. progress: stage,
            current and total while it is running.
        """
        job = self._jobs.get(_key(run_dir))
        if job is not None and not job.is_over.is_set():
            return {"state": "running", "reason": None, "tip": None, "progress": job.progress}
        found = {**analysis_state(run_dir), "tip": None}
        # One that was made since, by another process, counts more than the failure.
        if job is not None and job.error is not None and found["state"] != "ready":
            return found | {"state": "failed", "reason": str(job.error), "tip": job.error.tip}
        return found

    def is_running(self, run_dir: Path) -> bool:
        """Whether this process analyses a run."""
        job = self._jobs.get(_key(run_dir))
        return job is not None and not job.is_over.is_set()

    def cancel(self, timeout_s: float = 2.0) -> None:
        """End all analyses; what a run had before stays. Waits for up to `timeout_s` seconds for each to notice."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.is_cancelled.set()
        for job in jobs:
            if job.thread is not None:
                job.thread.join(timeout_s)

    def _run(self, job: _Job, run_dir: Path) -> None:
        def report(stage: str, current: int, total: int) -> None:
            if job.is_cancelled.is_set():
                raise PreprocessingCancelled("cancelled")
            job.progress = {"stage": stage, "current": current, "total": total}

        try:
            analyze(run_dir, device=self._device, progress=report)
        except PreprocessingCancelled:
            logger.info("%s: the analysis was cancelled", run_dir)
        except DistillError as error:
            job.error = error
        except Exception as error:  # the page shows it; otherwise the thread would end unnoticed
            logger.exception("%s: the analysis failed", run_dir)
            job.error = DistillError(f"{run_dir}: the analysis failed: {type(error).__name__}: {error}")
        finally:
            job.is_over.set()


def _key(run_dir: Path) -> str:
    return os.path.realpath(run_dir)
