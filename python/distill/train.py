"""``python -m distill.train DATASET``: from a folder of audio to a trained model."""

from __future__ import annotations

import argparse
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

import tyro

from distill.config import PRESETS, TrainingConfig, collecting_faults, config_from_dict
from distill.console import INTERRUPTED, ProgressView, run_command, say
from distill.errors import ConfigError, DatasetError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

if TYPE_CHECKING:
    from distill.training.session import TrainResult

T = TypeVar("T")


@dataclass(frozen=True)
class TrainArguments:
    """Train a model on a folder of audio.

    Features are computed for what is new in the folder and kept in DATASET/.cache; then a VAE is trained on them.
    Ctrl-C stops after the step in hand, with everything saved.
    """

    dataset: tyro.conf.Positional[Path | None] = None
    """The folder of audio; left out with --resume."""
    out: Path | None = None
    """The run folder. Default: runs/DATASET-TIME."""
    resume: Path | None = None
    """Go on with the run in this folder; nothing else need be given."""
    config: Path | None = None
    """A TOML file of the fields below; flags win over it."""
    preset: Literal["default", "quick", "large"] = "default"
    """A named set of values to start from; --config and flags win over it."""
    cache_dir: Path | None = None
    """Where features are kept. Default: DATASET/.cache."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    """The training configuration."""


def base_config(argv: Sequence[str]) -> TrainingConfig:
    """What flags are laid over: the run to resume, or the preset and then the file that `argv` names.

    Raises
    ------
    ConfigError
        If the file cannot be used.
    RunError
        If the run to resume is none.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--resume", type=Path)
    try:
        named, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return TrainingConfig()  # tyro says what is wrong
    if named.resume is not None:
        from distill.training.checkpoint import RunFolder  # noqa: PLC0415 - imports torch

        run = RunFolder(named.resume)
        run.source()
        return run.config()
    config = config_from_dict(PRESETS.get(named.preset, {}))
    return config_from_dict(_read_toml(named.config), config) if named.config else config


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"{path}: cannot be read: {reason}"], "see config.toml in any run folder") from error


def parse(default: T, argv: Sequence[str], program: str) -> T:
    """Parse `argv` over `default`, with every fault of the configuration reported at once."""
    with collecting_faults():
        return tyro.cli(type(default), args=list(argv), prog=program, default=default)


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


def main(argv: Sequence[str] | None = None, program: str = "python -m distill.train") -> int:
    """Run the command.

    Returns
    -------
    int
        Exit status: 0 done, 1 it could not be done, 2 it was asked for wrongly, 130 interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    return run_command(lambda: _train(parse(TrainArguments(training=base_config(argv)), argv, program)))


def _train(arguments: TrainArguments) -> int:
    from distill.training.loop import train  # noqa: PLC0415 - torch takes seconds; --help and faults need none

    if arguments.resume is None and arguments.dataset is None:
        raise DatasetError("no dataset was given", "give the folder that holds your recordings, or --resume RUN")
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
        )
    if result.status == "interrupted":
        say(f"interrupted and saved; go on with:\n  python -m distill.train --resume {shlex.quote(str(run_dir))}")
        return INTERRUPTED
    _say_result(result)
    return 0


def _say_result(result: TrainResult) -> None:
    best = result.best
    reason = {"finished": "all epochs done", "stopped early": "validation no longer improves"}[result.status]
    say(f"finished ({reason}): {result.epochs} epochs, the best was epoch {best.get('epoch')}")
    figures = {"magnitude": best.get("val_magnitude_r2"), "instantaneous frequency": best.get("val_if_r2")}
    shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
    say(f"validation R²: {shown}")
    say(f"run: {result.run_dir}\n  look at loss.png and reconstruction.png")
    say(f"  load it: distill.models.load_model({str(result.run_dir)!r})")


def default_run_dir(dataset: Path) -> Path:
    """runs/DATASET-TIME."""
    name = re.sub(r"[^\w.-]+", "-", dataset.absolute().name.encode("utf-8", "replace").decode()) or "dataset"
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005 - the user's own clock


if __name__ == "__main__":
    sys.exit(main())
