"""The interpreted kernel, started once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from interpreted import Interpreter, interpreter


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Interpreter]:
    """Features of a waveform by the interpreted kernel; parameters as `interpreted.compute`."""
    with interpreter() as compute:
        yield compute
