"""From a command line to the arguments of a command: flags override a TOML file, which overrides a preset."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from distill.cli.options import Arguments, ConfigArguments
from distill.config import PRESETS, TrainingConfig, config_from_dict
from distill.documents import parse_toml, read_file
from distill.errors import ConfigError
from distill.faults import collecting_faults

A = TypeVar("A", bound=Arguments)


def parse(kind: type[A], argv: Sequence[str], program: str) -> A:
    """Parse and check the options of a command.

    Parameters
    ----------
    kind : type
        The dataclass of its options.
    argv : sequence of str
        The command line, without the name of the command.
    program : str
        The program's name in the help text.

    Raises
    ------
    ConfigError
        With all faults of the configuration at once.
    DistillError
        If the options do not fit together; see `Arguments.check`.
    SystemExit
        After --help, and after errors that tyro reports.
    """
    required = [item.name for item in dataclasses.fields(kind) if _is_required(item)]
    defaults: dict[str, Any] = dict.fromkeys(required, tyro.MISSING)
    if issubclass(kind, ConfigArguments):
        defaults["training"] = base_config(argv)
    # tyro writes --table.no-field; --no-table.field, the usual form, is accepted too.
    argv = [re.sub(r"^--no-([\w-]+)\.([\w-]+)$", r"--\1.no-\2", argument) for argument in argv]
    argv = _with_values(argv)
    with collecting_faults():
        arguments = tyro.cli(kind, args=argv, prog=program, default=kind(**defaults))
    arguments.check()
    return arguments


def _with_values(argv: Sequence[str]) -> list[str]:
    """Give --ray, whose value may be left out, the value that this means."""
    words: list[str] = []
    for index, argument in enumerate(argv):
        words.append(argument)
        if argument == "--ray" and (index + 1 == len(argv) or argv[index + 1].startswith("-")):
            words.append("local")
    return words


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def base_config(argv: Sequence[str]) -> TrainingConfig:
    """Return the configuration that flags override.

    It starts from the defaults, or with --resume from that of the run; then come --preset and --config.

    Raises
    ------
    ConfigError
        If the file of --config cannot be used.
    RunError
        If the folder of --resume is not a run.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--resume", type=Path)
    try:
        named, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return TrainingConfig()  # tyro reports the error
    config = TrainingConfig()
    if named.resume is not None:
        from distill.runs.folder import RunFolder  # noqa: PLC0415 - imports torch

        run = RunFolder(named.resume)
        run.dataset()
        config = run.config()
    config = config_from_dict(PRESETS.get(named.preset, {}), config)
    if named.config is None:
        return config
    try:
        return config_from_dict(_read_toml(named.config), config)
    except ConfigError as error:
        raise ConfigError([f"{named.config}: {fault}" for fault in error.faults], error.tip) from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(read_file(path))
    except (OSError, ConfigError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"cannot be read: {reason}"], "see config.toml in any run folder") from error
