"""``distill train``: from a folder of audio to a trained model."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from pathlib import Path

from distill.cli.options import TrainArguments
from distill.cli.process import TolerantOutput, say, status_after
from distill.cli.progress import ProgressView
from distill.cli.signals import cancelled_by_signals
from distill.pipeline import train as train_model
from distill.preprocess.ray_engine import RayEngine
from distill.text import counted
from distill.training.events import TrainResult
from distill.training.listening import sentence
from distill.training.split import FEW_CHUNKS
from distill.training.world import processes_from_environment

_REASONS = {"finished": "all epochs done", "stopped early": "validation loss no longer improves"}


def train(arguments: TrainArguments) -> int:
    """Run ``distill train``."""
    run_dir = arguments.run_dir
    cancel = threading.Event()
    rank, processes = processes_from_environment()
    with (
        ProgressView(is_result=False, yes=arguments.yes, is_shown=rank == 0) as view,
        cancelled_by_signals(cancel, sent_twice=processes > 1) as received,
    ):
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
            confirm_callback=view.confirm,
            engine=None if arguments.ray is None else RayEngine(arguments.ray),
            tensorboard=arguments.tensorboard,
            analyze=arguments.analyze,
        )
    if rank > 0:
        # The first of several processes speaks for all, with its exit status, too.
        return 0
    # To the view's stream: a training that ended well did so whether or not its last lines can be shown.
    out, run = view.stream, shlex.quote(str(run_dir))
    # Another process may have been told to stop, not this one.
    status = status_after(received[0] if received else signal.SIGTERM)
    if result.status == "interrupted":
        # These are not saved with the run.
        flags = " --tensorboard" * arguments.tensorboard + " --no-analyze" * (not arguments.analyze)
        flags += "" if arguments.ray is None else f" --ray {arguments.ray}"
        program = "python" if processes == 1 else f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', 'N')}"
        if result.heard and (kept := sentence(result.heard)):
            say(f"after epoch {result.heard['epoch']}, {kept}", out)
        say(f"interrupted and saved; continue with:\n  {program} -m distill.train --resume {run}{flags}", out)
        return status
    _say_result(result, out)
    _say_what_is_there(out, run_dir, result.latent_dir, with_tensorboard=arguments.tensorboard)
    if arguments.analyze and result.latent_dir is None and cancel.is_set():
        say(f"stopped before the latent space was analysed; to do so:\n  distill analyze {run}", out)
        return status
    return 0


def _say_result(result: TrainResult, out: TolerantOutput) -> None:
    best = result.best
    epochs = counted(result.epochs, "epoch")
    say(f"finished and saved ({_REASONS[result.status]}): {epochs}, the best was epoch {best.get('epoch')}", out)
    figures = {"magnitude": best.get("val_magnitude_r2"), "instantaneous frequency": best.get("val_if_r2")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
    chunks = best.get("val_chunks", FEW_CHUNKS)
    few = f" (uncertain: of only {counted(chunks, 'validation chunk')})" if chunks < FEW_CHUNKS else ""
    if shown:
        say(f"validation R²: {shown}{few}", out)
    if result.heard and (kept := sentence(result.heard)):
        say(kept, out)


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
    say(f"play the run:       distill play {name}", out)
