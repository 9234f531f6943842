"""One row a kind of file: what distill hears in it is what FFmpeg hears, or what was written; or the reason is given."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soxr

from distill.audio.decode import decode_blocks
from distill.errors import AudioFileError
from kinds import ROWS
from kinds.table import Made, Row, truths

Built = tuple[Path, Made, list]


def build(row: Row, folder: Path) -> Built:
    """Make the file of a row, and ask the witnesses what it holds."""
    path = folder / row.name
    made = row.make(path) or Made()
    is_heard = row.refused is None or is_read_anyway(row)
    return path, made, truths(row, path, made) if is_heard else []


def is_read_anyway(row: Row) -> bool:
    module = row.refused and row.refused.is_read_with
    return bool(module and importlib.util.find_spec(module))


@pytest.fixture(scope="module")
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Built]]]:
    """The files of all rows that are selected, which are made in threads meanwhile: most wait for a program."""
    folder = tmp_path_factory.mktemp("kinds")
    selected = {item.callspec.params["row"].name for item in request.session.items if item.fspath == request.fspath and hasattr(item, "callspec")}
    with ThreadPoolExecutor(2) as pool:
        rows = [row for row in ROWS if row.name in selected]
        yield {row.name: pool.submit(build, row, folder) for row in rows}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_file_is_heard_whole_or_the_reason_is_given(row: Row, built):
    path, made, witnesses = built[row.name].result()
    if row.refused and not is_read_anyway(row):
        with pytest.raises(AudioFileError) as caught:
            list(decode_blocks(path, 44_100))
        assert (caught.value.reason, caught.value.reason.code) == (row.refused.reason, row.refused.code)
        return
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
