"""What a run folder holds after training, loaded at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import TrainingConfig
from distill.device import resolve_device
from distill.index import Dataset
from distill.models.store import load_description, load_model
from distill.models.vae import ConvVAE
from distill.runs.folder import RunFolder
from distill.types import PathLike


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A trained run.

    Attributes
    ----------
    path : Path
        The run folder.
    dataset : Dataset
        The dataset that it was trained on.
    config : TrainingConfig
        The configuration that it was trained with.
    model : ConvVAE
        The model with the best weights, in eval mode.
    stats : dict
        Mean and standard deviation of each channel, with which its features are normalised.
    level : dict or None
        `gain_db`, by which the model's output is raised, and `rows_db`, the levels of the rows whose latent vectors it
        holds. None for a run of an earlier version.

    Examples
    --------
    >>> from distill.runs import TrainedRun
    >>> run = TrainedRun.load("runs/first", device="cpu")
    >>> run.config.chunk_samples, run.model.row_shape
    (48000, (2, 128, 94))
    """

    path: Path
    dataset: Dataset
    config: TrainingConfig
    model: ConvVAE
    stats: dict[str, float]
    level: dict[str, Any] | None

    @classmethod
    def load(cls, run_dir: PathLike, device: str = "auto") -> TrainedRun:
        """Load the run in a folder.

        Parameters
        ----------
        run_dir : path
            The run folder.
        device : str
            Device of the model: "auto", "cpu", "cuda", "cuda:N" or "mps". Default: "auto".

        Raises
        ------
        RunError
            If the folder holds no run with a trained model.
        DeviceError
            If the machine has no such device.
        """
        folder = RunFolder(run_dir)
        dataset, config = folder.dataset(), folder.config()
        description = load_description(run_dir)
        return cls(
            path=folder.path,
            dataset=dataset,
            config=config,
            model=load_model(run_dir, resolve_device(device)),
            stats=description["statistics"],
            level=description.get("level"),
        )
