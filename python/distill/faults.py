"""Checks of configuration dataclasses and of tables of values, which report every fault at once."""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from distill.errors import ConfigError

T = TypeVar("T")

_UNKNOWN_SHOWN = 20

# Of values in messages: a file may hold a million of them, or nest them a hundred levels deep.
_representation = reprlib.Repr()
_representation.maxlevel = 3
_representation.maxstring = _representation.maxother = _representation.maxlong = 200

_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting_faults() -> Iterator[None]:
    """Collect the faults of all configurations made inside, and raise them as one ConfigError at the end.

    Raises
    ------
    ConfigError
        If there were any.
    """
    with _collecting() as faults:
        yield
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))


@contextmanager
def _collecting() -> Iterator[list[str]]:
    """Collect reported faults in the list that is yielded."""
    faults: list[str] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def report_faults(faults: Sequence[str]) -> None:
    """Add `faults` to those that are being collected; without `collecting_faults`, raise them.

    Raises
    ------
    ConfigError
        If there are any, and nothing collects them.
    """
    collected = _collected.get()
    if collected is not None:
        collected.extend(faults)
    elif faults:
        raise ConfigError(faults)


class Rule(NamedTuple):
    """What the value of a field must be."""

    holds: Callable[[Any], bool]
    must_be: str
    """The end of the sentence "NAME=VALUE must be ..."."""


def at_least(low: float) -> Rule:
    """`low` or more."""
    return Rule(lambda value: value >= low, f"at least {low}")


def between(low: float, high: float) -> Rule:
    """From `low` to `high`, both included."""
    return Rule(lambda value: low <= value <= high, f"from {low} to {high}")


def check_fields(config: Any, rules: Mapping[str, Rule]) -> None:
    """Report each field of a dataclass that has the wrong type or breaks its rule.

    A rule is applied only to values of the right type, and not to None.

    Raises
    ------
    ConfigError
        See `report_faults`.
    """
    kind: type = type(config)
    hints = _hints(kind)
    faults = {}
    for item in dataclasses.fields(config):
        if fault := _type_fault(item.name, getattr(config, item.name), hints[item.name]):
            faults[item.name] = fault
    for name, rule in rules.items():
        value = getattr(config, name)
        if name not in faults and value is not None and not rule.holds(value):
            faults[name] = f"{name}={shown(value)} must be {rule.must_be}"
    report_faults(list(faults.values()))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


class Key(NamedTuple):
    """What a key of a table must hold."""

    hint: Any
    """Its type, as the annotation of a dataclass field: a class, several with None, or a Literal."""
    rule: Rule | None = None
    """What a value of that type must be."""
    is_required: bool = True
    """Whether the key may be missing."""


class Table(NamedTuple):
    """What a mapping, such as the object in a JSON file, must hold."""

    keys: Mapping[str, Key | Table]
    """Its keys."""
    others: Key | None = Key(object)
    """What other keys must hold; None: there may be none. Default: anything."""


def table_faults(values: Any, table: Table, prefix: str = "") -> list[str]:
    """Return the faults of a mapping, which name each key with those above it, as in "statistics.mag_std"."""
    if not isinstance(values, Mapping):
        return [f"{prefix[:-1]}={shown(values)} must be a table of fields"]
    faults: list[str] = []
    for name, value in values.items():
        key = table.keys.get(name, table.others)
        if isinstance(key, Table):
            faults += table_faults(value, key, f"{prefix}{name}.")
        elif key is None:
            faults.append(f"unknown key {shown(f'{prefix}{name}')}")
        elif fault := _key_fault(f"{prefix}{name}", value, key):
            faults.append(fault)
    return faults + [
        f"{prefix + name!r} is missing"
        for name, key in table.keys.items()
        if name not in values and (isinstance(key, Table) or key.is_required)
    ]


def _key_fault(name: str, value: Any, key: Key) -> str | None:
    if key.hint is not object and (fault := _type_fault(name, value, key.hint)):
        return fault
    if key.rule is None or value is None or key.rule.holds(value):
        return None
    return f"{name}={shown(value)} must be {key.rule.must_be}"


def shown(value: Any) -> str:
    """Return the repr of a value, shortened."""
    if isinstance(value, int) and value.bit_length() > 512:
        return f"an integer of {value.bit_length()} bits"
    return " ".join(_representation.repr(value).split("\n"))


def choice_fault(name: str, value: Any, choices: Sequence[str], may_be_left_out: bool = False) -> str | None:
    """Return the fault of a value that is none of `choices`, with the nearest of them."""
    if value in choices:
        return None
    nearest = _did_you_mean(difflib.get_close_matches(str(value).lower(), choices, 1))
    must_be = ("left out or " if may_be_left_out else "") + ("one of " if len(choices) > 1 else "")
    return f"{name}={shown(value)} must be {must_be}{', '.join(map(repr, choices))}{nearest}"


def _type_fault(name: str, value: Any, hint: Any) -> str | None:
    choices = get_args(hint) or (hint,)
    # A Literal, or one that may be left out.
    words = [word for choice in choices for word in get_args(choice) or (choice,) if isinstance(word, str)]
    if words:
        may_be_left_out = type(None) in choices
        return None if value is None and may_be_left_out else choice_fault(name, value, words, may_be_left_out)
    kinds = tuple(choice for choice in choices if isinstance(choice, type))
    if dataclasses.is_dataclass(value):
        # A subclass is another kind of feature, and has fields that would be ignored.
        fits = type(value) in kinds
    elif isinstance(value, bool):
        fits = bool in kinds
    else:
        fits = isinstance(value, (*kinds, int) if float in kinds else kinds)
    if not fits:
        names = " or ".join("left out" if kind is type(None) else kind.__name__ for kind in kinds)
        return f"{name}={shown(value)} must be {names}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name}={value!r} must be finite"
    # No number here needs more bits, and torch and numpy take no more.
    if isinstance(value, int) and value.bit_length() > 63:
        return f"{name}={shown(value)} must be below 2**63"
    return None


def replace_fields(config: T, values: Mapping[str, Any], table: str = "") -> T:
    """Return `config` with other values, and report unknown keys with the nearest known one.

    Parameters
    ----------
    config : dataclass instance
        Where the fields that `values` lacks come from.
    values : mapping
        Field names to values; mappings for fields that are dataclasses.
    table : str
        Prefix of the field names in faults, such as "augmentation.". Default: none.
    """
    names = [item.name for item in dataclasses.fields(config)]  # type: ignore[arg-type]
    changes: dict[str, Any] = {}
    unknown = [key for key in values if key not in names]
    for key in unknown[:_UNKNOWN_SHOWN]:
        nearest = [table + name for name in difflib.get_close_matches(key, names, 1)] or _in_tables(key, config)
        report_faults([f"unknown key {shown(table + key)}{_did_you_mean(nearest)}"])
    if len(unknown) > _UNKNOWN_SHOWN:
        report_faults([f"and {len(unknown) - _UNKNOWN_SHOWN} more unknown keys"])
    for key, value in values.items():
        if key not in names:
            continue
        if not dataclasses.is_dataclass(before := getattr(config, key)):
            changes[key] = value
        elif isinstance(value, Mapping):
            changes[key] = replace_fields(before, value, f"{table}{key}.")
        else:
            report_faults([f"{table}{key}={shown(value)} must be a table of fields"])
    with _collecting() as faults:
        replaced = dataclasses.replace(config, **changes)  # type: ignore[type-var]
    report_faults([table + fault for fault in faults])
    return replaced


def _in_tables(key: str, config: Any) -> list[str]:
    """Return the fields of nested configurations with this name, which was given without that of the table."""
    tables = [(name, value) for name, value in vars(config).items() if dataclasses.is_dataclass(value)]
    return [f"{name}.{key}" for name, value in tables if hasattr(value, key)]


def _did_you_mean(nearest: Sequence[str]) -> str:
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
