"""Features as a part of training: workers decode and cut waveforms, the GPU computes their features.

    python examples/features_on_gpu.py RECORDINGS [WORKERS]

This is the way for random crops, which a cache cannot hold. Without a GPU the features are computed on the CPU.
"""

import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from distill.audio import ComplexSpectrogram, load_audio

SECOND = 48_000


class Crops(Dataset):
    """A second of each file, from a random place."""

    def __init__(self, folder: str) -> None:
        self.files = [
            path for path in Path(folder).rglob("*") if path.suffix.lower() in (".wav", ".flac", ".ogg", ".mp3")
        ]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        waveform = load_audio(self.files[index], SECOND)
        spare = waveform.shape[-1] - SECOND
        start = torch.randint(spare + 1, ()).item() if spare > 0 else 0
        return torch.nn.functional.pad(waveform[:, start : start + SECOND], (0, max(0, -spare)))


def main(folder: str, workers: int = 2) -> torch.Tensor:
    """Return the features [B, 2, M, T] of the last batch of an epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    spectrogram = ComplexSpectrogram()  # works on the device of its input; nothing has to be moved
    crops = Crops(folder)
    loader = DataLoader(crops, batch_size=8, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda")
    began = time.monotonic()
    for waveforms in loader:
        moved = waveforms.to(device, non_blocking=True)
        features = spectrogram(moved)  # a training step goes here
    rate, backend = len(crops) / (time.monotonic() - began), spectrogram.backend_for(moved)
    print(f"{rate:.0f} seconds of sound a second on {device}, by the backend {backend!r}")
    return features


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
