"""A classifier of your own in plain PyTorch: the folder that a sound is in, from its features.

    python examples/own_model.py RECORDINGS [EPOCHS]

RECORDINGS has a folder for each class. Whole files are held out, because chunks of one file are alike.
"""

import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, StackDataset

from distill.audio import ComplexSpectrogramConfig, preprocess_complex_spectrograms
from distill.training import CachedSpectrogramDataset


def labelled_rows(cache_dir, split: str, **options) -> DataLoader:
    rows = CachedSpectrogramDataset(cache_dir, split, split_by="file")
    return DataLoader(StackDataset(rows, rows.labels), batch_size=32, **options)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader, device: str) -> float:
    model.eval()
    right = [model(rows.to(device)).argmax(1).cpu() == labels for rows, labels in loader]
    return torch.cat(right).float().mean().item()


def main(folder: str, epochs: int = 20) -> float:
    """Return the share of validation chunks whose class is found."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Quick if nothing has changed, so that a script can begin with it.
    cache_dir, _ = preprocess_complex_spectrograms(None, folder, ComplexSpectrogramConfig())
    train, val = labelled_rows(cache_dir, "train", shuffle=True), labelled_rows(cache_dir, "val")
    classes = CachedSpectrogramDataset(cache_dir).class_names
    model = nn.Sequential(
        nn.Conv2d(2, 32, 5, stride=2),
        nn.SiLU(),
        nn.Conv2d(32, 64, 5, stride=2),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(1024, len(classes)),
    ).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        model.train()
        for rows, labels in train:
            loss = nn.functional.cross_entropy(model(rows.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {accuracy(model, val, device):.0%} of validation chunks")
    return accuracy(model, val, device)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
