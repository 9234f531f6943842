"""Features of batches of chunks: correct, in order, one batch late. Needs only torch, numpy and pytest."""

import numpy as np
import pytest
import torch

from definition import assert_within_gates, make_signal
from distill.config import ComplexSpectrogramConfig
from distill.features.spectrogram import ComplexSpectrogram
from distill.preprocess.batches import feature_rows

CONFIG = ComplexSpectrogramConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=32)


def chunks(count, samples=4_000):
    return np.stack([make_signal(samples, rate=16_000, seed=seed).astype(np.float32) for seed in range(count)])


def assert_rows(device, sizes):
    """Check the features of batches of these sizes that share their memory."""
    batches = np.split(chunks(sum(sizes)), np.cumsum(sizes)[:-1]) if sizes else []
    memory = np.empty((max(sizes, default=0), 4_000), np.float32)

    def overwritten():
        for batch in batches:
            memory[: len(batch)] = batch
            yield memory[: len(batch)]
            memory[:] = np.nan

    rows = list(feature_rows(overwritten(), ComplexSpectrogram(CONFIG), torch.device(device)))
    assert [len(found) for found in rows] == sizes
    for found, batch in zip(rows, batches, strict=True):
        assert_within_gates(found, batch, CONFIG)


@pytest.mark.parametrize("sizes", [[], [1], [3, 2], [2, 1, 4]], ids=str)
def test_rows_are_the_features_of_the_chunks_in_order(sizes):
    assert_rows("cpu", sizes)


def test_the_next_batch_is_decoded_before_the_rows_of_the_last_are_returned():
    events = []

    def batches():
        for number in range(3):
            events.append(f"decoded {number}")
            yield chunks(1)

    for number, _ in enumerate(feature_rows(batches(), ComplexSpectrogram(CONFIG), torch.device("cpu"))):
        events.append(f"rows {number}")
    assert events == ["decoded 0", "decoded 1", "rows 0", "decoded 2", "rows 1", "rows 2"]


def test_an_exception_from_decoding_is_raised():
    def batches():
        yield chunks(1)
        raise ValueError("broken file")

    with pytest.raises(ValueError, match="broken file"):
        list(feature_rows(batches(), ComplexSpectrogram(CONFIG), torch.device("cpu")))


@pytest.mark.gpu
def test_rows_computed_on_a_gpu_are_the_features_of_the_chunks():
    # Many batches, so that pinned memory is reused while copies are running.
    assert_rows("cuda", [32] * 20 + [5])


@pytest.mark.gpu
def test_decoding_does_not_wait_for_the_gpu():
    used, was_busy = [], []

    def batches():
        yield chunks(1)
        was_busy.append(not used[0].query())
        yield chunks(1)

    class Slow(torch.nn.Module):
        def forward(self, waveform):
            torch.cuda._sleep(200_000_000)
            used.append(torch.cuda.current_stream())
            return ComplexSpectrogram(CONFIG)(waveform)

    ComplexSpectrogram(CONFIG)(torch.zeros(1, 1, 4_000, device="cuda"))  # compiles, loads and moves tables
    rows = list(feature_rows(batches(), Slow(), torch.device("cuda")))
    assert len(rows) == 2
    assert was_busy == [True]
    assert used[0] == used[1] != torch.cuda.current_stream()
