"""The ``distill`` command: a table of its subcommands, from which usage, parsing and dispatch come.

This module imports almost nothing. A command's options and its runner are imported when it is called, inside
`run_command`, so that ``distill --help`` is fast and Ctrl-C during an import ends without a traceback.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from distill import __version__
from distill.cli.process import SPINS, ended_by_ctrl_c, run_command, say
from distill.errors import ConfigError


class Command(NamedTuple):
    """An entry of the table."""

    operands: str
    """What follows the name, in the usage text."""
    help: str
    """One line for the usage text."""
    arguments: str
    """The arguments dataclass, as "module:name". It must not import torch."""
    runner: str
    """The function that takes the arguments and returns the exit status, as "module:name"."""
    spins: int = SPINS
    """See `run_command`."""


COMMANDS = {
    "train": Command(
        "DATASET",
        "train a model on a folder of audio (same as python -m distill.train)",
        "distill.cli.options:TrainArguments",
        "distill.cli.train:train",
    ),
    "preprocess": Command(
        "DATASET",
        "compute the features for training and keep them in the cache",
        "distill.cli.options:PreprocessArguments",
        "distill.cli.preprocess:preprocess",
    ),
    "status": Command(
        "DATASET",
        "show what the cache holds and which files have changed, without decoding any",
        "distill.cli.options:StatusArguments",
        "distill.cli.status:status",
    ),
    "verify": Command(
        "DATASET",
        "check all cached features and files for damage; --repair computes damaged features again",
        "distill.cli.options:VerifyArguments",
        "distill.cli.verify:verify",
    ),
    "clean": Command(
        "DATASET",
        "free the space of features that no file uses any more",
        "distill.cli.options:CleanArguments",
        "distill.cli.clean:clean",
    ),
    "analyze": Command(
        "RUN",
        "find the main axes of a model's latent space and the sound features they correlate with",
        "distill.cli.run_options:AnalyzeArguments",
        "distill.cli.analyze:analyze",
    ),
    "generate": Command(
        "RUN",
        "make new sounds: samples, interpolations between two sounds, variations of one",
        "distill.cli.run_options:GenerateArguments",
        "distill.cli.generate:generate",
    ),
    "play": Command(
        "RUN",
        "play a run, or a folder of runs, on a page in the browser",
        "distill.cli.run_options:PlayArguments",
        "distill.cli.play:play",
        # A sound is many short pieces of work, beside a browser that needs the cores, too: on two cores with a load of
        # 11, a second of sound took 48 ms (median), and 418 ms with the default.
        spins=0,
    ),
    "reconstruct": Command(
        "RUN FILE...",
        "encode and decode sounds with a trained model, each with a picture of input and output",
        "distill.cli.run_options:ReconstructArguments",
        "distill.cli.reconstruct:reconstruct",
    ),
    "export": Command(
        "DATASET OUT",
        "write the features as pt, npy, safetensors, webdataset or parquet files",
        "distill.cli.options:ExportArguments",
        "distill.cli.export:export",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``distill`` with `argv`, by default that of the process, and return the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    name = argv[0] if argv else None
    if name in COMMANDS:
        return run(name, argv[1:])
    return run_command(lambda: _without_command(name))


def _without_command(name: str | None) -> int:
    if name == "--version":
        say(f"distill {__version__}")
    elif name in ("-h", "--help", None):
        say(_usage())
    else:
        nearest = difflib.get_close_matches(name, [*COMMANDS, "--version", "--help"], 1)
        maybe = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ConfigError([f"no command {name!r}{maybe}\n{_usage()}"])
    return 2 if name is None else 0


def run(name: str, argv: Sequence[str], program: str | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    name : str
        Its name in `COMMANDS`.
    argv : sequence of str
        Its options.
    program : str, optional
        The program's name in the help text. Default: "distill NAME".

    Returns
    -------
    int
        Exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted; commands that compute or write also 143
        after SIGTERM and 129 after SIGHUP.
    """

    def body() -> int:
        parse = load("distill.cli.parsing:parse")
        arguments = parse(load(COMMANDS[name].arguments), argv, program or f"distill {name}")
        arguments.check_paths()
        # Only now, because it may import torch, which takes seconds: --help and wrong options need it not.
        with ended_by_ctrl_c():
            runner = load(COMMANDS[name].runner)
        status: int = runner(arguments)
        return status

    return run_command(body, COMMANDS[name].spins)


def load(path: str) -> Callable[..., Any]:
    """Import what a "module:name" stands for."""
    module, _, name = path.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


def _usage() -> str:
    lines = [f"  {name + ' ' + command.operands:<23} {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: distill COMMAND [OPTIONS]", "", *lines, "", "distill COMMAND --help lists the options of a command."]
    )
