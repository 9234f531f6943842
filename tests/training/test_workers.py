"""Datasets in other processes: small pickles, equal rows with every start method, and errors that arrive."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import soundfile
import torch
from torch.utils.data import DataLoader, Dataset

from distill.errors import AudioFileError, CacheError
from distill.preprocess.pipeline import preprocess
from distill.training import AudioTrainingDataset, CachedSpectrogramDataset, create_complex_data_loaders
from sounds import CHUNK, RATE, noise, training, write, write_dataset

SCRIPT = textwrap.dedent(
    """
    import os, sys
    import torch
    from torch.utils.data import DataLoader, StackDataset
    from distill.training import AudioTrainingDataset, CachedSpectrogramDataset

    def main():
        method, cache_dir, *files = sys.argv[1:]
        os.chdir(os.path.dirname(cache_dir))
        cached = CachedSpectrogramDataset(os.path.basename(cache_dir))
        waveforms = AudioTrainingDataset([os.path.relpath(file) for file in files], 8_000, 16_000)
        os.chdir("/")
        # Both at once, because a process takes seconds to import torch.
        both = StackDataset(cached, waveforms)
        workers = DataLoader(both, batch_size=3, num_workers=2, multiprocessing_context=method)
        found, expected = list(workers), list(DataLoader(both, batch_size=3))
        assert len(found) == len(expected) == 4
        for batch, other in zip(found, expected):
            assert all(map(torch.equal, batch, other))
            assert all(part.flatten(1).std(dim=1).min() > 0 for part in batch)
        print("equal")

    if __name__ == "__main__":
        main()
    """
)


@pytest.fixture
def dataset(tmp_path) -> Path:
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def cache_dir(dataset) -> Path:
    return preprocess(dataset, training()).cache_dir


def files_of(dataset: Path) -> list[Path]:
    return sorted(dataset.rglob("*.wav"))


def loads(pickled: bytes) -> Dataset:
    return pickle.loads(pickled)  # noqa: S301 - made by the test itself


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_workers_of_every_start_method_give_the_rows_of_none(method, dataset, cache_dir, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, method, cache_dir, *files_of(dataset)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda dataset: loads(pickle.dumps(dataset))])
@pytest.mark.parametrize("split", ["all", "train", "val"])
def test_a_copy_of_a_cached_dataset_has_the_same_rows(cache_dir, again, split):
    stats = {"mag_mean": 0.5, "mag_std": 2.0, "if_mean": 0.1, "if_std": 0.3}
    dataset = CachedSpectrogramDataset(cache_dir, split, 0.3, normalization_stats=stats)
    other = again(dataset)
    assert len(other) == len(dataset) > 1
    assert torch.equal(other.rows(range(len(other))), dataset.rows(range(len(dataset))))
    assert (other.normalization_stats, other.row_shape) == (dataset.normalization_stats, dataset.row_shape)
    assert (other.content_key, other.is_shared) == (dataset.content_key, dataset.is_shared)
    assert len(other.with_split("all", 0.3, "chunk")) == 10


@pytest.mark.parametrize("again", [copy.deepcopy, copy.copy, lambda dataset: loads(pickle.dumps(dataset))])
def test_a_copy_of_an_audio_dataset_has_the_same_chunks(dataset, again):
    waveforms = AudioTrainingDataset(files_of(dataset), CHUNK, RATE, "chunk")
    other = again(waveforms)
    assert len(other) == len(waveforms) == 10
    assert all(torch.equal(other[i], waveforms[i]) for i in (7, 0, 9, -1, *range(10)))
    assert other.content_key == waveforms.content_key
    for one, two in zip(other.split(0.3), waveforms.split(0.3), strict=True):
        assert one.indices == two.indices


def test_pickles_hold_no_rows_also_of_a_dataset_whose_rows_are_in_memory(dataset):
    sizes = []
    for _ in range(2):
        loader, _ = create_complex_data_loaders(
            preprocess(dataset, training()).cache_dir, training(device_budget_mb=1_000)
        )
        waveforms = AudioTrainingDataset(files_of(dataset), CHUNK, RATE)
        assert len(waveforms[0]) == 1
        sizes.append((len(pickle.dumps(loader.dataset)), len(pickle.dumps(waveforms))))
        (file, *_) = files_of(dataset)
        write(file, noise(8, 60 * CHUNK))
    assert sizes[0][0] == sizes[1][0] < 2_000
    assert max(sizes[0][1], sizes[1][1]) < 3_000


def test_a_copy_whose_cache_has_changed_is_an_error_when_it_is_used(dataset, cache_dir):
    pickled = pickle.dumps(CachedSpectrogramDataset(cache_dir))
    write(dataset / "new.wav", noise(9))
    preprocess(dataset, training())
    # It opens nothing while it is unpickled: an error there would end a worker before it can hand it on.
    other = loads(pickled)
    with pytest.raises(CacheError, match="the cache has changed since it was opened"):
        next(iter(DataLoader(other, batch_sampler=[[0, 1]])))


def test_a_copy_whose_files_have_changed_names_the_file(dataset):
    first, second = files_of(dataset)[:2]
    waveforms = AudioTrainingDataset([first, second], CHUNK, RATE)
    pickled = pickle.dumps(waveforms)
    soundfile.write(first, noise(3, 2 * CHUNK), RATE)
    second.unlink()
    reasons = []
    for index in range(len(waveforms)):
        with pytest.raises(AudioFileError) as caught:
            loads(pickled)[index]
        reasons.append(str(caught.value))
    assert set(reasons) == {
        f"{first}: the file has changed since it was decoded",
        f"{second}: no such file",
    }
