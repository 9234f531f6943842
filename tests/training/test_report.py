"""Previews, TensorBoard data, analysis and log of a run, read back with soundfile, librosa and TensorBoard."""

from __future__ import annotations

import io
import json
import re
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from distill.config import config_from_dict
from distill.errors import ConfigError, NothingUsableError, StorageError
from distill.latent.analysis import analyze
from distill.training import TrainEvent, TrainingConfig, TrainResult, train
from instruments import PITCHES, config_of
from sounds import CHUNK, RATE, noise, sine, write

pytestmark = pytest.mark.usefixtures("one_thread")

LATENT = {"analysis.json", "analysis.safetensors", "scree.png", "map.png", "sweep.png"}
train_alone = partial(train, analyze=False)


@pytest.fixture
def tones(tmp_path) -> Path:
    """A folder with four files of each pitch, one chunk long, which start at different phases."""
    for pitch in PITCHES:
        for phase in range(4):
            start = 37 * phase
            tone = sine(pitch, 1.0, level=0.5)[start : start + CHUNK]
            write(tmp_path / "tones" / f"{pitch:.0f}-{phase}.wav", tone, subtype="PCM_24")
    return tmp_path / "tones"


def small(channels: int = 2, **changes) -> TrainingConfig:
    values = {"latent_dim": 16, "epochs": 2, "batch_size": 8, "val_fraction": 0.25, "preview_epochs": 0}
    return config_of(channels, **(values | changes))


def train_and_stop(sounds: Path, run: Path, stops_at: Callable[[TrainEvent], bool]) -> TrainResult:
    cancel = threading.Event()
    return train(sounds, run, small(), cancel_event=cancel, on_event=lambda event: stops_at(event) and cancel.set())


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def previews_in(folder: Path) -> dict[str, np.ndarray]:
    found = {path.stem: soundfile.read(path) for path in sorted(folder.glob("*.wav"))}
    assert {rate for _, rate in found.values()} == {RATE}
    return {name: sound for name, (sound, _) in found.items()}


@pytest.mark.parametrize("channels", [2, 1])
def test_previews_are_written_at_the_configured_epochs_and_change_with_the_model(tones, tmp_path, channels):
    best = []
    train_alone(
        tones,
        tmp_path / "run",
        small(channels, epochs=5, preview_epochs=2, latent_dim=2, shifted_share=0.0, learning_rate=5e-4),
        on_event=lambda event: event.kind == "epoch" and best.append(event.values["is_best"]),
    )
    folders = sorted((tmp_path / "run" / "previews").iterdir())
    assert [folder.name for folder in folders] == ["epoch-002", "epoch-004", "epoch-005"]
    early, late = previews_in(folders[0]), previews_in(folders[1])
    assert any(best[2:4])
    for name in [f"{kind}-{number}" for kind in ("reconstruction", "sample") for number in (1, 2, 3, 4)]:
        assert early[name].shape == late[name].shape == (CHUNK,)
        assert 1e-3 < np.abs(late[name]).max() <= 1
        assert late[name].std() > 1e-4
        assert np.abs(late[name] - early[name]).max() > 1e-3
    assert all(imread(folder / "previews.png").std() > 0.05 for folder in folders)


@pytest.mark.parametrize(("channels", "furthest"), [(2, 0.5), (1, 0.9)])
def test_reconstructed_previews_have_the_spectrum_of_a_validation_file(tones, tmp_path, channels, furthest):
    train_alone(tones, tmp_path / "run", small(channels, preview_epochs=2))

    def spectrum(sound):
        magnitude = np.abs(librosa.stft(sound, n_fft=1024))
        return magnitude / np.linalg.norm(magnitude)

    sources = [spectrum(soundfile.read(path)[0]) for path in sorted(tones.glob("*.wav"))]
    found = previews_in(tmp_path / "run" / "previews" / "epoch-002")
    for number in (1, 2, 3, 4):
        output = spectrum(found[f"reconstruction-{number}"])
        distances = sorted(float(np.linalg.norm(output - source)) for source in sources)
        # Four files have the same pitch; the spectra of all others are nearly orthogonal to it.
        assert distances[0] < furthest
        assert distances[4] > 1.3


def test_previews_are_of_loud_chunks(tmp_path):
    for number, pitch in enumerate(np.geomspace(200, 2000, 48)):
        tail = noise(number, CHUNK, level=1e-3)
        write(tmp_path / "tones" / f"{number}.wav", np.r_[sine(pitch, CHUNK / RATE), tail], subtype="PCM_24")
    train_alone(tmp_path / "tones", tmp_path / "run", small(preview_epochs=2))
    found = previews_in(tmp_path / "run" / "previews" / "epoch-002")
    assert all(np.abs(found[f"reconstruction-{number}"]).max() > 0.05 for number in (1, 2, 3, 4))


def test_no_previews_without_preview_epochs(tones, tmp_path):
    train_alone(tones, tmp_path / "run", small())
    assert not (tmp_path / "run" / "previews").exists()
    assert not (tmp_path / "run" / "tensorboard").exists()
    more = small(epochs=3, preview_epochs=1)
    train_alone(None, tmp_path / "run", more, resume=True)
    assert [folder.name for folder in (tmp_path / "run" / "previews").iterdir()] == ["epoch-003"]
    with pytest.raises(ConfigError, match="preview_epochs=-1 must be at least 0"):
        config_from_dict({"preview_epochs": -1})


@pytest.mark.parametrize("at", ["previews", "previews/epoch-002/sample-1.wav/there", "tensorboard"])
def test_a_preview_or_board_that_cannot_be_written_is_an_error_with_a_remedy(tones, tmp_path, at):
    blocked = tmp_path / "run" / at
    blocked.parent.mkdir(parents=True)
    blocked.write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        train_alone(tones, tmp_path / "run", small(preview_epochs=2), tensorboard=True)
    assert f"--resume {tmp_path / 'run'}" in caught.value.tip
    blocked.unlink()
    if blocked.name == "there":
        blocked.parent.rmdir()
    result = train_alone(None, tmp_path / "run", resume=True, tensorboard=True)
    assert (result.status, result.epochs) == ("finished", 2)
    assert len(previews_in(tmp_path / "run" / "previews" / "epoch-002")) == 12


def events_of(run: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0, "audio": 0, "images": 0})
    return events.Reload()


def test_tensorboard_data_equal_the_files_of_the_run_folder(tones, tmp_path):
    run = tmp_path / "run"
    train_alone(tones, run, small(epochs=3, preview_epochs=2), tensorboard=True)
    events, lines = events_of(run), metrics(run)
    tags = events.Tags()
    names = {name for line in lines for name, value in line.items() if value is not None} - {"epoch"}
    assert set(tags["scalars"]) == {f"metrics/{name}" for name in names}
    for name in names:
        expected = [(line["epoch"], line[name]) for line in lines if name in line]
        shown = events.Scalars(f"metrics/{name}")
        assert [event.step for event in shown] == [epoch for epoch, _ in expected]
        np.testing.assert_allclose([event.value for event in shown], [value for _, value in expected], rtol=1e-6)
    folders = [run / "previews" / f"epoch-{epoch:03d}" for epoch in (2, 3)]
    for name in previews_in(folders[0]):
        for event, folder in zip(events.Audio(f"previews/{name}"), folders, strict=True):
            assert event.step == int(folder.name[-3:])
            samples, rate = soundfile.read(io.BytesIO(event.encoded_audio_string))
            assert rate == RATE
            np.testing.assert_allclose(samples, previews_in(folder)[name], atol=2**-14)
    for event, folder in zip(events.Images("previews"), folders, strict=True):
        picture = imread(io.BytesIO(event.encoded_image_string))
        np.testing.assert_allclose(picture[..., :3], imread(folder / "previews.png")[..., :3], atol=1e-6)


def test_tensorboard_data_of_a_resumed_run_have_each_epoch_once(tones, tmp_path):
    run, cancel = tmp_path / "run", threading.Event()

    def stop_in_the_third_epoch(event):
        if event.kind == "step" and event.values["epoch"] == 3:
            cancel.set()

    config = small(epochs=4, preview_epochs=1, keep_checkpoints=3)
    options = {"tensorboard": True, "on_event": stop_in_the_third_epoch, "cancel_event": cancel}
    assert train_alone(tones, run, config, **options).status == "interrupted"
    # As after a kill between adding the second epoch to TensorBoard and saving it: the second epoch is repeated.
    _, *later = sorted((run / "checkpoints").glob("step-*.pt"))
    for path in later:
        path.unlink()
    assert len(later) == 2
    assert train_alone(None, run, resume=True, tensorboard=True).status == "finished"
    events = events_of(run)
    for tag in ("metrics/val_loss", "metrics/train_loss"):
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3, 4]
    assert [event.step for event in events.Audio("previews/sample-1")] == [1, 2, 3, 4]
    shown = [event.value for event in events.Scalars("metrics/val_loss")]
    np.testing.assert_allclose(shown, [line["val_loss"] for line in metrics(run)], rtol=1e-6)


def test_a_missing_tensorboard_is_an_error_before_anything_is_written(tones, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match="tensorboard is not installed") as caught:
        train(tones, tmp_path / "run", small(), tensorboard=True)
    assert "pip install tensorboard" in caught.value.tip
    assert not (tmp_path / "run").exists()
    assert not (tones / ".cache").exists()


@pytest.mark.parametrize("channels", [2, 1])
def test_the_latent_space_is_analysed_after_training(tones, tmp_path, channels):
    run, cache = tmp_path / "run", tmp_path / "cache"
    stages = []
    result = train(
        tones,
        run,
        small(channels),
        cache_dir=cache,
        on_event=lambda event: event.kind == "analyze" and stages.append(event.values["stage"]),
    )
    assert result.latent_dir == run / "latent"
    assert {path.name for path in result.latent_dir.iterdir()} == LATENT
    assert {"encode" if channels == 2 else "decode", "effect", "neighbours"} <= set(stages)
    assert not (tones / ".cache").exists()
    before = {path.name: path.read_bytes() for path in result.latent_dir.iterdir()}
    report = json.loads(before["analysis.json"])
    assert (report["n"], len(report["files"])) == (32, 32)
    assert report["active_units"] > 1
    analyze(run)
    # The order of the metadata in a safetensors file is arbitrary.
    assert all(before[name] == (run / "latent" / name).read_bytes() for name in LATENT - {"analysis.safetensors"})


def test_a_run_is_not_analysed_if_not_requested_or_interrupted(tones, tmp_path):
    assert train_alone(tones, tmp_path / "run", small()).latent_dir is None
    result = train_and_stop(tones, tmp_path / "interrupted", lambda event: event.kind == "step")
    assert (result.status, result.latent_dir) == ("interrupted", None)
    assert not list(tmp_path.glob("*/latent"))


def test_cancelling_the_analysis_leaves_a_finished_run(tones, tmp_path, caplog):
    result = train_and_stop(
        tones, tmp_path / "run", lambda event: event.kind == "analyze" and event.values["stage"] == "effect"
    )
    assert (result.status, result.epochs, result.latent_dir) == ("finished", 2, None)
    assert "not analysed" not in caplog.text
    assert not (tmp_path / "run" / "latent").exists()


@pytest.mark.parametrize("when", ["epoch", "analyze"])
def test_ctrl_c_after_training_skips_the_analysis_and_prints_its_command(tones, tmp_path, run, monkeypatch, when):
    from distill import train as command
    from distill.cli.progress import ProgressView
    from distill.config import config_to_toml

    shown = []

    def press(view, event):
        shown.append(event.kind)
        if shown.count(when) == 1 and event.kind == when:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressView, "event", press)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(config_to_toml(small(epochs=1)))
    code, out, _ = run("tones", "--out", "my run", "--config", "config.toml", command=command.main)
    assert code == 130
    assert "finished and saved (all epochs done): 1 epoch," in out
    assert out.endswith("\n  distill analyze 'my run'\n")
    assert ("analysing" in out) == (when == "analyze")
    assert [line for line in out.splitlines() if "warning" in line and "R² rests on" not in line] == []
    assert not (tmp_path / "my run" / "latent").exists()


def test_the_log_of_a_dataset_with_one_sound_leaves_out_undefined_figures(tmp_path, caplog):
    caplog.set_level("INFO", "distill")
    write(tmp_path / "one" / "one.wav", noise(1), subtype="PCM_24")
    (tmp_path / "one" / "text.wav").write_text("no sound")
    result = train(tmp_path / "one", tmp_path / "my run", small(epochs=1, preview_epochs=1))
    assert (result.status, result.latent_dir) == ("finished", None)
    text = caplog.text
    assert "not analysed" in text
    assert f"then distill analyze '{tmp_path / 'my run'}'" in text
    assert re.search(r"spread by \S+ standard deviations\n", text)
    assert "Fréchet" not in text
    assert "nearest training row" not in text
    for once in ("2 audio files", "1 row of features, 1 file decoded", "1 training row,", "1 file skipped", "text.wav"):
        assert text.count(once) == 1
    with pytest.raises(NothingUsableError, match="one row"):
        analyze(tmp_path / "my run")


def test_the_analysis_is_of_the_dataset_that_the_run_was_resumed_with(tones, tmp_path):
    train_alone(tones, tmp_path / "run", small(epochs=1))
    tones.rename(tmp_path / "moved")
    train(tmp_path / "moved", tmp_path / "run", replace(small(), epochs=2), resume=True)
    report = json.loads((tmp_path / "run" / "latent" / "analysis.json").read_text())
    assert report["dataset"] == str(tmp_path / "moved")


def test_the_command_prints_its_output_files_and_the_next_commands(tones, tmp_path, run, monkeypatch):
    from distill import train as command
    from distill.config import config_to_toml

    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(config_to_toml(small(preview_epochs=2)))
    options = ("--config", "config.toml")
    code, out, _ = run("tones", "--out", "my run", *options, "--tensorboard", command=command.main)
    assert code == 0
    text = out[out.index("run: my run") :]
    for name in ("loss.png", "reconstruction.png", "quality.png", "latent/map.png", "previews/epoch-002"):
        assert name in text
        assert (tmp_path / "my run" / name).exists()
    assert "tensorboard --logdir 'my run/tensorboard'" in text
    assert "distill generate 'my run' --out" in text
    assert "distill reconstruct 'my run' FILE --out" in text
    assert len(text.splitlines()) < 8
    code, out, _ = run("tones", "--out", "bare", *options, "--no-analyze", "--preview-epochs", 0, command=command.main)
    assert code == 0
    assert "latent" not in out
    assert "previews" not in out
    assert not {"latent", "previews", "tensorboard"} & {path.name for path in (tmp_path / "bare").iterdir()}
