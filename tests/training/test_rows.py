"""Rows of a dataset by index: where they come from, their labels, and what is done with them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader, StackDataset

from distill.audio import ComplexSpectrogram, denormalize, load_cache_manifest, normalize
from distill.preprocess.pipeline import preprocess
from distill.training import CachedSpectrogramDataset
from sounds import CHUNK, RATE, noise, training, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files in two folders and in none, one with a copy, one with silence at its start, in it and at its end."""
    root = tmp_path_factory.mktemp("rows")
    for number, name in enumerate(("bells/low.wav", "bells/deep/high.wav", "drums/one.wav", "loose.wav")):
        write(root / name, noise(number, 3 * CHUNK - 100))
    (root / "drums" / "copy.wav").write_bytes((root / "drums" / "one.wav").read_bytes())
    silence = np.zeros(CHUNK)
    parts = [silence, silence, noise(8), silence, noise(9), noise(10), silence, silence, noise(11), silence]
    write(root / "drums" / "pauses.wav", np.concatenate(parts))
    return root


@pytest.fixture(scope="module")
def dataset(folder):
    return CachedSpectrogramDataset(preprocess(folder, training(augmentation_expansion=1)).cache_dir)


def test_a_row_is_the_part_of_the_files_that_its_provenance_names(folder, dataset):
    spectrogram = ComplexSpectrogram(training().complex_spectrogram)
    starts = {}
    for index in range(0, len(dataset), 2):
        place = dataset.provenance(index)
        assert dataset.provenance(index + 1) == place._replace(variant=1)
        assert (place.variant, place.duration_s) == (0, CHUNK / RATE)
        starts.setdefault(place.paths, []).append(place.start_s)
        for path in place.paths:
            samples, _ = soundfile.read(folder / path, dtype="float32")
            first = round(place.start_s * RATE)
            chunk = samples[first : first + CHUNK] / np.abs(samples).max()
            chunk = torch.from_numpy(np.pad(chunk, (0, CHUNK - len(chunk))))
            expected = dataset.normalize(spectrogram(chunk[None, None]))[0]
            torch.testing.assert_close(dataset[index], expected, atol=2e-3, rtol=0)
    assert starts == {
        ("bells/low.wav",): [0.0, 0.5, 1.0],
        ("bells/deep/high.wav",): [0.0, 0.5, 1.0],
        ("drums/copy.wav", "drums/one.wav"): [0.0, 0.5, 1.0],
        ("loose.wav",): [0.0, 0.5, 1.0],
        ("drums/pauses.wav",): [1.0, 2.0, 2.5, 4.0],
    }


def test_splits_and_copies_have_the_provenance_of_their_own_rows(dataset):
    val = CachedSpectrogramDataset(dataset.cache_dir, "val")
    again = copy.deepcopy(val)
    rows = {dataset.provenance(index): dataset[index] for index in range(len(dataset))}
    for index in range(len(val)):
        assert again.provenance(index) == val.provenance(index) == val.provenance(index - len(val))
        assert torch.equal(rows[val.provenance(index)], val[index])
    with pytest.raises(IndexError, match=f"row {len(val)} of {len(val)}"):
        val.provenance(len(val))


def test_labels_are_the_top_folders_and_go_with_their_rows(dataset):
    assert dataset.class_names == [".", "bells", "drums"]
    expected = [dataset.provenance(index).paths[0].partition("/") for index in range(len(dataset))]
    named = [dataset.class_names[label] for label in dataset.labels]
    assert named == [folder if rest else "." for folder, _, rest in expected]
    val = CachedSpectrogramDataset(dataset.cache_dir, "val")
    assert val.class_names == dataset.class_names
    loader = DataLoader(StackDataset(val, val.labels), batch_size=len(val))
    rows, labels = next(iter(loader))
    assert torch.equal(rows, val.rows(range(len(val))))
    assert labels.tolist() == val.labels.tolist()


def test_with_split_does_not_keep_the_labels_of_the_split_before(dataset):
    train = CachedSpectrogramDataset(dataset.cache_dir, "train")
    assert len(train.labels) == len(train)
    val = train.with_split("val", 0.15, "chunk")
    assert len(val.labels) == len(val) < len(train)


def test_slices_are_batches(dataset):
    rows = dataset.rows(range(len(dataset)))
    for part in (slice(2, 5), slice(None), slice(-3, None), slice(None, None, -4), slice(1000, None)):
        numbers = range(len(dataset))[part]
        assert torch.equal(dataset[part], rows[list(numbers)])
    assert dataset[:4].shape == (4, 2, 32, 32)
    assert torch.equal(dataset[np.int64(3)], rows[3])
    assert torch.equal(dataset[torch.tensor(-1)], rows[-1])
    with pytest.raises(TypeError):
        dataset["first"]


def crop(row: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"magnitude": row[0, :, :8], "mean": row.mean()}


def test_a_transform_is_applied_to_rows_by_index_and_in_loaders(dataset):
    cropped = CachedSpectrogramDataset(dataset.cache_dir, transform=crop)
    rows = dataset[:6]
    assert torch.equal(cropped[3]["magnitude"], rows[3, 0, :, :8])
    assert torch.equal(cropped[:6]["magnitude"], rows[:, 0, :, :8])
    assert torch.equal(cropped.rows(range(6)), rows)
    for workers in (0, 1):
        batch = next(iter(DataLoader(cropped, batch_size=6, num_workers=workers)))
        assert torch.equal(batch["magnitude"], rows[:, 0, :, :8])
        torch.testing.assert_close(batch["mean"], rows.mean((1, 2, 3)))


def test_a_repr_says_what_the_dataset_holds(dataset):
    assert repr(dataset) == f"CachedSpectrogramDataset({str(dataset.cache_dir)!r}, 'all'): 32 rows of 2 x 32 x 32"
    assert "'val'" in repr(CachedSpectrogramDataset(dataset.cache_dir, "val"))


def test_denormalize_is_the_inverse_of_normalize(dataset):
    stats = load_cache_manifest(dataset.cache_dir)["normalization_stats"]
    rows = dataset[:4]
    features = dataset.denormalize(rows)
    raw = dataset._reader.read(np.arange(4))
    np.testing.assert_allclose(features, raw, atol=1e-5)
    for shape in ((4, 2, 32, 32), (2, 2, 2, 32, 32), (2, 32, 32)):
        part = features.flatten()[: np.prod(shape)].view(shape)
        torch.testing.assert_close(denormalize(normalize(part, stats), stats), part, atol=1e-5, rtol=0)
    torch.testing.assert_close(normalize(features, stats), rows, atol=1e-5, rtol=0)
    magnitude = normalize(features[:, :1], {name: stats[name] for name in ("mag_mean", "mag_std")})
    torch.testing.assert_close(magnitude, rows[:, :1], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="lack if_mean"):
        normalize(features, {"mag_mean": 0.0, "mag_std": 1.0})
    with pytest.raises(ValueError, match=r"shape \[32, 32\] must be"):
        normalize(features[0, 0], stats)


def test_the_inverse_of_normalised_rows_warns(dataset):
    spectrogram = ComplexSpectrogram(training().complex_spectrogram)
    with pytest.warns(UserWarning, match=r"% of the log powers are negative.*denormalize\(rows\)"):
        spectrogram.inverse(dataset[:4])
    assert spectrogram.inverse(dataset.denormalize(dataset[:4])).std() > 0.01


def test_a_content_in_two_folders_has_the_first_label_with_a_warning(tmp_path, caplog):
    for name in ("b/one.wav", "a/copy.wav", "c/other.wav"):
        write(tmp_path / name, noise(name.startswith("c"), CHUNK), subtype="PCM_24")
    dataset = CachedSpectrogramDataset(preprocess(tmp_path, training()).cache_dir)
    assert dataset.class_names == ["a", "b", "c"]
    assert sorted(dataset.labels.tolist()) == [0, 2]
    assert "1 sound found in several folders, and labelled with the first: a/copy.wav, b/one.wav" in caplog.text


@pytest.mark.parametrize(("name", "value"), [("if_std", 0.0), ("mag_std", float("nan")), ("mag_mean", float("inf"))])
def test_statistics_that_are_none_are_refused(dataset, name, value):
    stats = {**dataset.normalization_stats, name: value}
    for use in (
        lambda: normalize(dataset[:1], stats),
        lambda: denormalize(dataset[:1], stats),
        lambda: CachedSpectrogramDataset(dataset.cache_dir, normalization_stats=stats),
    ):
        with pytest.raises(ValueError, match=f"{name}={value} of the statistics must be finite"):
            use()
    with pytest.raises(ValueError, match="lack if_mean"):
        CachedSpectrogramDataset(dataset.cache_dir, normalization_stats={"mag_mean": 0.0, "mag_std": 1.0})
    with pytest.raises(TypeError, match=r"torch\.Tensor, not ndarray"):
        normalize(dataset[:1].numpy(), dataset.normalization_stats)


def test_an_empty_slice_is_empty(dataset):
    assert dataset[3:3].shape == (0, 2, 32, 32)
    assert len(CachedSpectrogramDataset(dataset.cache_dir, transform=crop)[3:3]) == 0
