"""What a node of a Ray cluster does with a part. Ray itself is not needed."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from distill.errors import ClusterError
from distill.preprocess import ray_task
from distill.preprocess.parts import Part
from distill.preprocess.pipeline import preprocess
from distill.preprocess.ray_engine import pack_job, pack_part
from sounds import training, write_dataset

FILES = 50


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A dataset; what a task asks Ray for is answered without it."""
    context = SimpleNamespace(get_node_id=lambda: "1")
    util = SimpleNamespace(get_node_ip_address=lambda: "10.0.0.7")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(util=util, get_runtime_context=lambda: context))
    write_dataset(tmp_path / "dataset", FILES, chunks=1)
    return tmp_path / "dataset"


def engine_that(change):
    """Return an engine that changes the dataset when the work is planned, and then computes each file as a part."""

    def engine(job, parts) -> Iterator:
        parts = [Part((source,), part.seconds) for part in parts for source in part.sources]
        packed = pack_job(job, parts, str(job.cache_dir))
        assert 10 <= len(packed.sample) <= 20
        change()
        for part in parts:
            done = ray_task.extract(packed, pack_part(part))
            extracted = pickle.loads(done.extracted)  # noqa: S301 - made by the test itself
            if isinstance(extracted, Exception):
                raise extracted
            yield extracted

    return engine


def test_a_part_whose_only_file_is_gone_does_not_end_the_others(dataset):
    gone = [dataset / "sound-3.wav", dataset / "deep/er/sound-0.wav"]
    result = preprocess(dataset, training(), engine=engine_that(lambda: [path.unlink() for path in gone]))
    assert result.decoded == FILES - 2
    assert result.rows == FILES - 2
    assert [path for path, *_ in result.skipped] == ["deep/er/sound-0.wav", "sound-3.wav"]


def test_another_folder_in_the_place_of_the_dataset_is_an_error(dataset):
    def exchange() -> None:
        for path in [*dataset.rglob("*.wav")]:
            path.rename(path.with_suffix(".old"))

    with pytest.raises(
        ClusterError, match=r"node 10\.0\.0\.7: another folder than the dataset is at .*sound-"
    ) as caught:
        preprocess(dataset, training(), engine=engine_that(exchange))
    assert "--num-cpus 0" in caught.value.tip
