"""Progress and log lines of a command: a bar with the remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import signal
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from distill.cli.process import TolerantOutput, ask, is_terminal, say

if TYPE_CHECKING:
    from rich.progress import Progress

    from distill.training.events import TrainEvent

_PLAIN_EVERY_S = 5.0
# What takes less time needs no bar; to import what draws it takes 0.1 s.
_BAR_AFTER_S = 0.3
# What each stage counts, by the first word of its name.
_UNITS = {
    **dict.fromkeys(("scan", "lengths", "features", "decode"), "files"),
    **dict.fromkeys(("cache", "hash", "check"), "MB"),
    **dict.fromkeys(("draw", "encode", "export", "load", "neighbours"), "rows"),
    **dict.fromkeys(("generate", "reconstruct"), "windows"),
    "axes": "s",
    "effect": "latent units",
}


class _LogLines(logging.Handler):
    """Shows log records as lines of a view."""

    def __init__(self, view: ProgressView) -> None:
        super().__init__(logging.INFO)
        self.view = view

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self.view.line(prefix + record.getMessage())


class ProgressView:
    """Shows log lines of distill, and the progress of its work and of training.

    A context manager: it shows log records and the bar only while it is open. Output that cannot be written ends no
    work: the first failure is reported on standard error, and the rest is dropped.

    Parameters
    ----------
    json : bool
        Write to standard error, because standard output is for a JSON result. Default: False, to standard output.
    is_result : bool
        Raise the error of dropped output when the view is closed, because the output is what the command is for. Not
        for `json`. Default: True.
    yes : bool
        Answer questions with yes, without asking. Default: False.
    is_shown : bool
        Whether anything is shown: not for the second of several processes that do the same. Default: True.
    """

    def __init__(self, *, json: bool = False, is_result: bool = True, yes: bool = False, is_shown: bool = True) -> None:
        self._assume_yes = yes
        self.stream = TolerantOutput((sys.stderr if json else sys.stdout) if is_shown else None)
        self._is_result = is_result and not json
        self._has_terminal = is_terminal(self.stream)
        self._bar: Progress | None = None
        self._task: Any = None
        self._stage, self._first, self._last = "", 0, 0
        self._began = self._last_line = self._stage_started = time.monotonic()
        self._handler = _LogLines(self)

    def __enter__(self) -> ProgressView:
        self._logger = logging.getLogger("distill")
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)
        if error is None and self._is_result and self.stream.error is not None:
            raise self.stream.error

    def line(self, text: str) -> None:
        """Show a line that stays."""
        self._last_line = time.monotonic()
        if self._bar:
            self._bar.console.print(text.encode("utf-8", "backslashreplace").decode())
        else:
            say(text, self.stream)

    def confirm(self, question: str) -> bool:
        """Ask a question on the terminal; Ctrl-C and the end of the input mean no. Without a terminal, go on."""
        streams = [stream for stream in (self.stream, sys.stderr) if is_terminal(stream)]
        if self._assume_yes or not streams or not is_terminal(sys.stdin):
            return True
        if self._bar:
            self._bar.stop()
        # A command may have handlers that only end its work after the current step.
        ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, signal.default_int_handler) for number in ends}
        try:
            return ask(question, streams[0])
        except KeyboardInterrupt:
            return False
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._bar:
                self._bar.start()

    def progress(self, stage: str, current: int, total: int) -> None:
        """Progress callback; without a terminal, it prints a line if none was printed for 5 s."""
        if self._has_terminal:
            self._show(stage, current, total, f"{current}/{total}" if total else f"{current}")
            return
        now = time.monotonic()
        if stage != self._stage or current < self._last:
            # A stage may go on after another one, as a commit comes between files, or begin again, as for each table.
            self._stage, self._stage_started, self._first = stage, now, current
        self._last = current
        if (current < total or not total) and now - self._last_line > _PLAIN_EVERY_S:
            done = current - self._first
            left = (now - self._stage_started) / done * (total - current) if done > 0 else 0.0
            remaining = f", about {_duration(left)} left" if left > 0 else ""
            self.line(f"{stage}: {_amount(stage, current, total)}{remaining}")

    def event(self, event: TrainEvent) -> None:
        """Event callback of training."""
        values = event.values
        if event.kind in ("preprocess", "analyze"):
            self.progress(**values)
        elif event.kind == "start":
            self._steps, self._epochs = values["steps_per_epoch"], values["epochs"]
            self._stage = ""
        elif event.kind == "step" and self._has_terminal:
            done = (values["epoch"] - 1) * self._steps + values["step"]
            loss = f", loss {values['loss']:.4f}" if "loss" in values else ""
            self._show("training", done, self._epochs * self._steps, f"epoch {values['epoch']}/{self._epochs}{loss}")
        elif event.kind == "epoch":
            self._epoch(values)

    def _epoch(self, values: dict[str, Any]) -> None:
        left = values["seconds"] * (self._epochs - values["epoch"])
        r2 = "".join(
            f"  {name} R² {values[key]:.3f}"
            for name, key in (("magnitude", "val_magnitude_r2"), ("IF", "val_if_r2"))
            if values[key] is not None
        )
        losses = f"train {values['train_loss']:.4f}  val {values['val_loss']:.4f}"
        pace = f"{values['examples_per_s']:.0f} rows/s  at most {_duration(left)} left"
        best = "  best" if values["is_best"] else ""
        self.line(f"epoch {values['epoch']}/{self._epochs}  {losses}{r2}  {pace}{best}")

    def _show(self, description: str, current: int, total: int, what: str) -> None:
        if self._bar is None:
            if time.monotonic() - self._began < _BAR_AFTER_S:
                return
            self._bar = _bar_on(self.stream)
            self._bar.start()
        if self._task is None or description != self._stage or current < self._last:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._stage = description
            self._task = self._bar.add_task(description, total=total or None, what=what)
        self._last = current
        self._bar.update(self._task, completed=current, total=total or None, what=what)


def _bar_on(stream: TolerantOutput) -> Progress:
    from rich.console import Console  # noqa: PLC0415 - only a bar needs it
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(file=cast("TextIO", stream), highlight=False, markup=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[what]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


def _amount(stage: str, current: int, total: int) -> str:
    unit = _UNITS.get(stage.partition(" ")[0], "steps")
    size = 1_000_000 if unit == "MB" else 1
    return f"{current // size} of {total // size} {unit}" if total else f"{current // size} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
