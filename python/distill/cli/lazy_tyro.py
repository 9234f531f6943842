"""tyro, imported when something of it is first used: it takes 0.1 s.

Options name it in annotations only, which are evaluated when it reads a command line.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tyro as tyro
else:

    class _Tyro:
        def __getattr__(self, name: str) -> Any:
            return getattr(importlib.import_module("tyro"), name)

    tyro = _Tyro()
