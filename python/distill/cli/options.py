"""The options of the commands that work on a dataset, as dataclasses; their docstrings are the help texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from distill.cli.lazy_tyro import tyro
from distill.config import TrainingConfig
from distill.errors import ConfigError, DatasetError
from distill.index import Dataset, Trust
from distill.types import ExportFormat


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of a command."""

    def check(self) -> None:
        """Raise an error if the options do not fit together."""

    def check_paths(self) -> None:
        """Raise an error if a folder that has to be there is not. Called before torch is imported."""


@dataclass(frozen=True, kw_only=True)
class CacheArguments(Arguments):
    """Options that say where features are."""

    cache_dir: Path | None = None
    """Cache folder for features. Default: DATASET/.cache."""


@dataclass(frozen=True, kw_only=True)
class ScanArguments(CacheArguments):
    """Options that say how the files of a dataset are found and compared with the cache."""

    trust: Trust = "stat"
    """How to tell that a file has not changed: stat compares size and time stamps, content reads every file."""
    follow_links: bool = False
    """Follow symbolic links to folders, and links to files outside the dataset."""


@dataclass(frozen=True, kw_only=True)
class DatasetArguments(CacheArguments):
    """Options of the commands that work on one dataset and its cache."""

    dataset: tyro.conf.Positional[Path]
    """Folder of audio files."""

    def to_dataset(self) -> Dataset:
        """Return the dataset with those of its options that this command has."""
        names = {item.name for item in fields(Dataset)}
        options = {name: value for name, value in vars(self).items() if name in names}
        return Dataset(self.dataset, **options)


@dataclass(frozen=True, kw_only=True)
class ConfigArguments(ScanArguments):
    """Options that make a training configuration."""

    config: Path | None = None
    """TOML file with training options; flags override it."""
    yes: bool = False
    """Do not ask before more than 100 MB of features are computed. Without a terminal, nothing is asked."""
    preset: Literal["default", "quick", "large"] = "default"
    """Named set of training options; --config and flags override it."""
    ray: str | None = None
    """Compute features on a Ray cluster: its HOST:PORT, auto for the cluster of this machine, or no value to start one
    here, which ends with the command. Needs pip install 'distill[ray]'."""
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = field(default_factory=TrainingConfig)
    """The training configuration."""

    def check(self) -> None:
        """Raise an error if there can be no such Ray cluster."""
        if self.ray is not None:
            from distill.preprocess.ray_cluster import check_ray  # noqa: PLC0415 - reads metadata of packages, slowly

            check_ray(self.ray)


@dataclass(frozen=True, kw_only=True)
class TrainArguments(ConfigArguments):
    """Train a model on a folder of audio.

    Computes features of new and changed files, mixed to mono, keeps them in DATASET/.cache, and trains a VAE on them.
    Ctrl-C or SIGTERM stops after the current step and saves everything.
    On several GPUs: torchrun --nproc-per-node GPUS -m distill.train DATASET; --batch-size is that of all GPUs together.
    """

    dataset: tyro.conf.Positional[Path | None] = None
    """Folder of audio files; not needed with --resume."""
    out: Path | None = None
    """Run folder to create. Default: runs/DATASET-TIME."""
    resume: Path | None = None
    """Continue the run in this folder, with its dataset and options."""
    tensorboard: bool = False
    """Also write metrics and previews to RUN/tensorboard; needs pip install tensorboard."""
    analyze: bool = True
    """Analyse the latent space after training, like distill analyze."""

    def check(self) -> None:
        """Raise DatasetError if there is neither a dataset nor a run to resume."""
        super().check()
        if self.resume is None and self.dataset is None:
            raise DatasetError("no dataset was given", "give the folder that holds your recordings, or --resume RUN")

    def check_paths(self) -> None:
        """Raise DatasetError if there is no such dataset."""
        if self.dataset is not None:
            Dataset(self.dataset).check()

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        if folder := self.resume or self.out:
            return folder
        assert self.dataset is not None  # see `check`
        return default_run_dir(self.dataset)


def default_run_dir(dataset: Path) -> Path:
    """Return runs/DATASET-TIME."""
    name = re.sub(r"[^\w.-]+", "-", dataset.absolute().name.encode("utf-8", "replace").decode()) or "dataset"
    return Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"  # noqa: DTZ005 - the user's local time


@dataclass(frozen=True, kw_only=True)
class PreprocessArguments(ConfigArguments, DatasetArguments):
    """Compute the features that training with the same options uses, and keep them in the cache.

    All channels of a file are mixed to mono. Ctrl-C or SIGTERM stops at once and keeps what is finished.
    """

    json: bool = False
    """Print one JSON object: cache_dir, decoded, adopted (number of files that other processes computed), rows, skipped
    and partial (path, reason and code of each file that is left out, or used in part), unread (number of files by
    extension of kinds that are not read), channels (number of decoded files by number of channels),
    normalization_stats, seconds."""
    workers: int | None = None
    """Number of threads, or of CPUs of a Ray cluster that is started here. Default: one per core."""
    shard: str | None = None
    """I/N: compute only the I-th of N shares of the files, for jobs that run on several machines at once; run without
    it afterwards to collect what they computed. Default: all files."""

    def check(self) -> None:
        """Raise ConfigError if there is no such shard, or if there is a Ray cluster, too."""
        super().check()
        if self.shard is not None:
            from distill.preprocess.shares import Shard  # noqa: PLC0415 - few need it

            Shard.parse(self.shard)
            if self.ray is not None:
                raise ConfigError(["--shard and --ray: both divide the work among machines"], "give one of them")


@dataclass(frozen=True, kw_only=True)
class StatusArguments(ScanArguments, DatasetArguments):
    """Show what the cache of a dataset holds and which files have changed, without decoding any."""

    json: bool = False
    """Print one JSON object: files, unchanged, added, changed, renamed, removed, skipped, skipped_files (path, reason
    and code of each, also of unreadable folders), partial (such a list of the files that are used in part), unread
    (number of files by extension of kinds that are not read), left_out (folders that distill wrote), cache_dir, slots
    (name, fingerprint, configuration, rows, dead_rows, bytes, last_used, damage of each, the last used first), leftover
    (of an earlier program), and rows, bytes, dead_rows and damage of the slot last used, with which the files are
    compared."""


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(DatasetArguments):
    """Check all cached features against their checksums, and all audio files against their content hashes.

    Exit status: 0 if there is no damage or all of it was repaired, else 1.
    """

    repair: bool = False
    """Compute features again if they are damaged, or if their audio file has changed; leave all others."""
    json: bool = False
    """Print one JSON object: rows, packs, files, damaged (path and reason of each), repaired."""
    follow_links: bool = False
    """Follow symbolic links; use the same setting as for preprocess or train."""
    workers: int | None = None
    """Number of threads. Default: one per core."""


@dataclass(frozen=True, kw_only=True)
class CleanArguments(DatasetArguments):
    """Free space in the cache.

    Without options: removes features that no file used when the dataset was last preprocessed. With --slot or
    --older-than: removes all features of a configuration, after a question.
    """

    slot: tuple[str, ...] = ()
    """Remove these slots: names that distill status shows, or their beginnings; predecessor: the cache of an earlier
    program."""
    older_than: str | None = None
    """Remove the slots that were not used for so long, such as 30d, 12h or 4w."""
    yes: bool = False
    """Remove without a question."""

    def check(self) -> None:
        """Raise ConfigError if --older-than is not a time."""
        _ = self.oldest_s

    @property
    def oldest_s(self) -> float | None:
        """`older_than` in seconds."""
        if self.older_than is None:
            return None
        found = re.fullmatch(r"(\d{1,6})([hdw])", self.older_than)
        if not found:
            raise ConfigError(
                [f"--older-than {self.older_than}: must be a number of hours, days or weeks, such as 30d"]
            )
        return int(found[1]) * {"h": 3600, "d": 86_400, "w": 7 * 86_400}[found[2]]


@dataclass(frozen=True, kw_only=True)
class ExportArguments(DatasetArguments):
    """Write the normalised features of a dataset as files for other tools, with a manifest.json."""

    slot: str | None = None
    """Name of the slot to export, or its beginning, as distill status shows it. Default: the only one."""
    output: tyro.conf.Positional[Path]
    """Folder to write to; must be new or empty."""
    format: ExportFormat = "pt"
    """pt: one tensor [2, n_mels, T] per file, 000000.pt and so on. npy: one array features.npy [N, 2, n_mels, T].
    safetensors: tensors `features` [n, 2, n_mels, T] in files of up to 128 MB. webdataset: tar files of KEY.npy and
    KEY.json, where the row comes from. parquet: files with a column `features` and others that say where rows come
    from; needs distill[parquet]."""
