"""`distill play`: the time from a move to its sound, over the websocket, for a second of sound.

`pytest bench/bench_play.py --benchmark-only`. The run has the default configuration. The baseline is
`Instrument.decode_latents` of the same sound in this process, with as many threads; they take turns. While a slider is
dragged, a move comes every 1/60 s, and a sound counts from the move that it belongs to.
"""

import threading
import time

import librosa
import numpy as np
import pytest
import soundfile
import torch

from distill.audio import load_audio
from distill.config import TrainingConfig
from distill.demo import write_dataset
from distill.runs import Instrument, read_axes
from distill.training import train
from playing import Server, Sound, dataset_source, play, request

pytestmark = pytest.mark.needs("starlette", "uvicorn", "websockets")

SECOND = "second.wav"
MOVES = 200
WARM = 20
TURN = 5
EVERY_S = 1 / 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("play")
    write_dataset(root / "all")
    for file in sorted((root / "all").rglob("*.flac")):
        (root / "sounds").mkdir(exist_ok=True)
        file.rename(root / "sounds" / file.name)
    longest, rate = soundfile.read(max((root / "sounds").iterdir(), key=lambda file: soundfile.info(file).duration))
    soundfile.write(root / "sounds" / SECOND, longest[:rate], rate)
    train(root / "sounds", root / "run", TrainingConfig(epochs=1, augmentation_expansion=0, preview_epochs=0))
    return root / "run"


def moved(number: int) -> float:
    return round(2 * float(np.sin(number / 15)), 3)


@pytest.mark.benchmark(group="play, move to sound of 1 s")
@pytest.mark.parametrize("start", ["sample", "around"])
def test_moves(benchmark, run, start):
    source = dataset_source(SECOND)
    changes = {"duration": 1.0} | ({"around": {"source": source, "radius": 0.0}} if start == "around" else {})
    instrument, axes = Instrument.load(run), read_axes(run)
    latents = instrument.encode_waveform(load_audio(run.parent / "sounds" / SECOND, instrument.sample_rate))

    def decode(number):
        return instrument.decode_latents(axes.move(latents, 0, moved(number)), 48_000)[0].numpy()

    times = {"play": [], "decode_latents": []}
    with Server(run, OMP_NUM_THREADS=str(torch.get_num_threads())) as server, server.connect("run") as line:
        for number in range(WARM + MOVES):
            began = time.perf_counter()
            sound = play(line, request(number, axes={"1": moved(number)}, **changes))
            times["play"].append(time.perf_counter() - began)
            if number % TURN == 0:
                began = time.perf_counter()
                decoded = decode(number)
                times["decode_latents"].append(time.perf_counter() - began)
                _check(sound, decoded, is_same=start == "around")
        while_dragging = _drag(line, changes)
    played, decoded = np.array(times["play"][WARM:]), np.array(times["decode_latents"][WARM // TURN :])
    benchmark.extra_info["time_to_decode_latents, median"] = round(float(np.median(played) / np.median(decoded)), 2)
    for name, values in (("play", played), ("decode_latents", decoded), ("play, while dragging", while_dragging)):
        median, late = (round(1e3 * float(np.percentile(values, share))) for share in (50, 99))
        benchmark.extra_info[f"{name}: median, 99 %, ms"] = f"{median}, {late}"
    benchmark.pedantic(lambda: decode(0), rounds=3)


def _check(sound: Sound, decoded: np.ndarray, *, is_same: bool) -> None:
    """A second of sound, with the baseline's magnitudes up to its level if it starts from the same file."""
    assert sound.samples.shape == decoded.shape
    assert sound.samples.std() > 1e-3
    played, baseline = (librosa.stft(samples, n_fft=2048) for samples in (sound.samples, decoded))
    cosine = np.vdot(abs(played), abs(baseline)) / np.linalg.norm(played) / np.linalg.norm(baseline)
    assert not is_same or cosine > 0.9, cosine


def _drag(line, changes) -> np.ndarray:
    """Return the time from each move that was played, of those that come every 1/60 s, to its sound."""
    sent, taken, last = {}, [], 10_000 + 2 * MOVES

    def read():
        while True:
            received = line.recv(timeout=60)
            if isinstance(received, str):  # progress
                continue
            sound = Sound.parse(received)
            taken.append(time.perf_counter() - sent[sound.header["id"]])
            if sound.header["id"] == last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(10_000, last + 1):
        sent[number] = time.perf_counter()
        line.send(request(number, axes={"1": moved(number)}, **changes))
        time.sleep(EVERY_S)
    reader.join()
    return np.array(taken)
