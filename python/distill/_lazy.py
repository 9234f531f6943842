"""Names of a package that are imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a package that imports `names` on first use.

    So importing distill does not import torch, and features can be computed where the Rust extension is not built.

    Parameters
    ----------
    package : str
        Name of the package, for the error message.
    names : mapping
        Public names, each with the module that defines it.
    """

    def find(name: str) -> Any:
        if name in names:
            return getattr(importlib.import_module(names[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
