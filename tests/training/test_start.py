"""Before the first step: few rows are read, whatever their number, with progress, and a run can be cancelled."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from distill.cache import CacheReader
from distill.models import load_model
from distill.models.r2 import BandMeans
from distill.preprocess.pipeline import preprocess
from distill.training import CachedSpectrogramDataset, start, train
from distill.training.data import TrainingData
from distill.types import no_progress
from sounds import CHUNK, noise, training, write

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A dataset of 400 chunks, 331 of which are for training."""
    folder = tmp_path_factory.mktemp("start") / "dataset"
    for number in range(4):
        loudness = np.repeat(np.random.default_rng(number).uniform(0.02, 1, 100), CHUNK)
        write(folder / f"{number}.wav", loudness * noise(number, 100 * CHUNK), subtype="PCM_24")
    preprocess(folder, training())
    return folder


@pytest.fixture
def few(monkeypatch):
    """Draw 40 rows."""
    monkeypatch.setattr(start, "START_ROWS", 40)


@pytest.fixture
def reads(monkeypatch):
    """The indices of all rows that are read from a cache."""
    found = []
    read = CacheReader.read

    def counted(self, rows, *given):
        found.extend(np.asarray(rows).tolist())
        return read(self, rows, *given)

    monkeypatch.setattr(CacheReader, "read", counted)
    return found


def config(**changes):
    return training(**({"latent_dim": 4, "epochs": 1, "batch_size": 8, "preview_epochs": 0} | changes))


def data_of(dataset, settings=None) -> TrainingData:
    return TrainingData.from_cache(preprocess(dataset, config()).cache_dir, settings or config())


@pytest.mark.parametrize("shifted_share", [0.0, 0.5])
def test_only_drawn_rows_are_read(dataset, few, reads, shifted_share):
    settings = config(shifted_share=shifted_share)
    start.starting_point(data_of(dataset, settings), settings, no_progress)
    assert len(reads) == len(set(reads)) == 40
    # From everywhere in the cache, not from its beginning.
    assert np.ptp(reads) > 300


def begin(dataset, run, settings=None, *, until=lambda event: event.kind == "step", resume=False):
    """Train until an event; return the result and all events."""
    cancel, events = threading.Event(), []

    def on_event(event):
        events.append(event)
        if until(event):
            cancel.set()

    settings = None if resume else settings or config()
    result = train(dataset, run, settings, on_event=on_event, cancel_event=cancel, resume=resume, analyze=False)
    assert result.status == "interrupted"
    return result, events


def test_a_run_takes_its_first_step_before_most_rows_are_read(dataset, few, reads, tmp_path, monkeypatch):
    monkeypatch.setattr("distill.models.vae._LATENTS", 16)
    begin(dataset, tmp_path / "run")
    of_training = data_of(dataset).train.dataset._rows
    assert len(of_training) > 300
    # Those that are drawn, and up to three batches of the first epoch, one of which is read ahead.
    assert 40 <= len(np.intersect1d(reads, of_training)) <= 40 + 3 * 8


def test_the_draw_depends_on_the_seed_only(dataset, few):
    def drawn(seed: int) -> torch.Tensor:
        return start.starting_point(data_of(dataset, config(seed=seed)), config(seed=seed), no_progress)[0]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


def test_all_rows_are_used_if_there_are_few(dataset, reads):
    data = data_of(dataset)
    means, pca = start.starting_point(data, config(), no_progress)
    assert sorted(set(reads)) == sorted(reads)
    assert len(reads) == len(data.train.dataset)
    rows = data.train.dataset.rows(range(len(data.train.dataset))).double()
    np.testing.assert_allclose(means[0], rows[:, 0].mean(dim=(0, 2)), atol=1e-5)
    assert pca.rank == 4


def test_band_means_of_drawn_rows_are_close_to_those_of_all(dataset, monkeypatch):
    data = data_of(dataset)
    exact = BandMeans(2, 32)
    dataset_rows = CachedSpectrogramDataset(preprocess(dataset, config()).cache_dir, "train")
    exact.update(dataset_rows.rows(range(len(dataset_rows))))
    monkeypatch.setattr(start, "START_ROWS", 200)
    drawn = start.starting_point(data, config(), no_progress)[0]
    assert float((drawn[0] - exact.result()[0]).abs().max()) < 0.25
    assert not torch.equal(drawn[0], exact.result()[0].float())


def test_progress_covers_the_draw_and_reaches_its_total(dataset, few, tmp_path):
    _, events = begin(dataset, tmp_path / "run")
    drawn = [
        (event.values["current"], event.values["total"]) for event in events if event.values.get("stage") == "draw"
    ]
    assert (0, 40) in drawn
    assert (40, 40) in drawn


@pytest.mark.parametrize("stage", ["draw", "axes", "encode"])
def test_a_run_cancelled_before_its_first_step_starts_again_when_resumed(dataset, few, tmp_path, stage, monkeypatch):
    fit = start.fit_pca

    def slow(*given, **options):
        time.sleep(0.3)
        return fit(*given, **options)

    monkeypatch.setattr(start, "fit_pca", slow)
    run, whole = tmp_path / "run", tmp_path / "whole"
    result, events = begin(dataset, run, until=lambda event: event.values.get("stage") == stage)
    assert (result.epochs, result.best) == (0, {})
    assert not any(event.kind == "step" for event in events)
    begin(None, run, resume=True)
    begin(dataset, whole)
    weights = [load_model(path).state_dict() for path in (run, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_call_that_takes_long_does_not_delay_cancellation(dataset, few, tmp_path, monkeypatch):
    """As LAPACK does, which cannot be interrupted."""
    finish = threading.Event()
    monkeypatch.setattr(start, "fit_pca", lambda *given, **options: finish.wait(60))
    try:
        begin(dataset, tmp_path / "run", until=lambda event: event.values.get("stage") == "axes")
        assert not finish.is_set()
    finally:
        finish.set()


def test_copying_rows_to_a_device_reports_progress_and_can_be_cancelled(dataset, tmp_path):
    settings = config(device_budget_mb=1_000)
    _, events = begin(dataset, tmp_path / "run", settings, until=lambda event: event.values.get("stage") == "load")
    loaded = [event.values for event in events if event.values.get("stage") == "load"]
    assert [(values["current"], values["total"]) for values in loaded] == [(256, 400)]
