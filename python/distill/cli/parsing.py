"""From a command line to the arguments of a command: flags override a TOML file, which overrides a preset."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar, get_args

from distill.cli.flags import flags_of, is_required, read_usual
from distill.cli.lazy_tyro import tyro
from distill.cli.options import Arguments, ConfigArguments
from distill.config import PRESETS, TrainingConfig, config_from_dict
from distill.documents import parse_toml, read_file
from distill.errors import ConfigError
from distill.faults import choice_fault, collecting_faults

A = TypeVar("A", bound=Arguments)

# Short flags, and the flag that each of them stands for: the first of these that a command has.
_SHORT = {"-o": ["--out"], "-e": ["--epochs"], "-n": ["--count"], "-s": ["--seed"], "-f": ["--force", "--format"]}


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
    configs = {"training": base_config(argv)} if issubclass(kind, ConfigArguments) else {}
    # tyro writes --table.no-field; --no-table.field, the usual form, is accepted too.
    argv = [re.sub(r"^--no-([\w-]+)\.([\w-]+)$", r"--\1.no-\2", argument) for argument in argv]
    argv = _with_values(argv)
    short = short_flags(kind)
    options = argv.index("--") if "--" in argv else len(argv)
    argv = [_long(argument, short) for argument in argv[:options]] + argv[options:]
    _check_choices(argv, {name: flag.hint for name, flag in flags_of(kind).items()})
    arguments = read_usual(kind, argv, configs)
    if arguments is None:
        arguments = _read_with_tyro(kind, argv, program, configs)
    arguments.check()
    return arguments


def _read_with_tyro(kind: type[A], argv: Sequence[str], program: str, configs: Mapping[str, Any]) -> A:
    """Return the options of any command line, or report its faults."""
    required = [item.name for item in dataclasses.fields(kind) if is_required(item)]
    default = kind(**dict.fromkeys(required, tyro.MISSING), **configs)
    help_text = f"{inspect.getdoc(kind)}\n\n{_short_help(short_flags(kind))}".strip()
    with collecting_faults():
        return tyro.cli(kind, args=argv, prog=program, description=help_text, default=default)


def short_flags(kind: type[Arguments]) -> dict[str, str]:
    """Return the short flags of a command, and the flag that each of them stands for."""
    flags = flags_of(kind)
    pairs = {short: [name for name in names if name in flags] for short, names in _SHORT.items()}
    return {short: names[0] for short, names in pairs.items() if names}


def _short_help(short: Mapping[str, str]) -> str:
    pairs = [f"{letter} is {flag}" for letter, flag in short.items()]
    return f"Short flags: {', '.join(pairs)}." if pairs else ""


def _long(argument: str, short: Mapping[str, str]) -> str:
    """Write out a short flag, also one with its value, such as -n=4 or -n4; a word such as -out is none."""
    found = re.fullmatch(r"(-\w)(?:=(.*)|(\d+))?", argument, re.DOTALL)
    if found is None or found[1] not in short:
        return argument
    value = found[2] if found[3] is None else found[3]
    return short[found[1]] if value is None else f"{short[found[1]]}={value}"


def _check_choices(argv: Sequence[str], flags: Mapping[str, Any]) -> None:
    """Check the values of flags that have a few choices; tyro does not name the nearest one.

    Raises
    ------
    ConfigError
        If some are none of the choices.
    """
    faults = []
    for argument, following in pairwise([*argv, ""]):
        flag, equals, value = argument.partition("=")
        if not equals:
            value = "" if following.startswith("-") else following
        # Of a Literal, or of a union of one with None.
        kinds = [choice for kind in get_args(flags.get(flag.replace("_", "-"))) for choice in get_args(kind) or (kind,)]
        choices = [kind for kind in kinds if isinstance(kind, str)]
        is_none = value == "None" and type(None) in kinds
        if choices and value and not is_none and (fault := choice_fault(flag, value, choices)):
            faults.append(fault)
    if faults:
        raise ConfigError(faults)


def _with_values(argv: Sequence[str]) -> list[str]:
    """Give --ray, whose value may be left out, the value that this means."""
    words: list[str] = []
    for index, argument in enumerate(argv):
        words.append(argument)
        if argument == "--ray" and (index + 1 == len(argv) or argv[index + 1].startswith("-")):
            words.append("local")
    return words


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
    if not any(argument.startswith(("--preset", "--config", "--resume")) for argument in argv):
        return TrainingConfig()
    import argparse  # noqa: PLC0415 - most command lines have none of these

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
        from distill.runs.folder import RunFolder  # noqa: PLC0415 - only resuming needs it

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
