"""The flags of a command, and usual command lines, read without tyro, whose import takes longer than many a command.

What is unusual is left to tyro: help, faults, values of several words. It decides what a command line means, and
tests/cli compares the two.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

from distill.config import TrainingConfig
from distill.errors import ConfigError
from distill.faults import replace_fields

T = TypeVar("T")

_NUMBERS = {int: re.compile(r"[0-9]{1,18}"), float: re.compile(r"[0-9]{1,18}(\.[0-9]*)?(e[+-]?[0-9]{1,2})?")}


class _Positional:
    """Stands for `tyro.conf.Positional`."""

    def __class_getitem__(cls, hint: Any) -> Any:
        return Annotated[hint, cls]


class _Special(_Positional):
    """Stands for marks of tyro that give a flag another form."""


_MARKS = SimpleNamespace(
    conf=SimpleNamespace(Positional=_Positional, UseAppendAction=_Special, arg=lambda **options: _Special)
)


class Flag(NamedTuple):
    """A flag, or an operand."""

    path: tuple[str, ...]
    """The fields that lead to its value."""
    hint: Any
    """Its type."""
    mark: type | None
    """What its type is marked with."""


def flags_of(kind: type, above: tuple[str, ...] = (), table: str = "") -> dict[str, Flag]:
    """Return the flags of a dataclass of options; those of a nested configuration begin with its name."""
    flags: dict[str, Flag] = {}
    hints = get_type_hints(kind, localns={"tyro": _MARKS}, include_extras=True)
    for item in dataclasses.fields(kind):
        hint, mark = hints[item.name], None
        if get_origin(hint) is Annotated:
            hint, mark = get_args(hint)
        flag, path = f"{table}{item.name}".replace("_", "-"), (*above, item.name)
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            # The fields of the training configuration are flags without a prefix.
            flags |= flags_of(hint, path, "" if hint is TrainingConfig else f"{flag}.")
        else:
            flags[f"--{flag}"] = Flag(path, hint, mark)
    return flags


def read_usual(kind: type[T], argv: Sequence[str], defaults: Mapping[str, Any]) -> T | None:
    """Return the options of a usual command line: operands, switches, and flags with one value, each at most once.

    Parameters
    ----------
    kind : type
        The dataclass of the options.
    argv : sequence of str
        The command line, without the name of the command.
    defaults : mapping
        Configurations whose fields are flags, by the name of their field.

    Returns
    -------
    object or None
        None if the line is not usual, or has a fault.
    """
    values = _values(flags_of(kind), argv)
    required = {item.name for item in dataclasses.fields(kind) if is_required(item)}  # type: ignore[arg-type]
    if values is None or not required <= values.keys() | defaults.keys():
        return None
    try:
        changed = {name: replace_fields(config, values.pop(name, {})) for name, config in defaults.items()}
        return kind(**changed, **values)
    except ConfigError:
        return None


def is_required(item: dataclasses.Field[Any]) -> bool:
    """Whether a field has no default."""
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _values(flags: Mapping[str, Flag], argv: Sequence[str]) -> dict[str, Any] | None:
    """Return the values of a command line by field, in nested dicts; None if it is not usual."""
    operands = [flag for flag in flags.values() if flag.mark is _Positional]
    values: dict[str, Any] = {}
    words = iter(argv)
    for word in words:
        flag: Flag | None
        value: str | bool | None
        if word.startswith("-"):
            name, equals, text = word.partition("=")
            flag, value = _named(flags, name.replace("_", "-"))
            if equals:
                value = text
            elif value is None:
                value = next(words, "")
        else:
            flag, value = operands.pop(0) if operands else None, word
        if flag is None or not _is_new(values, flag, value):
            return None
    return values


def _named(flags: Mapping[str, Flag], name: str) -> tuple[Flag | None, bool | None]:
    """Return the flag with a name, and what it is set to if it is a switch."""
    if (flag := flags.get(name)) is not None:
        return (None if flag.mark else flag), (True if flag.hint is bool else None)
    flag = flags.get(re.sub(r"^--(.*\.)?no-", r"--\1", name))
    return (flag, False) if flag and flag.hint is bool else (None, None)


def _is_new(values: dict[str, Any], flag: Flag, value: str | bool) -> bool:
    """Put a value where its flag's path leads; return False if one is there, or it is not of the flag's type."""
    converted = value if isinstance(value, bool) else _converted(value, flag.hint)
    *tables, name = flag.path
    for table in tables:
        values = values.setdefault(table, {})
    if converted is None or name in values:
        return False
    values[name] = converted
    return True


def _converted(text: str, hint: Any) -> str | Path | int | float | None:
    """Return a value of a type, which may be optional; None if it is not certain which one a text means."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    (kind, *others) = [kind for kind in kinds if kind is not type(None)]
    if others or text in ("", "None") or text.startswith("-"):
        return None
    if get_origin(kind) is Literal:
        return text if text in get_args(kind) else None
    if kind is Path or kind is str:
        return Path(text) if kind is Path else text
    if kind in _NUMBERS and _NUMBERS[kind].fullmatch(text):
        number: int | float = kind(text)
        return number
    return None
