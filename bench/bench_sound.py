"""Print how sounds come back: from their features alone, and through models that are trained on their sets.

    python bench/bench_sound.py [--sets drums loops field] [--latents 128x8 128x0] [--seconds 90] [--seeds 0]
                                [--split-by chunk] [--n-mels 128] [--channels 2] [--clips 60] [--pairs 30]

The sets are those of tests/sound_sets.py. `--latents 128x8` is a sequence with a vector of 128 values for each 8
frames, `128x0` one vector of 128 for a chunk. Each model is trained for `--seconds` of CPU time on one thread, so that
a busy machine is no disadvantage; the schedule ends with it. Clips are validation chunks, written to files that
`distill reconstruct` reads; figures are those of `heard` in tests/sound_measures.py, and of the run's metrics.jsonl.

The third table has levels and peaks of what the first of these models plays, peaks before the limiter: of `--pairs`
interpolations in ten steps between files of the set, and of as many samples and variations. "Off the line" is the
largest distance of a step's level from the line in dB between the ends.

Baselines without a model: torchaudio's InverseMelScale and GriffinLim with 32 iterations on the same mel power, Opus at
16 kb/s, and silence.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from distill.audio import AudioSpectrogram, ComplexSpectrogram
from distill.config import ComplexSpectrogramConfig, SpectrogramConfig, TrainingConfig
from distill.generate.generation import generate
from distill.generate.recipe import Recipe
from distill.generate.reconstruction import reconstruct
from distill.pipeline import train
from distill.training import AudioTrainingDataset, TrainEvent
from sound_measures import heard
from sound_sets import RATE, write_sets

_METRICS = {"val_magnitude_r2": "R²", "val_if_r2": "R² of IF", "prior_frechet": "Fréchet", "prior_nearest": "nearest"}
# Of libsndfile, for 16 kb/s with one channel.
_OPUS_LEVEL = 0.963
_AUDIBLE = 0.01
_LONGEST_S = 6.0


def main() -> None:
    args = _arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        sets = write_sets(Path(folder, "sets"), args.sets)
        for name in args.sets:
            for split_by in args.split_by:
                print(f"\n## {name}, validation by {split_by}\n")
                clips = _validation_chunks(sets[name], split_by, args.clips)
                _print_table("features alone", _without_model(clips))
                models = _with_models(sets[name], Path(folder, name), clips, split_by, args)
                first = _print_table("through a model", models)
                _print_table("played by the first", _played(Path(first), sets[name], args.pairs))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=["drums", "loops", "field"], help="sets of sounds")
    parser.add_argument("--latents", nargs="+", default=["128x8", "128x0"], help="size of a vector x its frames")
    parser.add_argument("--seconds", type=float, default=90.0, help="CPU time of each training")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--split-by", nargs="+", default=["chunk"], choices=["chunk", "file"])
    parser.add_argument("--n-mels", nargs="+", type=int, default=[128])
    parser.add_argument("--channels", type=int, default=2, choices=[1, 2])
    parser.add_argument("--pairs", type=int, default=30, help="interpolations")
    parser.add_argument("--clips", type=int, default=60, help="most validation chunks that are compared")
    return parser.parse_args()


def _validation_chunks(folder: Path, split_by: str, count: int) -> np.ndarray:
    """Return at most `count` of the chunks [n, RATE] that training holds out, evenly spaced."""
    _, held_out = AudioTrainingDataset(sorted(folder.iterdir()), RATE, RATE).split(split_by=split_by)
    chosen = np.linspace(0, len(held_out) - 1, min(count, len(held_out))).round().astype(int)
    return torch.stack([held_out[int(index)] for index in chosen])[:, 0].numpy()


def _without_model(clips: np.ndarray) -> Iterator[tuple[str, dict[str, float]]]:
    waveforms = torch.from_numpy(clips)[:, None]
    methods: dict[str, Callable[[], torch.Tensor]] = {"silence": lambda: torch.zeros_like(waveforms)}
    for n_mels in (128, 256):
        both = ComplexSpectrogram(ComplexSpectrogramConfig(n_mels=n_mels))
        one = AudioSpectrogram(SpectrogramConfig(n_mels=n_mels))
        methods |= {
            f"two channels, {n_mels} bands": lambda both=both: both.inverse(both(waveforms), length=RATE),
            f"one channel, {n_mels} bands": lambda one=one: one.inverse(one(waveforms), length=RATE),
        }
    methods |= {"InverseMelScale + GriffinLim": lambda: _torchaudio(waveforms), "Opus, 16 kb/s": lambda: _opus(clips)}
    for name, method in methods.items():
        yield name, heard(clips, method()[:, 0].numpy(), RATE)._asdict()


def _torchaudio(waveforms: torch.Tensor) -> torch.Tensor:
    from torchaudio import transforms

    config = SpectrogramConfig()
    power = AudioSpectrogram(config)(waveforms)[:, 0].expm1()
    sizes = {"n_fft": config.n_fft, "hop_length": config.hop_length}
    to_bins = transforms.InverseMelScale(config.n_fft // 2 + 1, config.n_mels, config.sample_rate)
    torch.manual_seed(0)
    to_sound = transforms.GriffinLim(**sizes, n_iter=32, length=waveforms.shape[-1])
    return torch.stack([to_sound(to_bins(clip)) for clip in power])[:, None]


def _opus(clips: np.ndarray) -> torch.Tensor:
    decoded = []
    for clip in clips:
        file = io.BytesIO()
        soundfile.write(file, clip, RATE, format="OGG", subtype="OPUS", compression_level=_OPUS_LEVEL)
        decoded.append(soundfile.read(io.BytesIO(file.getvalue()), dtype="float32")[0][: clips.shape[1]])
    return torch.from_numpy(np.stack(decoded))[:, None]


def _with_models(
    sounds: Path, folder: Path, clips: np.ndarray, split_by: str, args: argparse.Namespace
) -> Iterator[tuple[Path, dict[str, float]]]:
    files = []
    for number, clip in enumerate(clips):
        files.append(folder / "clips" / f"{split_by}-{number:03d}.wav")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(files[-1], clip, RATE, subtype="FLOAT")
    for n_mels in args.n_mels:
        for latents in args.latents:
            for seed in args.seeds:
                name = f"{latents}, {n_mels} bands, seed {seed}"
                dim, frames = map(int, latents.split("x"))
                config = TrainingConfig(
                    complex_spectrogram=ComplexSpectrogramConfig(n_mels=n_mels, enabled=args.channels == 2),
                    spectrogram=SpectrogramConfig(n_mels=n_mels),
                    latent_dim=dim,
                    latent_frames=frames,
                    split_by=split_by,
                    seed=seed,
                    augmentation_expansion=0,
                    device="cpu",
                    preview_epochs=0,
                )
                run, metrics = _trained(sounds, folder / name, config, args.seconds)
                out = reconstruct(run, files, folder / f"{run.name} out", sample_format="float", device="cpu")
                found = np.stack([soundfile.read(path, dtype="float32")[0] for path in out.files])
                wanted = clips[[files.index(path) for path in out.sources]]
                yield run, heard(wanted, found, RATE)._asdict() | metrics


def _trained(sounds: Path, run: Path, config: TrainingConfig, seconds: float) -> tuple[Path, dict[str, float]]:
    """Train for a time; return the run and those of its last metrics that are printed."""
    times: dict[str, float] = {}

    def note(event: TrainEvent) -> None:
        times.setdefault(event.kind, time.process_time())

    options = {"cache_dir": run.parent / "cache", "analyze": False}
    train(sounds, run.with_name(f"{run.name} first"), replace(config, epochs=1), on_event=note, **options)
    epochs = max(2, round(seconds / (times["epoch"] - times["start"])))
    result = train(sounds, run, replace(config, epochs=epochs, patience=epochs), **options)
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    last = json.loads(lines[-1])
    return result.run_dir, {"epochs": epochs} | {label: last[name] or np.nan for name, label in _METRICS.items()}


def _played(run: Path, sounds: Path, count: int) -> Iterator[tuple[str, dict[str, float]]]:
    """Measure levels and peaks of what a run plays."""
    random = np.random.default_rng(1)
    files = [path for path in sorted(sounds.iterdir()) if np.abs(soundfile.read(path)[0]).max() > _AUDIBLE]
    off, peaks = [], []
    for _ in range(count):
        start, end = (files[index] for index in random.choice(len(files), 2, replace=False))
        seconds = min(_LONGEST_S, max(soundfile.info(path).duration for path in (start, end)))
        levels, highest = _levels_and_peaks(run, Recipe(start=start, end=end, steps=10, duration=seconds))
        off.append(np.abs(levels - np.linspace(levels[0], levels[-1], 10)).max())
        peaks.append(highest.max())
    line = {"off the line, median": np.median(off), "largest": np.max(off), "within 1.5 dB": np.mean(np.less(off, 1.5))}
    yield "interpolations", line | _peak_figures(peaks)
    around = [Recipe(around=files[index], count=5, duration=_LONGEST_S) for index in random.choice(len(files), 4)]
    for name, recipes in {"samples": [Recipe(count=count)], "variations": around}.items():
        found = np.concatenate([_levels_and_peaks(run, recipe)[1] for recipe in recipes])
        yield name, dict.fromkeys(line, np.nan) | _peak_figures(found)


def _peak_figures(peaks: Sequence[float]) -> dict[str, float]:
    return {"peaks, median": np.median(peaks), "highest": np.max(peaks), "below 3 dBFS": np.mean(np.less(peaks, 3))}


def _levels_and_peaks(run: Path, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Return the level of each file, and its peak before the limiter, dB, without the gain of the set."""
    with tempfile.TemporaryDirectory() as out:
        made = generate(run, out, recipe, seed=0, sample_format="float", device="cpu")
        sounds = [soundfile.read(path)[0] for path in made.files]
    gains = 20 * np.log10(made.gains)
    levels = 10 * np.log10([np.mean(sound**2) for sound in sounds]) - gains
    # What was limited reaches the ceiling, so the peak was above that of the file by the greatest reduction.
    return levels, 20 * np.log10([np.abs(sound).max() for sound in sounds]) + made.limited_db - gains


def _print_table(title: str, rows: Iterator[tuple[str | Path, dict[str, float]]]) -> str | Path:
    """Print rows of figures as they are measured; return what the first is of."""
    first: str | Path = ""
    for of, figures in rows:
        if not first:
            print(f"\n| {title} | {' | '.join(figures).replace('_', ' ')} |\n|---|{'---|' * len(figures)}")
            first = of
        name = of.name if isinstance(of, Path) else of
        print(f"| {name} | {' | '.join(f'{value:.3g}' for value in figures.values())} |", flush=True)
    return first


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
