"""``python -m distill.demo FOLDER``: the main job on sounds made in code, its result beside a PCA's, and new sounds."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from distill.cli.progress import say

SOUNDS_PER_FAMILY = 10

# Another seed than that of the sounds to train on.
_UNHEARD_SEED = 8
_RATES = (44_100, 48_000, 22_050)
_KINDS = (("wav", "PCM_16"), ("flac", "PCM_24"), ("wav", "PCM_24"), ("ogg", "VORBIS"), ("wav", "FLOAT"))

Random = np.random.Generator
Synth = Callable[[np.ndarray, Random], np.ndarray]


def _harmonics(t: np.ndarray, pitch: float, amplitudes: np.ndarray, decay: np.ndarray, stretch: float) -> np.ndarray:
    """Sum of partials, each with its own decay; those above 9 kHz are left out at every rate."""
    sound = np.zeros_like(t)
    for number, (amplitude, rate) in enumerate(zip(amplitudes, decay, strict=True), 1):
        frequency = pitch * number * np.sqrt(1 + stretch * number**2)
        if frequency < 9_000:
            sound += amplitude * np.exp(-rate * t) * np.sin(2 * np.pi * frequency * t)
    return sound


def _pitch(random: Random, low: int, high: int) -> float:
    """A note of the pentatonic scale, in Hz."""
    scale = np.array([0, 3, 5, 7, 10])
    notes = (np.arange(low // 12, high // 12 + 1)[:, None] * 12 + scale).reshape(-1)
    return float(440 * 2 ** ((random.choice(notes[(notes >= low) & (notes <= high)]) - 69) / 12))


def _pluck(t: np.ndarray, random: Random) -> np.ndarray:
    number = np.arange(1, 25)
    return _harmonics(t, _pitch(random, 40, 72), 1 / number, 1.5 + 0.35 * number, 1e-4)


def _bell(t: np.ndarray, random: Random) -> np.ndarray:
    pitch, ratio = _pitch(random, 60, 84), random.choice([1.4, 2.76, 3.5])
    index = random.uniform(2, 5) * np.exp(-2.5 * t)
    return np.exp(-2 * t) * np.sin(2 * np.pi * pitch * t + index * np.sin(2 * np.pi * ratio * pitch * t))


def _kick(t: np.ndarray, random: Random) -> np.ndarray:
    low, sweep, speed = random.uniform(42, 60), random.uniform(120, 260), random.uniform(18, 40)
    phase = low * t + sweep / speed * (1 - np.exp(-speed * t))
    click = np.exp(-400 * t) * random.standard_normal(t.size)
    return np.exp(-random.uniform(4, 9) * t) * np.sin(2 * np.pi * phase) + 0.3 * click


def _snare(t: np.ndarray, random: Random) -> np.ndarray:
    noise = np.diff(random.standard_normal(t.size + 1))
    body = np.sin(2 * np.pi * random.uniform(160, 230) * t)
    return np.exp(-random.uniform(9, 20) * t) * 0.4 * noise + 0.6 * np.exp(-18 * t) * body


def _pad(t: np.ndarray, random: Random) -> np.ndarray:
    root = _pitch(random, 45, 60)
    number = np.arange(1, 17)
    sound = np.zeros_like(t)
    for interval in (1.0, 1.5, 2 ** (random.choice([3, 4]) / 12)):
        detune = 1 + random.uniform(-0.003, 0.003)
        sound += _harmonics(t, root * interval * detune, number**-1.4, np.zeros(16), 0.0)
    swell = np.minimum(1, t / 0.3) * np.minimum(1, (t[-1] - t) / 0.3)
    return swell * sound * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(3, 6) * t))


def _sweep(t: np.ndarray, random: Random) -> np.ndarray:
    start, end = sorted(random.uniform(np.log(100), np.log(6_000), 2))
    frequency = np.exp(start + (end - start) * t / t[-1])
    phase = np.cumsum(frequency) * (t[1] - t[0])
    return np.sin(2 * np.pi * phase) * np.minimum(1, (t[-1] - t) / 0.05)


FAMILIES: dict[str, tuple[Synth, float, float]] = {
    "strings/pluck": (_pluck, 1.2, 2.5),
    "metal/bell": (_bell, 1.2, 2.5),
    "drums/kick": (_kick, 0.4, 0.9),
    "drums/snare": (_snare, 0.3, 0.8),
    "pads/pad": (_pad, 2.0, 3.5),
    "effects/sweep": (_sweep, 1.0, 2.5),
}
"""Name to synthesis, shortest and longest duration in seconds."""


def write_dataset(folder: Path, seed: int = 7, per_family: int = SOUNDS_PER_FAMILY) -> list[Path]:
    """Write sounds of six families, in several formats and rates, mono and stereo, in nested folders.

    Parameters
    ----------
    folder : Path
        Where to; made if missing.
    seed : int
        The same seed gives the same samples; a few bytes are the time of writing or the encoder's own.
    per_family : int
        Sounds of each family. Default: 10.

    Returns
    -------
    list of Path
        Family after family, in the order of `FAMILIES`.
    """
    written = []
    for family, (name, (synth, shortest, longest)) in enumerate(FAMILIES.items()):
        for number in range(per_family):
            random = np.random.default_rng([seed, family, number])
            rate = _RATES[(family + number) % len(_RATES)]
            kind, subtype = _KINDS[(family + 2 * number) % len(_KINDS)]
            t = np.arange(round(rate * random.uniform(shortest, longest))) / rate
            sound = synth(t, random)
            sound *= random.uniform(0.3, 0.9) / np.abs(sound).max()
            if number % 3 == 2:
                balance = random.uniform(0.3, 0.7)
                sound = np.stack([sound * balance, sound * (1 - balance)], axis=1)
            path = folder / f"{name}{number:02d}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, sound, rate, subtype=subtype)
            written.append(path)
    return written


def pca_baseline(
    cache_dir: Path, val_fraction: float, split_by: str, latent_dim: int, stats: dict[str, float]
) -> dict[str, float]:
    """Validation R² of a plain PCA of a latent size, fitted on the same training rows as a model.

    Returns
    -------
    dict
        magnitude_r2, if_r2; as in metrics.jsonl.
    """
    from distill.training import CachedSpectrogramDataset  # noqa: PLC0415 - torch takes seconds

    parts = (CachedSpectrogramDataset(cache_dir, split, val_fraction, split_by) for split in ("train", "val"))
    train, val = (part.rows(range(len(part))).double().numpy() for part in parts)
    rows = train.reshape(len(train), -1)
    mean = rows.mean(axis=0)
    rows -= mean
    # The right singular vectors through the small side: there are fewer rows than values in one.
    variance, vectors = np.linalg.eigh(rows @ rows.T)
    kept = np.flatnonzero(variance > variance.max() * 1e-10)[-latent_dim:]
    axes = (vectors[:, kept].T @ rows) / np.sqrt(variance[kept])[:, None]
    centred = val.reshape(len(val), -1) - mean
    output = ((centred @ axes.T) @ axes + mean).reshape(val.shape)
    rows += mean

    def energy(values: np.ndarray) -> np.ndarray:
        return np.maximum(values[:, 0] * stats["mag_std"] + stats["mag_mean"], 0)

    r2 = {}
    for channel, name in enumerate(("magnitude_r2", "if_r2")):
        weight, train_weight = (energy(val), energy(train)) if channel else (1.0, np.ones_like(train[:, 0]))
        band_sums = (train_weight * train[:, channel]).sum(axis=(0, 2))
        band_means = (band_sums / np.maximum(train_weight.sum(axis=(0, 2)), 1e-300))[:, None]
        missed = weight * (output[:, channel] - val[:, channel]) ** 2
        r2[name] = float(1 - missed.sum() / (weight * (val[:, channel] - band_means) ** 2).sum())
    return r2


def compare(dataset: Path, run_dir: Path, cache_dir: Path | None = None) -> bool:
    """Print a run's validation R² beside that of a PCA of the same size; whether both channels are above it."""
    from distill.cache.reader import CacheReader  # noqa: PLC0415
    from distill.index import Dataset  # noqa: PLC0415 - torch takes seconds
    from distill.runs.folder import RunFolder  # noqa: PLC0415

    run = RunFolder(run_dir)
    config = run.config()
    cache = Dataset(dataset, cache_dir=cache_dir).cache_path
    stats = CacheReader(cache).header["normalization_stats"]
    baseline = pca_baseline(cache, config.val_fraction, config.split_by, config.latent_dim, stats)
    best = min(run.metrics(), key=lambda line: line["val_loss"])
    say(f"validation R², latent size {config.latent_dim}   model    PCA")
    above = True
    for name, key in (("magnitude", "magnitude_r2"), ("instantaneous frequency", "if_r2")):
        above = above and best[f"val_{key}"] > baseline[key]
        say(f"  {name:<33} {best[f'val_{key}']:6.3f} {baseline[key]:6.3f}")
    return above


def play(run_dir: Path, folder: Path, heard: dict[str, Path]) -> int:
    """Make sounds with a run by the commands that a user has, each shown before it runs.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    folder : Path
        Where `generated` and `reconstructed` go; what an earlier demo left there is replaced.
    heard : dict of Path
        A sound of the dataset for each of `FAMILIES`.

    Returns
    -------
    int
        Exit status of the first command that failed, or 0.
    """
    from distill.cli import main as commands  # noqa: PLC0415 - torch takes seconds

    generated, reconstructed = folder / "generated", folder / "reconstructed"
    unheard = write_dataset(folder / "unheard", _UNHEARD_SEED, per_family=1)
    recipes = (
        (),
        ("--from", heard["strings/pluck"], "--to", heard["pads/pad"]),
        ("--around", heard["metal/bell"], "--count", "1"),
    )
    for command in (
        *(("generate", run_dir, *recipe, "--out", generated, "--seed", "7", "--force") for recipe in recipes),
        ("reconstruct", run_dir, *unheard, "--out", reconstructed, "--force"),
    ):
        argv = [str(word) for word in command]
        say(f"$ distill {shlex.join(argv)}")
        if status := commands.main(argv):
            return status
    say("listen to and look at")
    say(f"  {generated}: new sounds, five steps from a pluck to a pad, and a bell like one that it knows")
    say(f"  {reconstructed}: what the model makes of six sounds that it has never had, each with a picture")
    say(f"  {run_dir}: loss.png, reconstruction.png")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dataset, run the main job on it, compare, and make sounds with it."""
    parser = argparse.ArgumentParser(prog="python -m distill.demo", description=__doc__)
    parser.add_argument("folder", type=Path, help="where sounds and run go")
    parser.add_argument("--epochs", type=int, default=30, help="epochs of training (default: %(default)s)")
    arguments = parser.parse_args(argv)
    from distill.cli import train  # noqa: PLC0415 - torch takes seconds

    sounds = arguments.folder / "sounds"
    written = write_dataset(sounds)
    say(f"{len(written)} sounds written to {sounds}")
    run_dir = train.default_run_dir(sounds)
    run_dir = arguments.folder / run_dir.name
    status = train.main([str(sounds), "--out", str(run_dir), "--epochs", str(arguments.epochs)])
    if status:
        return status
    is_above = compare(sounds, run_dir)
    heard = dict(zip(FAMILIES, written[::SOUNDS_PER_FAMILY], strict=True))
    return play(run_dir, arguments.folder, heard) or (0 if is_above else 1)


if __name__ == "__main__":
    sys.exit(main())
