from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from distill.audio import AudioSpectrogram, load_cache_manifest
from distill.cache import CacheReader
from distill.config import ComplexSpectrogramConfig, TrainingConfig
from distill.errors import CacheError, ConfigError
from distill.preprocess.pipeline import preprocess
from distill.training import (
    AudioTrainingDataset,
    CachedSpectrogramDataset,
    create_complex_data_loaders,
    create_data_loaders,
)


def keys(cache_dir, split, **options):
    """Return (content hash, chunk, variant) of each row of a split."""
    dataset = CachedSpectrogramDataset(cache_dir, split, **options)
    reader = CacheReader(cache_dir)
    rows = dataset._rows
    hashes = [reader.content_hashes[i] for i in reader.source[rows]]
    return list(zip(hashes, reader.chunk[rows].tolist(), reader.variant[rows].tolist(), strict=True))


def test_items_are_normalised_rows(cache):
    dataset = CachedSpectrogramDataset(cache)
    items = torch.stack([dataset[i] for i in range(len(dataset))]).double().numpy()
    assert items.shape == (load_cache_manifest(cache)["total_spectrograms"], 2, 32, 32)
    assert np.allclose(items.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    assert np.allclose(items.std(axis=(0, 2, 3)), 1, atol=1e-4)


def test_a_batch_equals_its_items_in_any_order(cache):
    dataset = CachedSpectrogramDataset(cache)
    order = np.random.default_rng(0).permutation(len(dataset))[:50].tolist()
    batch = dataset.rows(order)
    assert batch.dtype == torch.float32
    for index, row in zip(order, batch, strict=True):
        assert torch.equal(dataset[index], row)


def test_a_standard_data_loader_accepts_the_dataset(cache):
    batch = next(iter(DataLoader(CachedSpectrogramDataset(cache), batch_size=7)))
    assert batch.shape == (7, 2, 32, 32)
    assert batch.std() > 0.5


@pytest.mark.parametrize("split_by", ["chunk", "file"])
def test_splits_share_no_chunk_and_validation_has_no_variants(cache, split_by):
    options = {"val_fraction": 0.3, "split_by": split_by}
    train, val, everything = (keys(cache, split, **options) for split in ("train", "val", "all"))
    assert {variant for *_, variant in val} == {0}
    assert {variant for *_, variant in train} == {0, 1}
    part = slice(0, 2) if split_by == "chunk" else slice(0, 1)
    assert not {key[part] for key in train} & {key[part] for key in val}
    assert len(train) + 2 * len(val) == len(everything)
    assert 0.15 < len(val) / (len(everything) / 2) < 0.45


def many_chunks(folder, chunks, seed=0):
    """Add a file of this many chunks of 64 samples."""
    soundfile.write(folder / f"{seed}.wav", np.random.default_rng(seed).uniform(-1, 1, 64 * chunks), 16_000, "PCM_24")


@pytest.fixture
def tiny():
    """A configuration whose chunks have 64 samples."""
    feature = ComplexSpectrogramConfig(sample_rate=16_000, n_fft=64, hop_length=64, n_mels=4)
    return TrainingConfig(feature, chunk_samples=64, augmentation_expansion=1, device="cpu")


@pytest.mark.parametrize("split_by", ["chunk", "file"])
@pytest.mark.parametrize("n", [2, 12, 21, 100])
def test_the_share_that_is_held_out_is_exact(tmp_path, tiny, n, split_by):
    """It is not left to chance: the share is rounded up, and both sides get some."""
    files = n if split_by == "file" else 1
    for seed in range(files):
        many_chunks(tmp_path, n // files, seed)
    cache_dir = preprocess(tmp_path, tiny).cache_dir
    waveforms = AudioTrainingDataset(sorted(tmp_path.glob("*.wav")), 64, 16_000)
    for percent in (1, 7, 15, 50, 99):
        fraction, expected = percent / 100, min(-(-percent * n // 100), n - 1)
        assert len(keys(cache_dir, "val", val_fraction=fraction, split_by=split_by)) == expected
        assert [len(part) for part in waveforms.split(fraction, split_by)] == [n - expected, expected]


def test_adding_a_file_moves_at_most_as_many_others_as_it_has_chunks(tmp_path, tiny):
    many_chunks(tmp_path, 400)
    before = {split: set(keys(preprocess(tmp_path, tiny).cache_dir, split)) for split in ("train", "val")}
    moved = []
    for seed in range(1, 21):
        many_chunks(tmp_path, 3, seed)
        after = {split: set(keys(preprocess(tmp_path, tiny).cache_dir, split)) for split in ("train", "val")}
        moved.append(
            len({key for key in before["val"] if key in after["train"]})
            + len({key[:2] for key in before["train"]} & {key[:2] for key in after["val"]})
        )
        before = after
    assert max(moved) <= 3
    assert sum(moved) < 20


def test_adding_a_file_to_many_chunks_moves_none(tmp_path, tiny):
    few = dataclasses.replace(tiny, augmentation_expansion=0)
    many_chunks(tmp_path, 10_000)
    before = set(keys(preprocess(tmp_path, few).cache_dir, "val"))
    assert 0.14 < len(before) / 10_000 < 0.16
    many_chunks(tmp_path, 500, seed=1)
    cache_dir = preprocess(tmp_path, few).cache_dir
    assert before < set(keys(cache_dir, "val"))
    assert not before & set(keys(cache_dir, "train"))


def test_with_the_limit_of_a_run_adding_files_moves_no_chunk(tmp_path, tiny):
    many_chunks(tmp_path, 12)
    begun = CachedSpectrogramDataset(preprocess(tmp_path, tiny).cache_dir, "val")
    before = set(keys(begun_dir := tmp_path / ".cache", "val"))
    assert len(before) == 2
    many_chunks(tmp_path, 88, seed=1)
    preprocess(tmp_path, tiny)
    after = {split: set(keys(begun_dir, split, val_limit=begun.val_limit)) for split in ("train", "val")}
    assert before < after["val"]
    assert not {key[:2] for key in after["train"]} & {key[:2] for key in after["val"]}
    (tmp_path / "0.wav").unlink()
    preprocess(tmp_path, tiny)
    # Both sides keep a chunk, also for a limit below or above all of them.
    for limit in (0, 2**64 - 1):
        sizes = [len(CachedSpectrogramDataset(begun_dir, split, val_limit=limit)) for split in ("train", "val")]
        assert min(sizes) > 0


@pytest.mark.parametrize("fraction", [0.001, 0.15, 0.999])
def test_one_chunk_is_in_both_splits(small_config, tmp_path, fraction):
    soundfile.write(tmp_path / "one.wav", np.sin(np.arange(4000) / 10), 16_000)
    cache_dir = preprocess(tmp_path, small_config).cache_dir
    train, val = (CachedSpectrogramDataset(cache_dir, split, fraction) for split in ("train", "val"))
    assert (len(train), len(val)) == (2, 1)
    assert train.is_shared
    assert torch.equal(train[0], val[0])
    waveforms = AudioTrainingDataset([tmp_path / "one.wav"], 16_000, 16_000)
    assert [len(part) for part in waveforms.split(fraction)] == [1, 1]


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_two_chunks_are_split_one_to_each_side(small_config, tmp_path, fraction):
    soundfile.write(tmp_path / "two.wav", np.sin(np.arange(16_000) / 10), 16_000)
    cache_dir = preprocess(tmp_path, small_config).cache_dir
    sizes = [len(CachedSpectrogramDataset(cache_dir, split, fraction)) for split in ("train", "val")]
    assert sizes == [2, 1]


def test_an_epoch_has_every_training_row_once_and_its_own_order(cache, small_config):
    loader, val_loader = create_complex_data_loaders(cache, small_config)

    def epoch(number):
        loader.batch_sampler.epoch = number
        return torch.cat(list(loader))

    first, second, again = epoch(0), torch.cat(list(loader)), epoch(0)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    totals = [batch.double().sum(dim=(1, 2, 3)).sort().values for batch in (first, second)]
    assert torch.equal(*totals)
    assert sum(map(len, val_loader)) == len(CachedSpectrogramDataset(cache, "val", 0.25))


def test_a_loader_continues_an_interrupted_epoch_at_its_first_step(cache, small_config):
    loader, _ = create_complex_data_loaders(cache, small_config)
    whole = list(loader)
    loader.batch_sampler.epoch, loader.batch_sampler.first_step = 0, 3
    rest = list(loader)
    assert len(rest) == len(whole) - 3
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[3:], strict=True))


def test_the_waveform_dataset_has_the_chunks_of_the_cache(sounds, cache, small_config):
    files = sorted(path for path in sounds.rglob("*") if path.is_file())
    dataset = AudioTrainingDataset(files, 8_000, 16_000)
    originals = [i for i, (*_, variant) in enumerate(keys(cache, "all")) if variant == 0]
    assert len(dataset) == len(originals)
    cached = CachedSpectrogramDataset(cache)
    stats = cached.normalization_stats
    features = AudioSpectrogram(small_config.spectrogram)(torch.stack([dataset[i] for i in range(20)]))[:, 0]
    expected = cached.rows(originals[:20])[:, 0] * stats["mag_std"] + stats["mag_mean"]
    torch.testing.assert_close(features, expected, atol=1e-4, rtol=0)


def test_waveform_loaders_have_the_split_of_the_cache(sounds, cache, small_config):
    files = sorted(path for path in sounds.rglob("*") if path.is_file())
    train, val = create_data_loaders(files, small_config)
    assert next(iter(train)).shape == (16, 1, 8_000)
    assert len(val.dataset) == len(CachedSpectrogramDataset(cache, "val", 0.25))


def test_files_that_cannot_be_used_are_listed(sounds, tmp_path):
    (tmp_path / "text.wav").write_text("no sound")
    good = next((sounds / "metal").iterdir())
    dataset = AudioTrainingDataset([tmp_path / "text.wav", tmp_path / "gone.wav", good], 8_000, 16_000)
    assert len(dataset) > 0
    assert [path for path, _ in dataset.skipped] == [str(tmp_path / "text.wav"), str(tmp_path / "gone.wav")]


def test_no_cache_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(CacheError, match="no valid cache") as caught:
        CachedSpectrogramDataset(tmp_path)
    assert "distill preprocess" in caught.value.tip


def test_all_arguments_out_of_range_are_named_in_one_error(cache):
    with pytest.raises(ConfigError) as caught:
        CachedSpectrogramDataset(cache, "test", 1.5, "bar")
    assert len(caught.value.faults) == 3


def test_a_row_out_of_range_is_an_index_error(cache):
    dataset = CachedSpectrogramDataset(cache)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_the_val_fraction_argument_overrides_the_configuration(cache, small_config):
    config = dataclasses.replace(small_config, val_fraction=0.1)
    few, many = (create_complex_data_loaders(cache, config, fraction)[1].dataset for fraction in (None, 0.5))
    assert len(few) < len(many)
