"""`distill play`: the time from a move to its sound, over the websocket, for a second of sound.

`pytest bench/bench_play.py --benchmark-only`. The run has the default configuration. The baseline is
`Instrument.decode_latents` of the same sound in this process, in moves of one slider that take turns with it. While a
slider is dragged, a move comes every 1/60 s, and a sound counts from the move that it belongs to.
"""

import threading
import time

import numpy as np
import pytest

from distill.audio import load_audio
from distill.config import TrainingConfig
from distill.demo import write_dataset
from distill.runs import Instrument, read_axes
from distill.training import train
from playing import Server, Sound, dataset_source, play, request

pytestmark = pytest.mark.needs("starlette", "uvicorn", "websockets")

MOVES = 200
WARM = 20
EVERY_S = 1 / 60


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("play")
    write_dataset(root / "sounds")
    train(root / "sounds", root / "run", TrainingConfig(epochs=1, augmentation_expansion=0, preview_epochs=0))
    return root / "run"


def moved(number: int) -> float:
    return round(2 * float(np.sin(number / 15)), 3)


@pytest.mark.benchmark(group="play, move to sound of 1 s")
@pytest.mark.parametrize("start", ["sample", "around"])
def test_moves(benchmark, run, start):
    file = sorted((run.parent / "sounds").rglob("*.flac"))[0]
    source = dataset_source(str(file.relative_to(run.parent / "sounds")))
    changes = {"duration": 1.0} | ({"around": {"source": source, "radius": 0.0}} if start == "around" else {})
    instrument, axes = Instrument.load(run), read_axes(run)
    waveform = load_audio(file, instrument.sample_rate)
    latents = instrument.encode_waveform(np.pad(waveform.ravel(), (0, 48_000))[:48_000])

    def decode(number):
        return instrument.decode_latents(axes.move(latents, 0, moved(number)), 48_000)[0].numpy()

    times = {"play": [], "decode_latents": []}
    with Server(run) as server, server.connect("run") as line:
        for number in range(WARM + MOVES):
            began = time.perf_counter()
            sound = play(line, request(number, axes={"1": moved(number)}, **changes))
            between = time.perf_counter()
            decoded = decode(number)
            times["play"].append(between - began)
            times["decode_latents"].append(time.perf_counter() - between)
            if number == WARM:
                _check(sound, decoded, is_same=start == "around")
        while_dragging = _drag(line, changes)
    played, decoded = (np.array(values[WARM:]) for values in times.values())
    benchmark.extra_info["time_to_decode_latents, median"] = round(float(np.median(played) / np.median(decoded)), 2)
    for name, values in (("play", played), ("decode_latents", decoded), ("play, while dragging", while_dragging)):
        median, late = (round(1e3 * float(np.percentile(values, share))) for share in (50, 99))
        benchmark.extra_info[f"{name}: median, 99 %, ms"] = f"{median}, {late}"
    benchmark.pedantic(lambda: decode(0), rounds=3)


def _check(sound: Sound, decoded: np.ndarray, *, is_same: bool) -> None:
    """A second of sound; the same as the baseline's up to its level, if it starts from the same file."""
    assert len(sound.samples) == 48_000
    assert sound.samples.std() > 1e-3
    cosine = sound.samples @ decoded / np.linalg.norm(sound.samples) / np.linalg.norm(decoded)
    assert not is_same or cosine > 0.99, cosine


def _drag(line, changes) -> np.ndarray:
    """Return the time from each move that was played, of those that come every 1/60 s, to its sound."""
    sent, taken, last = {}, [], 10_000 + 2 * MOVES

    def read():
        while True:
            sound = Sound.parse(line.recv(timeout=60))
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
