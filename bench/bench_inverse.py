"""Features back to sound: distances and speed relative to other methods, on one CPU thread.

`pytest bench/bench_inverse.py --benchmark-only`. The sounds are a second of each of 32 files of sonic-pi-samples if
they are installed, otherwise the demo's. Distances are means over clips, in the order of `distill.features.distance`:
spectral convergence, log-spectral distance in dB, multi-resolution STFT distance. Times are ratios of interleaved
calls.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.audio import AudioSpectrogram, ComplexSpectrogram, ComplexSpectrogramConfig, SpectrogramConfig, load_audio
from distill.features.distance import distances
from distill.features.inversion.crossfade import join_chunks
from resynthesis import linear_magnitude, random_phase, synthetic, true_phase
from sound_sets import write_sets

pytestmark = [
    pytest.mark.needs("torchaudio"),
    pytest.mark.filterwarnings("ignore::UserWarning:torchaudio", "ignore::DeprecationWarning"),
]

SAMPLES = Path("/usr/share/sonic-pi/samples")
CONFIG = ComplexSpectrogramConfig()
RATE = CONFIG.sample_rate
ROUNDS = 20


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def files():
    """Waveforms of all files, peak 1."""
    waveforms = [torch.as_tensor(load_audio(path, RATE)).flatten() for path in sorted(SAMPLES.glob("*.flac"))]
    return [waveform / waveform.abs().max() for waveform in waveforms]


@pytest.fixture(scope="module")
def sounds(files):
    if not files:
        return synthetic(5)
    chosen = [files[index][:RATE] for index in np.linspace(0, len(files) - 1, 32).round().astype(int)]
    return torch.stack([torch.nn.functional.pad(clip, (0, RATE - len(clip))) for clip in chosen])[:, None]


def means(reference, estimate):
    return [round(float(values.mean()), 4) for values in distances(reference, estimate)]


def passes(found, random_8, random_32):
    """Return for each gate whether the distances pass it."""
    gates = [mine < 1.08 * peer for mine, peer in zip(found, random_32, strict=True)]
    return [*gates, found[0] < 0.9 * random_8[0]]


@pytest.mark.benchmark(group="inverse, quality")
@pytest.mark.parametrize("n_mels", [128, 256])
def test_distances(benchmark, sounds, n_mels):
    both = ComplexSpectrogram(ComplexSpectrogramConfig(n_mels=n_mels))
    one = AudioSpectrogram(SpectrogramConfig(n_mels=n_mels))
    features = both(sounds)
    magnitude = linear_magnitude(features[:, 0].expm1(), both.config)
    found = {"silence": torch.zeros_like(sounds)}
    found |= {f"random_phase_{n}": random_phase(magnitude, CONFIG, n, RATE) for n in (8, 32)}
    found |= {f"magnitude_alone_pghi_{n}": one.inverse(features[:, :1], n_iter=n, length=RATE) for n in (0, 8)}
    found |= {f"two_channels_{n}": both.inverse(features, n_iter=n, length=RATE) for n in (0, 8, 32)}
    found["true_phase"] = true_phase(magnitude, sounds, CONFIG)
    found = {name: means(sounds, estimate) for name, estimate in found.items()}
    peers = found["random_phase_8"], found["random_phase_32"]
    assert all(passes(found["two_channels_8"], *peers))
    assert all(passes(found["magnitude_alone_pghi_8"], *peers))
    assert not any(passes(found["silence"], *peers))
    assert 0 < found["true_phase"][0] < found["two_channels_8"][0]
    benchmark.extra_info |= {name: str(values) for name, values in found.items()}
    benchmark.pedantic(lambda: both.inverse(features[:1], length=RATE), rounds=3)


@pytest.mark.benchmark(group="inverse, kinds of sound")
@pytest.mark.parametrize("n_mels", [128, 256, 1024])
def test_kinds(benchmark, n_mels, tmp_path):
    """Spectral convergence for each kind of sound, with channel 1 relative to the magnitude alone."""
    both = ComplexSpectrogram(ComplexSpectrogramConfig(n_mels=n_mels))
    one = AudioSpectrogram(SpectrogramConfig(n_mels=n_mels))
    kinds = _kinds(tmp_path)
    for kind, waveforms in kinds.items():
        features = both(waveforms)
        found = {
            "magnitude_alone": one.inverse(features[:, :1], length=RATE),
            "two_channels": both.inverse(features, length=RATE),
            "two_channels, 0 iterations": both.inverse(features, n_iter=0, length=RATE),
        }
        found = {name: means(waveforms, estimate)[0] for name, estimate in found.items()}
        assert 0 < found["two_channels"] < 1.02 * found["magnitude_alone"], kind
        assert found["two_channels"] < found["two_channels, 0 iterations"] + 0.01, kind
        benchmark.extra_info[kind] = str(found)
    benchmark.pedantic(lambda: both.inverse(both(kinds["notes"][:1]), length=RATE), rounds=3)


def _kinds(folder):
    """Return a few waveforms of each kind, [B, 1, RATE]; the sets of sounds are written to `folder`."""
    random, seconds = np.random.default_rng(0), np.arange(RATE) / RATE
    clicks = np.zeros((3, RATE))
    for clip, spacing in zip(clicks, (RATE, 9_000, 6_000), strict=True):
        clip[3_123::spacing] = 0.9
    sines = [0.5 * np.sin(2 * np.pi * f * seconds) for f in (110, 331.7, 440, 1_000, 1_568.3, 3_011.1, 8_000)]
    notes = []
    for frequency in (110, 220, 440, 880):
        partials = np.arange(1, 20_000 // frequency)[:, None]
        turns = partials * frequency * seconds + random.random(partials.shape)
        notes.append(0.3 * (np.sin(2 * np.pi * turns) / partials).sum(axis=0))
    made = {"clicks": clicks, "noise": 0.2 * random.standard_normal((3, RATE)), "sines": sines, "notes": notes}
    kinds = {kind: torch.tensor(np.stack(clips), dtype=torch.float32)[:, None] for kind, clips in made.items()}
    for kind, place in write_sets(folder, scale=0.2).items():
        paths = sorted(place.iterdir())
        chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, min(24, len(paths))).round().astype(int)]
        clips = [torch.as_tensor(load_audio(path, RATE)).flatten()[:RATE] for path in chosen]
        clips = [torch.nn.functional.pad(clip, (0, RATE - len(clip))) for clip in clips]
        kinds[kind] = torch.stack([clip / clip.abs().max().clamp(min=1e-9) for clip in clips])[:, None]
    return kinds


@pytest.mark.benchmark(group="inverse, speed of 1 s")
def test_speed(benchmark, sounds):
    """The default, relative to the reference in torch, and to Griffin-Lim alone by torchaudio and librosa.

    The latter are 8 iterations on a known magnitude.
    """
    librosa = pytest.importorskip("librosa")
    module, reference, waveform = ComplexSpectrogram(), ComplexSpectrogram(backend="reference"), sounds[8:9]
    features = module(waveform)
    magnitude = linear_magnitude(features[:, 0].expm1(), CONFIG)
    array = magnitude[0].numpy()
    options = {"n_iter": 8, "hop_length": CONFIG.hop_length, "n_fft": CONFIG.n_fft, "length": RATE, "random_state": 0}
    methods = {
        "ours": lambda: module.inverse(features, length=RATE),
        "reference": lambda: reference.inverse(features, length=RATE),
        "torchaudio": lambda: random_phase(magnitude, CONFIG, 8, RATE),
        "torchaudio_32": lambda: random_phase(magnitude, CONFIG, 32, RATE),
        "librosa": lambda: torch.tensor(librosa.griffinlim(array, **options))[None, None],
    }
    found = {name: means(waveform, method())[0] for name, method in methods.items()}
    assert all(0 < value < 0.6 for value in found.values())
    assert abs(found["ours"] - found["reference"]) < 5e-3
    taken = {name: [] for name in methods}
    for _ in range(ROUNDS):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            taken[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    benchmark.extra_info["times_faster_than_real_time"] = round(1 / medians["ours"], 1)
    for name in ("reference", "torchaudio", "torchaudio_32", "librosa"):
        benchmark.extra_info[f"time_to_{name}"] = round(medians["ours"] / medians[name], 2)
    benchmark.extra_info["ms"] = round(1e3 * medians["ours"], 1)
    benchmark(methods["ours"])


@pytest.mark.benchmark(group="inverse, seams")
@pytest.mark.parametrize("overlap", [2_400, 12_000])
def test_seams(benchmark, files, overlap):
    """Chunks of a second, inverted one by one and joined, relative to a linear fade and a cut without a fade."""
    long = [waveform[: 3 * RATE] for waveform in files if len(waveform) >= 3 * RATE][::2]
    long = long or list(synthetic(5, 3.0)[:, 0])
    module, step = ComplexSpectrogram(), RATE - overlap
    found = {"joined": [], "linear_fade": [], "cut": []}
    for waveform in long:
        cut = waveform.unfold(0, RATE, step)[:, None]
        chunks = module.inverse(module(cut), length=RATE)
        methods = {
            "joined": join_chunks(chunks, overlap)[0, 0],
            "linear_fade": _linear(chunks, overlap),
            "cut": torch.cat([*chunks[:-1, 0, :step].flatten().split(step), chunks[-1, 0]]),
        }
        for name, sound in methods.items():
            found[name].append(_seam(sound, waveform, [step * n for n in range(1, len(chunks))], overlap))
    for name, values in found.items():
        level, click = np.nanmean(values, axis=0)
        benchmark.extra_info[f"{name}: level at seams, click, dB"] = f"{level:.2f}, {click:.1f}"
        found[name] = (abs(level), click)
    assert found["joined"][0] < min(0.5, found["linear_fade"][0])
    assert found["joined"][1] < 0 < 10 < found["cut"][1]
    benchmark.pedantic(lambda: join_chunks(chunks, overlap), rounds=3)


def _linear(chunks, overlap):
    samples = chunks.shape[-1]
    rise = torch.ones(samples)
    rise[:overlap] = (torch.arange(overlap) + 0.5) / overlap
    sound = torch.zeros(len(chunks) * (samples - overlap) + overlap)
    for number, chunk in enumerate(chunks[:, 0]):
        fades = (rise if number else 1.0) * (rise.flip(0) if number < len(chunks) - 1 else 1.0)
        sound[number * (samples - overlap) :][:samples] += chunk * fades
    return sound


def _seam(sound, waveform, starts, overlap):
    """Return level and click at the seams, in dB; nan where the waveform is silent.

    The level is that of the overlaps relative to the waveform's. The click is the largest second difference at either
    end of an overlap, relative to the 99.5th percentile within 0.1 s.
    """
    sound, curvature, found = sound.double(), sound.double().diff(n=2).abs(), []
    for start in starts:
        here, there = (w[start : start + overlap].double().norm() for w in (sound, waveform))
        ends = torch.cat([curvature[place - 10 : place + 10] for place in (start, start + overlap)])
        usual = torch.quantile(curvature[start - 4_800 : start + overlap + 4_800], 0.995)
        if there > 1e-3 * overlap**0.5:
            found.append([20 * float(torch.log10(here / there)), 20 * float(torch.log10(ends.max() / usual))])
    return np.mean(found, axis=0) if found else [np.nan, np.nan]
