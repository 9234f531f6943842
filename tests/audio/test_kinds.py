"""One row a kind of file: what distill hears is what FFmpeg hears, or what was written; or the reason is given."""

from __future__ import annotations

import importlib.util
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import soxr

from distill.audio.decode import decode_blocks
from distill.errors import AudioFileError
from kinds import ROWS
from kinds.table import Made, Row, hear, truths

_BATCH = 48


def is_refused(row: Row) -> bool:
    """Return whether a file is refused here, where a module that reads it may be installed."""
    module = row.refused and row.refused.is_read_with
    return row.refused is not None and not (module and importlib.util.find_spec(module))


class Files:
    """The files of the rows, made when they are needed: many at once, in threads, because most wait for a program."""

    def __init__(self, rows: list[Row], folder: Path) -> None:
        self.folder = folder
        self._batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
        self._made: dict[str, Future[Made]] = {}

    def get(self, row: Row) -> Made:
        """Return what is known about the file of a row, or raise what went wrong when it was made."""
        if row.name not in self._made:
            (batch,) = (batch for batch in self._batches if row in batch)
            with ThreadPoolExecutor(2) as pool:
                made = {other.name: pool.submit(make, other, self.folder / other.name) for other in batch}
                wait(made.values())
                good = [other for other in batch if not is_refused(other) and not made[other.name].exception()]
                hear(((other, self.folder / other.name, made[other.name].result()) for other in good), pool)
            self._made |= made
        return self._made[row.name].result()


@pytest.fixture(scope="module")
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Files:
    here = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    return Files([item.callspec.params["row"] for item in here], tmp_path_factory.mktemp("kinds"))


def make(row: Row, path: Path) -> Made:
    return row.make(path) or Made()


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name, marks=pytest.mark.needs(*row.tools)) for row in ROWS])
def test_a_file_is_heard_whole_or_the_reason_is_given(row: Row, files):
    path, made = files.folder / row.name, files.get(row)
    if is_refused(row):
        with pytest.raises(AudioFileError) as caught:
            list(decode_blocks(path, 44_100))
        assert (caught.value.reason, caught.value.reason.code) == (row.refused.reason, row.refused.code)
        return
    witnesses = truths(row, path, made)
    assert witnesses, "nothing says what this file holds"
    for parts, rates, atol in witnesses:
        decoding = decode_blocks(path, rates[0])
        found = np.concatenate([block.samples for block in decoding])
        partial = decoding.partial
        assert (partial and partial.code) == made.partial, partial
        compare(found, parts, rates, atol)


def compare(found: np.ndarray, parts: list[np.ndarray], rates: list[int], atol: float) -> None:
    """Compare what was decoded at the rate of the first part with parts that follow each other."""
    expected = [parts[0], *(at_rate(part, rate, rates[0]) for part, rate in zip(parts[1:], rates[1:], strict=True))]
    frames = sum(map(len, expected))
    # A part of another rate is a fraction of a sample longer or shorter.
    assert abs(len(found) - frames) <= sum(rate != rates[0] for rate in rates), (len(found), frames)
    assert np.concatenate(expected).std() > 0.02 or frames < 10, "the file is all but silent"
    start = 0
    for part, rate in zip(expected, rates, strict=True):
        heard = found[start : start + len(part)]
        away = np.abs(heard - part[: len(heard)])
        assert away.max() <= (atol if rate == rates[0] else 1e-3), (start, int(away.argmax()), away.max())
        start += len(part)


def at_rate(samples: np.ndarray, old: int, new: int) -> np.ndarray:
    return samples if old == new else soxr.resample(samples, old, new, quality="HQ")


def test_the_table_is_complete():
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))
    assert len(names) >= 120
