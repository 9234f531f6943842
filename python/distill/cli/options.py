"""What the commands take: flags over a file over a preset."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from distill.config import PRESETS, TrainingConfig, collecting_faults, config_from_dict
from distill.errors import ConfigError
from distill.generate.recipe import Recipe
from distill.types import WavFormat

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class _ConfiguredArguments:
    """What train and preprocess have in common."""

    config: Path | None = None
    """A TOML file of the fields below; flags win over it."""
    preset: Literal["default", "quick", "large"] = "default"
    """A named set of values to start from; --config and flags win over it."""
    cache_dir: Path | None = None
    """Where features are kept. Default: DATASET/.cache."""
    trust: Literal["stat", "content"] = "stat"
    """When a file counts as unchanged: by its stamps, or by its bytes, which are then all read."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the dataset, and links to folders."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    """The training configuration."""


@dataclass(frozen=True, kw_only=True)
class TrainArguments(_ConfiguredArguments):
    """Train a model on a folder of audio.

    Features are computed for what is new in the folder and kept in DATASET/.cache; then a VAE is trained on them.
    Ctrl-C stops after the step in hand, with everything saved.
    """

    dataset: tyro.conf.Positional[Path | None] = None
    """The folder of audio; left out with --resume."""
    out: Path | None = None
    """The run folder. Default: runs/DATASET-TIME."""
    resume: Path | None = None
    """Go on with the run in this folder; nothing else need be given."""
    tensorboard: bool = False
    """Show metrics and previews in RUN/tensorboard, too; needs pip install tensorboard."""
    analyze: bool = True
    """At the end, analyse the latent space as distill analyze does."""


@dataclass(frozen=True, kw_only=True)
class PreprocessArguments(_ConfiguredArguments):
    """Compute the features that training with the same options would use, and keep them."""

    dataset: tyro.conf.Positional[Path]
    """The folder of audio."""
    json: bool = False
    """Print one JSON object: cache_dir, decoded, rows, skipped, normalization_stats, seconds."""
    workers: int | None = None
    """Threads. Default: one a core."""


@dataclass(frozen=True, kw_only=True)
class _CacheArguments:
    """What the commands on a dataset's cache have in common."""

    dataset: tyro.conf.Positional[Path]
    """The folder of audio."""
    cache_dir: Path | None = None
    """Where features are kept. Default: DATASET/.cache."""


@dataclass(frozen=True, kw_only=True)
class StatusArguments(_CacheArguments):
    """Say what is in a dataset's cache and what has changed since, without decoding anything."""

    json: bool = False
    """Print one JSON object: files, unchanged, added, changed, renamed, removed, skipped, rows, bytes, dead_rows,
    skipped_files (path and reason of each, also of folders that cannot be read), cache_dir, damage (what is wrong with
    the manifest, or null)."""
    trust: Literal["stat", "content"] = "stat"
    """When a file counts as unchanged: by its stamps, or by its bytes, which are then all read."""
    follow_links: bool = False
    """Follow symbolic links that lead out of the dataset, and links to folders."""


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(_CacheArguments):
    """Check every row in a dataset's cache against its checksum, and every file against the hash it had.

    Exit status: 0 if all is whole, or was repaired; 1 if something is damaged.
    """

    repair: bool = False
    """Compute again what is damaged, or was computed from other bytes than a file has now, and nothing else."""
    json: bool = False
    """Print one JSON object: rows, packs, files, damaged (path and reason of each), repaired."""
    follow_links: bool = False
    """As it was when the dataset was preprocessed."""
    workers: int | None = None
    """Threads. Default: one a core."""


@dataclass(frozen=True, kw_only=True)
class CleanArguments(_CacheArguments):
    """Give back the rows that no file had when the dataset was last preprocessed, and packs that nothing names."""


@dataclass(frozen=True, kw_only=True)
class ExportArguments(_CacheArguments):
    """Write the features in a dataset's cache, normalised, for other tools, with a manifest.json beside them."""

    output: tyro.conf.Positional[Path]
    """The folder to write to: new, or empty."""
    format: Literal["pt", "npy", "safetensors"] = "pt"
    """pt: a tensor [2, n_mels, T] a file, 000000.pt and so on. npy: one array features.npy [N, 2, n_mels, T].
    safetensors: tensors `features` [n, 2, n_mels, T] in files of at most 128 MB."""


@dataclass(frozen=True, kw_only=True)
class AnalyzeArguments:
    """Analyse the latent space of a run by the sounds of a dataset, and write the result to RUN/latent.

    analysis.json says what the axes are, what they go with and which sounds lie close; analysis.safetensors holds the
    latents; scree.png, map.png and sweep.png show them.
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""
    dataset: tyro.conf.Positional[Path | None] = None
    """The folder of audio. Default: the one that the run was trained on."""
    cache_dir: Path | None = None
    """Where its features are kept. Default: that of the run, or DATASET/.cache."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    seed: int = 0
    """Of the choice of sounds on the map, where there are too many for it."""
    json: bool = False
    """Print one JSON object: what analysis.json holds."""


@dataclass(frozen=True, kw_only=True)
class _SoundArguments:
    """What the commands that make sound have in common."""

    run: tyro.conf.Positional[Path]
    """The run folder."""
    out: Path
    """The folder to write to; made if missing."""
    format: WavFormat = "pcm24"
    """How a sample is kept; nothing clips, and what would is made quieter as a whole."""
    force: bool = False
    """Replace files that are there already."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""


@dataclass(frozen=True, kw_only=True)
class GenerateArguments(_SoundArguments, Recipe):
    """Make new sounds with a trained run: samples near those it knows, ways from one to another, variations of one.

    Writes OUT/sample-001.wav and so on, interpolation-001.wav or variation-001.wav, at the model's rate.
    """

    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """A sound to begin with."""
    end: Annotated[Path | None, tyro.conf.arg(name="to")] = None
    """The sound to end at."""
    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NUMBER=VALUE or NAME=VALUE, once for each axis: move along an axis that distill analyze found, by so many
    standard deviations."""
    seed: int | None = None
    """The same seed gives the same sounds; a way is the same with all. Default: chosen at random, and told."""
    json: bool = False
    """Print one JSON object: files, gains (less than 1 for a sound that would have clipped), seed, sample_rate,
    duration_s, seconds, settings."""


@dataclass(frozen=True, kw_only=True)
class ReconstructArguments(_SoundArguments):
    """Take sounds through a trained run: OUT/NAME.wav, as long and as loud as NAME, and OUT/NAME.png, in and out.

    A file that cannot be used is named, and the rest goes on.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """The sounds."""
    seed: int = 0
    """Taken as by other commands on a run; nothing is drawn at random here, so all give the same."""
    json: bool = False
    """Print one JSON object: files, gains (less than 1 for a sound that would have clipped), pictures, sources, skipped
    (path and reason of each), seed, sample_rate, seconds, settings."""


def base_config(argv: Sequence[str]) -> TrainingConfig:
    """What flags are laid over: the defaults or the run to resume, then the preset, then the file that `argv` names.

    Raises
    ------
    ConfigError
        If the file cannot be used.
    RunError
        If the run to resume is none.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--resume", type=Path)
    try:
        named, _ = parser.parse_known_args(argv)
    except argparse.ArgumentError:
        return TrainingConfig()  # tyro says what is wrong
    config = TrainingConfig()
    if named.resume is not None:
        from distill.runs.folder import RunFolder  # noqa: PLC0415 - imports torch

        run = RunFolder(named.resume)
        run.dataset()
        config = run.config()
    config = config_from_dict(PRESETS.get(named.preset, {}), config)
    if named.config is None:
        return config
    try:
        return config_from_dict(_read_toml(named.config), config)
    except ConfigError as error:
        raise ConfigError([f"{named.config}: {fault}" for fault in error.faults], error.tip) from error


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"cannot be read: {reason}"], "see config.toml in any run folder") from error


def parse(default: T, argv: Sequence[str], program: str) -> T:
    """Parse `argv` over `default`, with every fault of the configuration reported at once."""
    with collecting_faults():
        # As most programs have it, --no-table.field; tyro has --table.no-field.
        plain = [re.sub(r"^--no-([\w-]+)\.([\w-]+)$", r"--\1.no-\2", argument) for argument in argv]
        return tyro.cli(type(default), args=plain, prog=program, default=default)


def preprocess_arguments(argv: Sequence[str]) -> PreprocessArguments:
    """Arguments of ``distill preprocess``."""
    return parse(PreprocessArguments(dataset=tyro.MISSING, training=base_config(argv)), argv, "distill preprocess")


def status_arguments(argv: Sequence[str]) -> StatusArguments:
    """Arguments of ``distill status``."""
    return parse(StatusArguments(dataset=tyro.MISSING), argv, "distill status")


def verify_arguments(argv: Sequence[str]) -> VerifyArguments:
    """Arguments of ``distill verify``."""
    return parse(VerifyArguments(dataset=tyro.MISSING), argv, "distill verify")


def clean_arguments(argv: Sequence[str]) -> CleanArguments:
    """Arguments of ``distill clean``."""
    return parse(CleanArguments(dataset=tyro.MISSING), argv, "distill clean")


def export_arguments(argv: Sequence[str]) -> ExportArguments:
    """Arguments of ``distill export``."""
    return parse(ExportArguments(dataset=tyro.MISSING, output=tyro.MISSING), argv, "distill export")


def analyze_arguments(argv: Sequence[str]) -> AnalyzeArguments:
    """Arguments of ``distill analyze``."""
    return parse(AnalyzeArguments(run=tyro.MISSING), argv, "distill analyze")


def generate_arguments(argv: Sequence[str]) -> GenerateArguments:
    """Arguments of ``distill generate``."""
    return parse(GenerateArguments(run=tyro.MISSING, out=tyro.MISSING), argv, "distill generate")


def reconstruct_arguments(argv: Sequence[str]) -> ReconstructArguments:
    """Arguments of ``distill reconstruct``."""
    default = ReconstructArguments(run=tyro.MISSING, files=tyro.MISSING, out=tyro.MISSING)
    return parse(default, argv, "distill reconstruct")
