"""``python -m distill.train DATASET``: from a folder of audio to a trained model."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from distill.cli.process import INTERRUPTED, run_command, say
from distill.errors import DatasetError
from distill.text import counted

if TYPE_CHECKING:
    from distill.training.trainer import TrainResult


def main(argv: Sequence[str] | None = None, program: str = "python -m distill.train") -> int:
    """Run the command.

    Returns
    -------
    int
        Exit status: 0 done, 1 it could not be done, 2 it was asked for wrongly, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    return run_command(lambda: _train(argv, program))


def _train(argv: Sequence[str], program: str) -> int:
    from distill.cli.options import TrainArguments, base_config, parse  # noqa: PLC0415
    from distill.cli.progress import ProgressView  # noqa: PLC0415 - Ctrl-C is answered while these are imported

    arguments = parse(TrainArguments(training=base_config(argv)), argv, program)
    if arguments.resume is None and arguments.dataset is None:
        raise DatasetError("no dataset was given", "give the folder that holds your recordings, or --resume RUN")
    from distill.pipeline import train  # noqa: PLC0415 - torch takes seconds; --help and faults need none

    run_dir = arguments.resume or arguments.out or default_run_dir(arguments.dataset)
    cancel = threading.Event()
    with ProgressView() as view, cancelled_by_ctrl_c(cancel):
        result = train(
            arguments.dataset,
            run_dir,
            arguments.training,
            resume=arguments.resume is not None,
            on_event=view.event,
            cancel_event=cancel,
            cache_dir=arguments.cache_dir,
            trust=arguments.trust,
            follow_links=arguments.follow_links,
            tensorboard=arguments.tensorboard,
            analyze=arguments.analyze,
        )
    run = shlex.quote(str(run_dir))
    if result.status == "interrupted":
        # What is not part of the run's configuration would be forgotten.
        flags = " --tensorboard" * arguments.tensorboard + " --no-analyze" * (not arguments.analyze)
        say(f"interrupted and saved; go on with:\n  python -m distill.train --resume {run}{flags}")
        return INTERRUPTED
    _say_result(result)
    _say_what_is_there(result, with_board=arguments.tensorboard)
    if arguments.analyze and result.latent_dir is None and cancel.is_set():
        say(f"stopped before its latent space was analysed; to do that:\n  distill analyze {run}")
        return INTERRUPTED
    return 0


@contextmanager
def cancelled_by_ctrl_c(cancel: threading.Event) -> Iterator[None]:
    """Set `cancel` on the first Ctrl-C; the second one interrupts at once."""

    def handle(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say_result(result: TrainResult) -> None:
    best = result.best
    reason = {"finished": "all epochs done", "stopped early": "validation no longer improves"}[result.status]
    say(f"finished and saved ({reason}): {counted(result.epochs, 'epoch')}, the best was epoch {best.get('epoch')}")
    figures = {"magnitude": best.get("val_magnitude_r2"), "instantaneous frequency": best.get("val_if_r2")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
    say(f"validation R²: {shown}")


def _say_what_is_there(result: TrainResult, *, with_board: bool) -> None:
    run = result.run_dir
    pictures = ["loss.png", "reconstruction.png", "quality.png"]
    if result.latent_dir:
        pictures.append(f"{result.latent_dir.name}/map.png")
    say(f"run: {run}\n  look at {', '.join(pictures)}")
    if previews := sorted((run / "previews").glob("epoch-*"), key=lambda folder: (len(folder.name), folder.name)):
        say(f"  listen to previews/{previews[-1].name}")
    if with_board:
        say(f"  tensorboard --logdir {shlex.quote(str(run / 'tensorboard'))}")
    name = shlex.quote(str(run))
    say(f"new sounds:            distill generate {name} --out DIR")
    say(f"a sound by way of it:  distill reconstruct {name} FILE --out DIR")


def default_run_dir(dataset: Path) -> Path:
    """runs/DATASET-TIME."""
    name = re.sub(r"[^\w.-]+", "-", dataset.absolute().name.encode("utf-8", "replace").decode()) or "dataset"
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005 - the user's own clock
