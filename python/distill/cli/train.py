"""``distill train``: from a folder of audio to a trained model."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from distill.cli.options import TrainArguments
from distill.cli.process import INTERRUPTED, TolerantOutput, say
from distill.cli.progress import ProgressView
from distill.pipeline import train as train_model
from distill.text import counted
from distill.training.events import TrainResult

_REASONS = {"finished": "all epochs done", "stopped early": "validation loss no longer improves"}


def train(arguments: TrainArguments) -> int:
    """Run ``distill train``."""
    run_dir = arguments.run_dir
    cancel = threading.Event()
    with ProgressView(is_result=False) as view, cancelled_by_ctrl_c(cancel):
        result = train_model(
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
    # To the view's stream: a training that ended well did so whether or not its last lines can be shown.
    out, run = view.stream, shlex.quote(str(run_dir))
    if result.status == "interrupted":
        # These two are not saved with the run.
        flags = " --tensorboard" * arguments.tensorboard + " --no-analyze" * (not arguments.analyze)
        say(f"interrupted and saved; continue with:\n  python -m distill.train --resume {run}{flags}", out)
        return INTERRUPTED
    _say_result(result, out)
    _say_what_is_there(out, run_dir, result.latent_dir, with_tensorboard=arguments.tensorboard)
    if arguments.analyze and result.latent_dir is None and cancel.is_set():
        say(f"stopped before the latent space was analysed; to do so:\n  distill analyze {run}", out)
        return INTERRUPTED
    return 0


@contextmanager
def cancelled_by_ctrl_c(cancel: threading.Event) -> Iterator[None]:
    """Set `cancel` at the first Ctrl-C; raise KeyboardInterrupt at the second."""

    def handle(number: int, frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _say_result(result: TrainResult, out: TolerantOutput) -> None:
    best = result.best
    epochs = counted(result.epochs, "epoch")
    say(f"finished and saved ({_REASONS[result.status]}): {epochs}, the best was epoch {best.get('epoch')}", out)
    figures = {"magnitude": best.get("val_magnitude_r2"), "instantaneous frequency": best.get("val_if_r2")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
    say(f"validation R²: {shown}", out)


def _say_what_is_there(out: TolerantOutput, run: Path, latent_dir: Path | None, *, with_tensorboard: bool) -> None:
    pictures = ["loss.png", "reconstruction.png", "quality.png"]
    if latent_dir:
        pictures.append(f"{latent_dir.name}/map.png")
    say(f"run: {run}\n  look at {', '.join(pictures)}", out)
    if previews := sorted((run / "previews").glob("epoch-*"), key=lambda folder: (len(folder.name), folder.name)):
        say(f"  listen to previews/{previews[-1].name}", out)
    if with_tensorboard:
        say(f"  tensorboard --logdir {shlex.quote(str(run / 'tensorboard'))}", out)
    name = shlex.quote(str(run))
    say(f"make new sounds:    distill generate {name} --out DIR", out)
    say(f"reconstruct sounds: distill reconstruct {name} FILE --out DIR", out)
