"""Preprocessing: rows compared with features of chunks cut by hand, and what is decoded after each kind of change."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from contextlib import nullcontext
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from distill.audio import (
    AugmentationConfig,
    ComplexSpectrogram,
    ComplexSpectrogramConfig,
    load_cache_manifest,
    preprocess_complex_spectrograms,
)
from distill.errors import PreprocessingCancelled
from distill.index import Dataset
from distill.preprocess import plan
from distill.preprocess.pipeline import preprocess
from sounds import (
    CHUNK,
    FEATURE,
    RATE,
    age,
    around_decoding,
    chunks_by_hand,
    noise,
    rows_by_content,
    rows_by_path,
    slot_of,
    training,
    write,
    write_dataset,
)

MANIFEST_KEYS = {
    *("version", "created", "files", "complex_spectrogram_config", "augmentation_config", "augmentation_expansion"),
    *("chunk_samples", "sample_rate", "config_fingerprint", "normalization_stats", "total_spectrograms"),
    "cache_size_bytes",
}


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def decodes(monkeypatch):
    """Names of the files that were decoded, in order."""
    paths = []
    around_decoding(monkeypatch, lambda path: nullcontext(paths.append(Path(path).name)))
    return paths


def test_rows_are_the_features_of_the_chunks(dataset):
    config = training()
    result = preprocess(dataset, config)
    assert result.decoded == 5
    found = rows_by_path(result.cache_dir)
    assert len(found) == 5
    options = {"n_fft": 512, "hop_length": 256, "n_mels": 32, "norm": None, "htk": True, "pad_mode": "reflect"}
    for name, rows in found.items():
        chunks = torch.from_numpy(chunks_by_hand(dataset / name))
        expected = ComplexSpectrogram(config.complex_spectrogram)(chunks[:, None]).numpy()
        np.testing.assert_allclose(rows, expected, atol=1e-6)
        power = librosa.feature.melspectrogram(y=chunks.numpy(), sr=RATE, **options)
        np.testing.assert_allclose(rows[:, 0], np.log1p(power), atol=1e-4)
        assert rows.std() > 0.1


def test_statistics_are_those_of_all_rows(dataset):
    cache_dir, stats = preprocess_complex_spectrograms(
        None, dataset, ComplexSpectrogramConfig(**FEATURE), AugmentationConfig(), 1, CHUNK, RATE, device="cpu"
    )
    assert cache_dir == slot_of(dataset)
    rows = np.concatenate(list(rows_by_content(cache_dir).values())).astype(np.float64)
    assert len(rows) == 5 * 2 * 2
    for channel, name in enumerate(("mag", "if")):
        assert stats[f"{name}_mean"] == pytest.approx(rows[:, channel].mean(), rel=1e-6)
        assert stats[f"{name}_std"] == pytest.approx(rows[:, channel].std(), rel=1e-6)
    assert load_cache_manifest(cache_dir)["normalization_stats"] == stats
    assert set(stats) == {"mag_mean", "mag_std", "if_mean", "if_std"}


def test_the_manifest_describes_files_and_packs(dataset):
    write(dataset / "odd.wav", np.zeros(0))
    result = preprocess(dataset, training(augmentation_expansion=2))
    manifest = load_cache_manifest(result.cache_dir)
    assert set(manifest) >= MANIFEST_KEYS
    assert manifest["complex_spectrogram_config"].items() >= FEATURE.items()
    assert manifest["augmentation_config"] == dataclasses.asdict(AugmentationConfig())
    assert (manifest["augmentation_expansion"], manifest["chunk_samples"], manifest["sample_rate"]) == (2, CHUNK, RATE)
    assert {file["path"] for file in manifest["files"]} == {str(p.relative_to(dataset)) for p in dataset.rglob("*.wav")}
    for file in manifest["files"]:
        stat = (dataset / file["path"]).stat()
        assert (file["size"], file["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
        assert file["rows"] == (0 if file["path"] == "odd.wav" else 6)
        assert (file["skipped"] is None) == (file["path"] != "odd.wav")
    assert manifest["total_spectrograms"] == result.rows == 30
    packs = list((result.cache_dir / "packs").iterdir())
    assert manifest["cache_size_bytes"] == sum(pack.stat().st_size for pack in packs) > 30 * 2 * 32 * 32 * 4


def test_content_hashes_are_blake3(dataset):
    (dataset / "magic.flac").write_bytes(b"fLaC" * 9)
    files = load_cache_manifest(preprocess(dataset, training()).cache_dir)["files"]
    # As the reference program b3sum prints it.
    (found,) = (file["content_hash"] for file in files if file["path"] == "magic.flac")
    assert found == "98a92d122c40a88aaffe7026b0d207598352b812542ea1496c4d10fb79f929bb"


def test_only_new_contents_are_decoded(dataset, decodes):
    config = training()

    def cost(decoded) -> set[str]:
        decodes.clear()
        before = rows_by_path(dataset / ".cache") if (dataset / ".cache").exists() else {}
        result = preprocess(dataset, config)
        assert result.decoded == len(decodes) == decoded
        after = rows_by_path(dataset / ".cache")
        assert set(after) == {str(path.relative_to(dataset)) for path in dataset.rglob("*.wav")}
        assert result.rows == sum(map(len, rows_by_content(dataset / ".cache").values()))
        return {name for name in after if name not in before or not np.array_equal(after[name], before[name])}

    assert len(cost(5)) == 5
    assert cost(0) == set()
    age(dataset)
    assert cost(0) == set()
    write(dataset / "added.wav", noise(50, CHUNK))
    assert cost(1) == {"added.wav"}
    write(dataset / "sound-1.wav", noise(51, CHUNK))
    assert cost(1) == {"sound-1.wav"}
    (dataset / "sound-3.wav").touch()
    assert cost(0) == set()
    (dataset / "added.wav").rename(dataset / "renamed.wav")
    assert cost(0) == {"renamed.wav"}
    content = (dataset / "renamed.wav").read_bytes()
    (dataset / "renamed.wav").unlink()
    assert cost(0) == set()
    shutil.copy(dataset / "sound-3.wav", dataset / "duplicate.wav")
    assert cost(0) == {"duplicate.wav"}
    (dataset / "returned.wav").write_bytes(content)
    assert cost(0) == {"returned.wav"}


def test_adding_a_file_updates_the_statistics_and_rewrites_no_pack(dataset):
    before = preprocess(dataset, training())
    packs = before.cache_dir / "packs"
    stamps = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in packs.iterdir()}
    write(dataset / "loud.wav", noise(60, 5 * CHUNK))
    after = preprocess(dataset, training())
    assert after.normalization_stats["mag_mean"] != before.normalization_stats["mag_mean"]
    assert all((path.stat().st_mtime_ns, path.read_bytes()) == stamp for path, stamp in stamps.items())
    assert after.counts["added"] == 1
    assert after.counts["unchanged"] == 5


def test_rows_do_not_depend_on_threads_order_or_names(dataset, tmp_path):
    other = tmp_path / "other"
    for number, path in enumerate(sorted(dataset.rglob("*.wav"), reverse=True)):
        (other / f"{number}").mkdir(parents=True)
        shutil.copy(path, other / f"{number}" / "x.wav")
    config = training(augmentation_expansion=3)
    one = rows_by_content(preprocess(dataset, config, workers=1).cache_dir)
    three = rows_by_content(preprocess(other, config, workers=3).cache_dir)
    assert one.keys() == three.keys()
    for content, rows in one.items():
        assert len(rows) == 8
        np.testing.assert_array_equal(rows, three[content])
        # The original and three variants all differ.
        assert len(np.unique(rows[:4].reshape(4, -1), axis=0)) == 4


def test_originals_are_the_rows_without_augmentation(dataset, tmp_path):
    plain = rows_by_content(preprocess(Dataset(dataset, cache_dir=tmp_path / "a"), training()).cache_dir)
    augmented = rows_by_content(
        preprocess(Dataset(dataset, cache_dir=tmp_path / "b"), training(augmentation_expansion=2)).cache_dir
    )
    for content, rows in plain.items():
        np.testing.assert_array_equal(augmented[content][::3], rows)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"complex_spectrogram": ComplexSpectrogramConfig(**(FEATURE | {"n_mels": 40}))}, "n_mels was 32, is 40"),
        ({"normalize": "chunk"}, "normalize was file, is chunk"),
        ({"augmentation_expansion": 1}, "augmentation_expansion was 0, is 1"),
        ({"chunk_samples": 4_000}, "chunk_samples was 8000, is 4000"),
    ],
)
def test_another_configuration_computes_everything_again_and_logs_why(dataset, caplog, changes, field):
    preprocess(dataset, training())
    with caplog.at_level(logging.INFO, "distill"):
        result = preprocess(dataset, training(**changes))
    assert result.decoded == 5
    assert any(field in entry for entry in result.changed_fields)
    assert field in caplog.text
    manifest = load_cache_manifest(result.cache_dir)
    n_packs = len(list((result.cache_dir / "packs").iterdir()))
    assert n_packs == len(manifest["packs"]) == 1
    assert preprocess(dataset, training(**changes)).decoded == 0


@pytest.mark.parametrize("name", ["DECODER_VERSION", "FEATURE_VERSION"])
def test_another_decoder_or_feature_version_computes_everything_again(dataset, monkeypatch, name):
    preprocess(dataset, training())
    monkeypatch.setattr(plan, name, "another")
    assert preprocess(dataset, training()).decoded == 5


def test_options_that_do_not_affect_features_compute_nothing(dataset):
    preprocess(dataset, training())
    other = training(augmentation=AugmentationConfig(gain_db=1.0), seed=9, epochs=2, latent_dim=4)
    assert preprocess(dataset, other).decoded == 0


def test_an_automatic_expansion_is_kept_when_the_dataset_grows(dataset, tmp_path, monkeypatch):
    chosen = preprocess(Dataset(dataset, cache_dir=tmp_path / "a"), training(augmentation_expansion=None))
    assert (chosen.augmentation_expansion, chosen.rows) == (4, 50)
    # A requested number is not kept: the next automatic choice depends only on the dataset.
    preprocess(Dataset(dataset, cache_dir=tmp_path / "b"), training(augmentation_expansion=1))
    assert preprocess(Dataset(dataset, cache_dir=tmp_path / "b"), training(augmentation_expansion=None)).rows == 50
    # A dataset that is no longer small keeps the number that was chosen for it.
    monkeypatch.setattr(plan, "_SMALL_DATASET_FILES", 0)
    kept = preprocess(Dataset(dataset, cache_dir=tmp_path / "a"), training(augmentation_expansion=None))
    assert (kept.augmentation_expansion, kept.decoded) == (4, 0)
    assert preprocess(Dataset(dataset, cache_dir=tmp_path / "c"), training(augmentation_expansion=None)).rows == 10


def test_above_100_mb_it_asks_and_stops_if_refused(tmp_path):
    fine = training(complex_spectrogram=ComplexSpectrogramConfig(**(FEATURE | {"hop_length": 1})))
    row_bytes = 2 * 32 * (CHUNK + 1) * 4
    few, many = 100_000_000 // row_bytes, 100_000_000 // row_bytes + 1
    questions = []
    write(tmp_path / "dataset" / "a.wav", noise(1, many * CHUNK))
    with pytest.raises(PreprocessingCancelled):
        preprocess(tmp_path / "dataset", fine, confirm=questions.append)
    assert len(questions) == 1
    assert f"{many} rows" in questions[0]
    assert load_cache_manifest(tmp_path / "dataset" / ".cache") is None
    assert list((tmp_path / "dataset" / ".cache" / "slots").iterdir()) == []

    write(tmp_path / "dataset" / "a.wav", noise(1, few * CHUNK))

    class StopError(Exception):
        pass

    def stop(stage, current, total):
        if stage == "features":
            raise StopError

    with pytest.raises(StopError):
        preprocess(tmp_path / "dataset", fine, confirm=questions.append, progress=stop)
    assert len(questions) == 1


def test_it_continues_if_confirmed(dataset, monkeypatch):
    monkeypatch.setattr(plan, "CONFIRM_ABOVE_BYTES", 1_000)
    assert preprocess(dataset, training(), confirm=lambda message: True).decoded == 5
    preprocess(dataset, training(), confirm=lambda message: pytest.fail("asked although nothing has to be written"))


def test_much_data_is_said_with_what_makes_it_smaller(tmp_path, monkeypatch, caplog):
    """Short sounds, padded to a chunk, with variants: each remedy has the size that it leads to, and it is true."""
    monkeypatch.setattr(plan, "CONFIRM_ABOVE_BYTES", 1_000_000)
    caplog.set_level("INFO")
    for number in range(100):
        write(tmp_path / "dataset" / f"{number}.wav", noise(number, CHUNK // 5))
    config = training(augmentation_expansion=4)
    with pytest.raises(PreprocessingCancelled) as caught:
        preprocess(tmp_path / "dataset", config, confirm=lambda question: False)
    assert f"500 rows, 4 MB in {tmp_path / 'dataset' / '.cache'}" in caplog.text
    said = caught.value.tip
    assert "--augmentation-expansion 0 (1 MB)" in said
    assert "--cache-dtype float16 (2 MB)" in said
    assert "80% of the rows is padding" in said
    assert "--cache-dir DIR" in said
    # It is also said if nobody can be asked.
    preprocess(tmp_path / "dataset", config)
    assert caplog.text.count(said) == 2
    for smaller, size in (({"augmentation_expansion": 0}, 0.8e6), ({"cache_dtype": "float16"}, 2.05e6)):
        preprocess(
            Dataset(tmp_path / "dataset", cache_dir=tmp_path / str(size)), dataclasses.replace(config, **smaller)
        )
        packs = sum(path.stat().st_size for path in (tmp_path / str(size)).rglob("*.safetensors"))
        assert packs == pytest.approx(size, rel=0.05)


def test_a_long_recording_is_not_called_padding(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "CONFIRM_ABOVE_BYTES", 1_000)
    write(tmp_path / "dataset" / "a.wav", noise(1, 10 * CHUNK + 5))
    with pytest.raises(PreprocessingCancelled) as caught:
        preprocess(tmp_path / "dataset", training(cache_dtype="float16"), confirm=lambda question: False)
    assert caught.value.tip == "--cache-dir DIR keeps it in another folder"


def test_empty_bands_are_reported_once_in_a_run(dataset, caplog):
    config = training(complex_spectrogram=ComplexSpectrogramConfig(**(FEATURE | {"n_mels": 200})))
    preprocess(dataset, config)
    assert caplog.text.count("of 200 mel bands") == 1
    # Also if nothing is decoded: the rows that are trained on have them.
    preprocess(dataset, config)
    assert caplog.text.count("of 200 mel bands") == 2
    caplog.clear()
    preprocess(dataset, training())
    assert "mel bands" not in caplog.text


def test_no_augmentation_gives_no_variants(dataset, tmp_path, caplog):
    """None means no augmentation, as it did in version 1; with ranges, there are as many variants as asked for."""
    feature = ComplexSpectrogramConfig(**FEATURE)
    options = {"augmentation_expansion": 3, "chunk_samples": CHUNK, "sample_rate": RATE}
    none, stats = preprocess_complex_spectrograms(None, dataset, feature, None, **options, cache_dir=tmp_path / "a")
    assert load_cache_manifest(none)["total_spectrograms"] == 10
    assert "augmentation_config=None" in caplog.text
    plain = {**options, "augmentation_expansion": 0}
    assert stats == preprocess_complex_spectrograms(None, dataset, feature, **plain, cache_dir=tmp_path / "b")[1]
    some, _ = preprocess_complex_spectrograms(
        None, dataset, feature, AugmentationConfig(), **options, cache_dir=tmp_path / "c"
    )
    assert load_cache_manifest(some)["total_spectrograms"] == 40


def test_progress_counts_up_to_the_total(dataset):
    for path in [*dataset.rglob("*.wav")]:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))  # only files of the same size are hashed
    calls = []
    preprocess(dataset, training(), progress=lambda *call: calls.append(call))
    assert {stage for stage, *_ in calls} == {"scan", "hash", "lengths", "features"}
    lengths = [call for call in calls if call[0] == "lengths"]
    assert lengths == sorted(lengths)
    assert lengths[-1] == ("lengths", 5, 5)
    features = [call for call in calls if call[0] == "features"]
    assert {total for *_, total in features} == {5}
    assert features == sorted(features)
    assert {current for _, current, _ in features} >= {1, 2, 3, 4, 5}
    hashed = [current for stage, current, _ in calls if stage == "hash"]
    assert hashed == sorted(hashed)
    assert hashed[-1] == sum(path.stat().st_size for path in dataset.rglob("*.wav"))


def test_only_requested_files_are_used(dataset, decodes):
    files = ["sound-1.wav", dataset / "sound-3.wav", str(dataset / "deep" / "er" / "sound-0.wav")]
    result = preprocess(Dataset(dataset, files=files), training())
    assert sorted(decodes) == ["sound-0.wav", "sound-1.wav", "sound-3.wav"]
    assert set(rows_by_path(result.cache_dir)) == {"sound-1.wav", "sound-3.wav", "deep/er/sound-0.wav"}
    assert preprocess(dataset, training()).decoded == 2


def test_silent_chunks_are_counted(dataset):
    write(dataset / "gap.wav", np.concatenate([noise(1), np.zeros(3 * CHUNK), noise(2)]))
    result = preprocess(dataset, training())
    assert len(rows_by_path(result.cache_dir)["gap.wav"]) == 2
    assert load_cache_manifest(result.cache_dir)["silent_chunks"] == 3
