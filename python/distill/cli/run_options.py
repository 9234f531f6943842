"""The options of the commands that use trained runs; see `options`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from distill.audio.sound_format import SoundFormat
from distill.cli.lazy_tyro import tyro
from distill.cli.options import Arguments
from distill.device import check_device_name
from distill.errors import ConfigError
from distill.generate.recipe import Recipe
from distill.index import Dataset
from distill.play.folders import check_library
from distill.runs.folder import RunFolder
from distill.types import FileFormat, SampleFormat


@dataclass(frozen=True, kw_only=True)
class DeviceArguments(Arguments):
    """Options of the commands that run a trained model."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""

    def check(self) -> None:
        """Raise DeviceError if `device` is none of these."""
        check_device_name(self.device)


@dataclass(frozen=True, kw_only=True)
class RunArguments(DeviceArguments):
    """Options of the commands that use one trained run."""

    run: tyro.conf.Positional[Path]
    """Run folder."""

    def check_paths(self) -> None:
        """Raise RunError if there is no such run."""
        RunFolder(self.run).dataset()


@dataclass(frozen=True, kw_only=True)
class AnalyzeArguments(RunArguments):
    """Analyse the latent space of a run with the sounds of a dataset, and write the result to RUN/latent.

    analysis.json holds the axes, their correlations with sound features, and the nearest neighbours of each sound;
    analysis.safetensors holds the latent vectors; scree.png, map.png and sweep.png show them.
    """

    dataset: tyro.conf.Positional[Path | None] = None
    """Folder of audio files. Default: the one that the run was trained on."""
    cache_dir: Path | None = None
    """Cache folder for features. Default: that of the run, or DATASET/.cache."""
    seed: int = 0
    """Seed of the choice of sounds on the map, if there are too many to show all."""
    yes: bool = False
    """Do not ask before more than 100 MB of features are computed. Without a terminal, nothing is asked."""
    json: bool = False
    """Print one JSON object: the content of analysis.json."""

    def check_paths(self) -> None:
        """Raise RunError if there is no such run, DatasetError if there is no such dataset."""
        super().check_paths()
        if self.dataset is not None:
            Dataset(self.dataset).check()


@dataclass(frozen=True, kw_only=True)
class PlayArguments(DeviceArguments):
    """Play a trained run on a page in the browser: move along its axes, and hear it change. Ctrl-C ends it.

    Needs pip install 'distill[play]'. docs/play.md describes the page, and how programs use it.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, or a folder of run folders."""
    port: int = 0
    """Port to listen on. Default: one that is free."""
    host: str = "127.0.0.1"
    """Address to listen on. With another one than the default, other machines can reach the page; nothing is
    encrypted."""
    browser: bool = True
    """Open the browser."""

    def check(self) -> None:
        """Raise ConfigError if there can be no such port, or DeviceError."""
        super().check()
        if not 0 <= self.port <= 65535:
            raise ConfigError([f"--port {self.port} must be from 0 to 65535"])

    def check_paths(self) -> None:
        """Raise RunError if there is no run."""
        check_library(self.run)


@dataclass(frozen=True, kw_only=True)
class SoundArguments(RunArguments):
    """Options of the commands that write sounds."""

    out: Path
    """Folder to write to; created if missing."""
    format: FileFormat = "wav"
    """Kind of the files: wav, flac, ogg (Vorbis) or mp3. Peaks that would clip are limited; if they are very high, or
    many, the whole sound is made quieter."""
    sample_format: SampleFormat | None = None
    """pcm16, pcm24 or, for wav, float; not for ogg and mp3. Default: pcm24."""
    sample_rate: int | None = None
    """Sample rate of the files in Hz, from 8000 to 192000. Default: that of the model."""
    force: bool = False
    """Replace existing files."""

    def check(self) -> None:
        """Raise ConfigError if the files cannot have this form, or DeviceError."""
        super().check()
        rate = self.sample_rate
        SoundFormat(file_format=self.format, sample_format=self.sample_format, sample_rate=rate).check()


@dataclass(frozen=True, kw_only=True)
class GenerateArguments(SoundArguments, Recipe):
    """Make new sounds with a trained model: samples, interpolations between sounds, or variations of one.

    Writes OUT/sample-001.wav and so on, or interpolation-001.wav, or variation-001.wav.
    """

    start: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    """Sound to interpolate from."""
    end: Annotated[Path | None, tyro.conf.arg(name="to")] = None
    """Sound to interpolate to."""
    through: tuple[Path, ...] = ()
    """Two or more sounds to interpolate through, instead of --from and --to: --through A B C. Each is one of the steps.
    Like all sounds that are given here, they need not have been trained on."""
    axis: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NUMBER=VALUE or NAME=VALUE: move by VALUE standard deviations along an axis that distill analyze found. Repeat
    it for more axes."""
    seed: int | None = None
    """The same seed gives the same sounds; interpolations do not depend on it. Default: random, and printed."""
    json: bool = False
    """Print one JSON object: files, gains (below 1 for a sound that was made quieter so that it does not clip), held_db
    (by how much its power was changed to that of known sounds), limited and limited_db (share of its samples
    that were limited, and by how much at most), seed, sample_rate, duration_s, seconds, settings."""

    def check(self) -> None:
        """Raise ConfigError with all faults of the recipe, or DeviceError."""
        Recipe.check(self)
        SoundArguments.check(self)


@dataclass(frozen=True, kw_only=True)
class ReconstructArguments(SoundArguments):
    """Encode and decode sounds with a trained model.

    Writes OUT/NAME.wav, as long and as loud as the input, OUT/NAME (original).wav, the input itself in the same form,
    and OUT/NAME.png, a picture of both. Files that cannot be used are reported and skipped.
    """

    files: tyro.conf.Positional[tuple[Path, ...]]
    """Audio files."""
    seed: int = 0
    """No effect, since nothing here is random; accepted for consistency with generate."""
    json: bool = False
    """Print one JSON object: files, gains (below 1 for a sound that was made quieter so that it does not clip), held_db
    (by how much its power was changed to that of known sounds), limited and limited_db (share of its samples
    that were limited, and by how much at most), originals, pictures, sources, skipped and partial (path, reason
    and code of each file that is left out, or used in part), seed, sample_rate, seconds, settings."""
