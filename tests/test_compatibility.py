"""A cache and a run that an earlier version of distill wrote: they open, resume and play."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from distill.audio import load_cache_manifest
from distill.training import CachedSpectrogramDataset, train

pytestmark = pytest.mark.usefixtures("one_thread")

ARCHIVE = Path(__file__).parent / "data" / "earlier.tar.xz"
FINGERPRINT = "0c96bf802010f54e28ec86f117a163b8534c4193a448f9d7e38b9d6ada9e7575"


@pytest.fixture
def earlier(tmp_path) -> Path:
    """Six sounds, their cache, and a run on them that was interrupted in its second of three epochs.

    The archive also has reference results of that version: a generated sound, and the losses of the resumed run.
    """
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    source = tmp_path / "run" / "run.json"
    record = json.loads(source.read_text())
    source.write_text(json.dumps(record | {name: str(tmp_path / record[name]) for name in ("dataset", "cache_dir")}))
    return tmp_path


@pytest.fixture
def decoder_of_the_cache(earlier, monkeypatch):
    """Pretend that this decoder version is the one of the cache; rows of another one would be computed again."""
    version = load_cache_manifest(earlier / "cache")["decoder_version"]
    monkeypatch.setattr("distill.preprocess.plan.DECODER_VERSION", version)


@pytest.mark.usefixtures("decoder_of_the_cache")
def test_an_earlier_cache_is_used_without_decoding(earlier, run):
    options = ("--cache-dir", earlier / "cache", "--config", earlier / "run" / "config.toml", "--json")
    code, out, _ = run("preprocess", earlier / "sounds", *options)
    result = json.loads(out)
    assert (code, result["decoded"], result["rows"], result["skipped"]) == (0, 0, 64, [])
    assert load_cache_manifest(earlier / "cache")["config_fingerprint"] == FINGERPRINT
    rows = CachedSpectrogramDataset(earlier / "cache").rows(range(64)).double().numpy()
    assert rows.shape == (64, 2, 16, 16)
    # Over the whole cache, normalised rows have a mean of 0 and a standard deviation of 1.
    np.testing.assert_allclose(rows.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(axis=(0, 2, 3)), 1, atol=1e-5)
    assert run("verify", earlier / "sounds", "--cache-dir", earlier / "cache")[0] == 0


@pytest.mark.usefixtures("decoder_of_the_cache")
def test_an_earlier_run_resumes_with_the_losses_of_its_version(earlier):
    result = train(None, earlier / "run", resume=True, analyze=False)
    assert (result.status, result.epochs) == ("finished", 3)
    lines = [json.loads(line) for line in (earlier / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = json.loads((earlier / "resumed-val-loss.json").read_text())
    # Not to the bit, because another processor may add in another order.
    np.testing.assert_allclose([line["val_loss"] for line in lines], expected, rtol=1e-4)


def test_an_earlier_run_generates_the_sound_of_its_version(earlier, run):
    options = ("--seed", 7, "--count", 1, "--axis", "1=1", "--sample-format", "pcm16", "--device", "cpu")
    assert run("generate", earlier / "run", "--out", earlier / "out", *options)[0] == 0
    expected, rate = soundfile.read(earlier / "sample-seed-7-axis-1.wav")
    sound, found_rate = soundfile.read(earlier / "out" / "sample-001.wav")
    assert (found_rate, sound.shape) == (rate, expected.shape)
    assert np.abs(expected).max() > 0.01
    # Phases, and what lies between mel bands, differ: that version inverted features less exactly.
    found, known = (
        np.log(_spectrum(samples) + 1e-4).ravel() for samples in (sound / sound.std(), expected / expected.std())
    )
    assert np.corrcoef(found, known)[0, 1] > 0.9


def _spectrum(samples: np.ndarray) -> np.ndarray:
    """Power in 16 bands of equal width, in frames of 512 samples."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, 512)[::256] * np.hanning(512)
    return np.square(np.abs(np.fft.rfft(frames)))[:, :256].reshape(len(frames), 16, 16).sum(axis=2)
