"""Checks of configuration dataclasses, which report every fault at once."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from distill.errors import ConfigError

T = TypeVar("T")

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
    hints = get_type_hints(type(config))
    faults = {}
    for item in dataclasses.fields(config):
        if fault := _type_fault(item.name, getattr(config, item.name), hints[item.name]):
            faults[item.name] = fault
    for name, rule in rules.items():
        value = getattr(config, name)
        if name not in faults and value is not None and not rule.holds(value):
            faults[name] = f"{name}={value} must be {rule.must_be}"
    report_faults(list(faults.values()))


def _type_fault(name: str, value: Any, hint: Any) -> str | None:
    choices = get_args(hint) or (hint,)
    if all(isinstance(choice, str) for choice in choices):
        if value in choices:
            return None
        nearest = _did_you_mean(difflib.get_close_matches(str(value), choices, 1))
        return f"{name}={value!r} must be one of {', '.join(map(repr, choices))}{nearest}"
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
        return f"{name}={value!r} must be {names}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{name}={value!r} must be finite"
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
    for key, value in values.items():
        if key not in names:
            nearest = [table + name for name in difflib.get_close_matches(key, names, 1)]
            report_faults([f"unknown key {table + key!r}{_did_you_mean(nearest)}"])
        elif not dataclasses.is_dataclass(before := getattr(config, key)):
            changes[key] = value
        elif isinstance(value, Mapping):
            changes[key] = replace_fields(before, value, f"{table}{key}.")
        else:
            report_faults([f"{table}{key}={value!r} must be a table of fields"])
    with _collecting() as faults:
        replaced = dataclasses.replace(config, **changes)  # type: ignore[type-var]
    report_faults([table + fault for fault in faults])
    return replaced


def _did_you_mean(nearest: Sequence[str]) -> str:
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
