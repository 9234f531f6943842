"""``python -m distill.demo FOLDER``: train on sounds made in code, compare with a PCA, and make new sounds."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill.cache.reader import CacheReader
from distill.cli import main as commands
from distill.cli.options import default_run_dir
from distill.cli.process import say
from distill.demo_sounds import FAMILIES, SOUNDS_PER_FAMILY, write_dataset
from distill.index import Dataset
from distill.storage import make_folder

if TYPE_CHECKING:
    from distill.training.split import SplitBy

# Another one than that of the sounds to train on.
_UNHEARD_SEED = 8


def pca_baseline(
    cache_dir: Path, val_fraction: float, split_by: SplitBy, latent: tuple[int, int], stats: dict[str, float]
) -> dict[str, float]:
    """Compute the validation R² of a plain PCA, fitted to patches of the training rows of a cache.

    Parameters
    ----------
    cache_dir : Path
        The cache.
    val_fraction, split_by
        As in TrainingConfig.
    latent : (int, int)
        Number of principal components, and frames of a patch, which has all bands and channels.
    stats : dict
        The `normalization_stats` of the cache.

    Returns
    -------
    dict
        magnitude_r2 and if_r2, computed like val_magnitude_r2 and val_if_r2 in metrics.jsonl.
    """
    from distill.training import CachedSpectrogramDataset  # noqa: PLC0415 - imports torch, see compare

    parts = (CachedSpectrogramDataset(cache_dir, split, val_fraction, split_by) for split in ("train", "val"))
    train, val = (part.rows(range(len(part))).double().numpy() for part in parts)
    count, frames = latent
    patches = _cut(train, frames).reshape(-1, train.shape[1] * train.shape[2] * frames)
    mean = patches.mean(axis=0)
    patches -= mean
    axes = np.linalg.eigh(patches.T @ patches)[1][:, -count:]
    centred = _cut(val, frames).reshape(-1, len(mean)) - mean
    output = (centred @ axes @ axes.T + mean).reshape(len(val), -1, *val.shape[1:3], frames)
    output = output.transpose(0, 2, 3, 1, 4).reshape(*val.shape[:3], -1)[..., : val.shape[3]]

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


def _cut(rows: np.ndarray, frames: int) -> np.ndarray:
    """Cut rows [N, C, M, T] into patches [N, L, C, M, frames]; the last frame is repeated to fill the last patch."""
    padded = np.pad(rows, ((0, 0), (0, 0), (0, 0), (0, -rows.shape[3] % frames)), mode="edge")
    return padded.reshape(*rows.shape[:3], -1, frames).transpose(0, 3, 1, 2, 4)


def compare(dataset: Path, run_dir: Path) -> bool:
    """Print the validation R² of a run and of a PCA of the same size; return whether the run's is higher everywhere."""
    # Imports torch, which must not happen before the train command has set torch's environment variables.
    from distill.preprocess.plan import dataset_slot  # noqa: PLC0415
    from distill.runs.folder import RunFolder  # noqa: PLC0415

    run = RunFolder(run_dir)
    config = run.config()
    cache = dataset_slot(Dataset(dataset), config)
    stats = CacheReader(cache).header["normalization_stats"]
    latent = config.latent_dim, config.latent_frames
    baseline = pca_baseline(cache, config.val_fraction, config.split_by, latent, stats)
    best = min(run.metrics(), key=lambda line: line["val_loss"])
    say(f"validation R², {latent[0]} values for {latent[1]} frames   model    PCA")
    above = True
    for name, key in (("magnitude", "magnitude_r2"), ("instantaneous frequency", "if_r2")):
        above = above and best[f"val_{key}"] > baseline[key]
        say(f"  {name:<38} {best[f'val_{key}']:6.3f} {baseline[key]:6.3f}")
    return above


def play(run_dir: Path, folder: Path, heard: dict[str, Path]) -> int:
    """Make sounds with the commands for it, and print each command first.

    Parameters
    ----------
    run_dir : Path
        The run folder.
    folder : Path
        Folder for `unheard`, `generated` and `reconstructed`; files of an earlier demo are replaced.
    heard : dict of Path
        For each of `FAMILIES`, a sound that the model was trained on.

    Returns
    -------
    int
        0, or the exit status of the first command that failed.
    """
    generated, reconstructed = folder / "generated", folder / "reconstructed"
    make_folder(folder / "unheard")
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
    say("results:")
    say(f"  {generated}: new sounds, an interpolation from a pluck to a pad in five steps, and a variation of a bell")
    say(f"  {reconstructed}: six sounds that were not in the dataset, reconstructed by the model, with pictures")
    say(f"  {run_dir}: loss.png, reconstruction.png")
    say(f"play it:  distill play {shlex.quote(str(run_dir))}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Write sounds made in code, train on them, compare the model with a PCA, and make new sounds with it."""
    parser = argparse.ArgumentParser(prog="python -m distill.demo", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="folder for the sounds and the run")
    parser.add_argument("--epochs", type=int, default=30, help="maximum number of epochs (default: %(default)s)")
    arguments = parser.parse_args(argv)
    sounds = arguments.folder / "sounds"
    written = write_dataset(sounds)
    say(f"{len(written)} sounds written to {sounds}")
    run_dir = arguments.folder / default_run_dir(sounds).name
    options = ["--out", str(run_dir), "--epochs", str(arguments.epochs)]
    if status := commands.run("train", [str(sounds), *options], "python -m distill.train"):
        return status
    is_above = compare(sounds, run_dir)
    heard = dict(zip(FAMILIES, written[::SOUNDS_PER_FAMILY], strict=True))
    return play(run_dir, arguments.folder, heard) or (0 if is_above else 1)


if __name__ == "__main__":
    sys.exit(main())
